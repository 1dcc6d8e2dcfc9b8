//! Floor 1: the only crate that knows the ring. Runtime, listeners, streams, deadlines, mailbox.
