//! Floor 1: the neutral model of what is wanted, compiled into one immutable snapshot.
