//! Floor 2: one core. Accepts, parses, routes, balances and forwards, executing a snapshot.
