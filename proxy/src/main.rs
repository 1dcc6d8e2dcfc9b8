//! The `onehop` binary.
fn main() {}
