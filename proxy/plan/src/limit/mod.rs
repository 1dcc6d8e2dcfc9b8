//! What keeps load away from what cannot bear it: rates, requests in flight, lines, and what a saturated core refuses.
//! Pure over atomics or over a state that the core owns; time is an argument.
//!
//! | limit | counted | error |
//! |---|---|---|
//! | rate limits of a route ([`Rate`]) | over all cores | none for a key that is known; a new one that several cores see in the same instant may pass once more for each, and one forgotten for lack of room begins anew |
//! | requests in flight of a listener, a route, an endpoint ([`Gate`]) | over all cores | none upwards; while one core takes a refused count back, another may refuse one too many |
//! | requests in flight and connections of a cluster | an even share per core ([`share`]) | a core may refuse, or let wait, while another has room; never more in all, unless the limit is lower than the number of cores: then one for each core |
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

/// A core's part of a limit for the whole process. All parts together are the limit, or one for each core where it is
/// lower than the number of cores: a core without any could serve nothing.
pub fn share(limit: u32, core: usize, cores: usize) -> u32 {
    let (core, cores) = (core as u32, cores.max(1) as u32);
    (limit / cores + u32::from(core < limit % cores)).max(1)
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn the_parts_of_a_limit_are_the_limit() {
        for cores in 1..=17 {
            for limit in 0..100 {
                let parts: Vec<u32> = (0..cores).map(|core| share(limit, core, cores)).collect();
                assert_eq!(parts.iter().sum::<u32>(), limit.max(cores as u32), "{limit} over {cores}");
                assert!(parts.iter().max().expect("one") - parts.iter().min().expect("one") <= 1);
            }
        }
    }
}
