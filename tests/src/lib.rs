//! End-to-end behaviours against the real binaries, and the kit they share.
