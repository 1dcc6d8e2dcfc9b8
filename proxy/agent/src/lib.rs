//! Floor 3: everything off the worker cores: configuration files, names, listening sockets, access records, the
//! admin endpoint. It produces snapshots and reads meters; it never imports `worker`, and no request waits for it.

mod admin;
mod attic;
mod dns;
mod file;
mod identity;
mod log;
mod probe;
mod publish;
mod run;
mod states;
mod takeover;

pub use log::Log;
pub use publish::{Publisher, Refused};
pub use run::{Agent, Ended, Source, cores_have_ended, run};
pub use takeover::{Inherited, inherit};

/// The name under which the admin endpoint's socket is handed over; no listener can be called that.
pub const ADMIN: &str = "@admin";
