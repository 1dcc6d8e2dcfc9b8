//! What keeps load away from what cannot bear it: rates, requests in flight, lines, and what a saturated core refuses.
//! Pure over atomics or over a state that the core owns; time is an argument.
//!
//! | limit | counted | error |
//! |---|---|---|
//! | rate limits of a route ([`Rate`]) | over all cores | none for a key that is known; a new one that several cores see in the same instant may pass once more for each, and one forgotten for lack of room begins anew |
//! | requests in flight of a listener, a route, an endpoint ([`Gate`]) | over all cores | none upwards; while one core takes a refused count back, another may refuse one too many |
//! | requests in flight and connections of a cluster | an even share per core | a core may refuse, or let wait, while another has room: at most the limit divided by the cores |
//! | connections of a listener | an even share per core | likewise |
//! | line for a connection: length and age ([`Line`]) | per core | none |
//! | adaptive concurrency of a cluster ([`Gradient`]) | per core | each core finds the limit of its own share |
//! | shedding ([`Pressure`]) | per core | none: it is the core that is saturated |

mod gate;
mod gradient;
mod line;
mod rate;
mod shed;

pub use gate::{Gate, Guards, MAX_RATES};
pub use gradient::Gradient;
pub use line::Line;
pub use rate::{Rate, Refusal, Taken};
pub use shed::Pressure;
