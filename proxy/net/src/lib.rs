//! Floor 1: the only crate that knows the ring. It offers streams, listeners, deadlines and a mailbox to the
//! floors above, which never name the engine below, so that it can be changed and measured.
//! May import `wire` and `meter`. Must not know HTTP, routes or clusters. `unsafe` lives in `sys/` alone.

pub mod address;
pub mod clock;
pub mod core;
pub mod deadline;
pub mod digest;
pub mod h2;
pub mod lap;
pub mod listener;
pub mod mailbox;
pub mod precise;
pub mod relay;
pub mod runtime;
pub mod stream;
mod sys;
pub mod tls;

pub use address::{Address, Peer};
pub use stream::Stream;
pub use sys::buf::{Buf, Size, in_use as buffers_in_use};
pub use sys::code::release_start_up_code;
pub use sys::handoff::{receive_descriptors, send_descriptors};
pub use sys::heap::Heap;
pub use sys::listen::{bind, bind_unix, local_address, make_transparent};
pub use sys::process::{
    avoid_huge_pages, make_pipe, open_files, pin_to_cpu, raise_open_files, release_free_memory, usable_cpus,
};
pub use sys::socket::{mark, mark_connections, shutdown_read};
