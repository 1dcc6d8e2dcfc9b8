//! Everything that needs `unsafe`: buffers that the kernel writes into, socket calls, the ring's flags and polling.
//! Each block says why it is sound; nothing above this folder may use `unsafe`.
#![allow(unsafe_code)]

pub mod buf;
pub mod code;
pub mod duplex;
pub mod handoff;
pub mod heap;
pub mod listen;
pub mod process;
pub mod ring;
pub mod socket;
pub mod timer;
