//! How late the generator sends, beside a bare loop that only waits for such moments on the same CPU: the machine's own
//! floor, below which no generator can be.

use std::fmt::Write;
use std::time::Duration;

use hdrhistogram::Histogram;
use onehop_load::generator::Generator;
use onehop_load::plan::{Loop, Plan};
use onehop_load::schedule::Arrivals;
use onehop_load::units::show;
use onehop_load::{floor, record};

use crate::hop::Scenario;
use crate::hop::runner::{self, Place};

/// At half of the capacity, half of the requests are sent at most so late, in nanoseconds.
pub const P50_NS: u64 = 2_000;
/// And all but a hundredth at most so late.
pub const P99_NS: u64 = 20_000;
/// Rounds of the generator and of the bare loop, in turn.
const ROUNDS: u64 = 3;
const BLOCK: Duration = Duration::from_millis(700);
const SCENARIO: &str = "name = \"lateness\"\ntitle = \"Send lateness\"\nkind = \"direct\"\nprotocol = \"http\"\nsize = \"128\"\n\
                        connections = 32\nrate = \"4000\"\nblock = \"700ms\"\n";

/// What was found at one rate.
#[derive(Clone, Debug)]
pub struct Lateness {
    /// Requests a second.
    pub rate: f64,
    /// Quantiles 0.5, 0.9, 0.99 and 0.999 of the generator's lateness, in nanoseconds.
    pub ours: [u64; 4],
    /// Those of the bare loop.
    pub floor: [u64; 4],
}

impl Lateness {
    /// Whether it is as it should be, as far as the machine allows it.
    pub fn is_well(&self) -> bool {
        self.ours[0] <= P50_NS + self.floor[0] && self.ours[2] <= P99_NS + self.floor[2]
    }

    /// Whether the target is met, whatever the machine allows.
    pub fn is_met(&self) -> bool {
        self.ours[0] <= P50_NS && self.ours[2] <= P99_NS
    }
}

fn quantiles(late: &Histogram<u64>) -> [u64; 4] {
    [0.5, 0.9, 0.99, 0.999].map(|quantile| late.value_at_quantile(quantile))
}

/// Measures at a rate; the plan's own pacing and times are replaced.
///
/// # Errors
/// When it cannot be run.
pub fn measure(generator: &Generator, plan: &Plan, cpu: usize, rate: f64) -> Result<Lateness, String> {
    let (mut ours, mut bare) = (record::histogram(), record::histogram());
    let whole = |error: hdrhistogram::AdditionError| error.to_string();
    for seed in 0..ROUNDS {
        let pacing = Loop::Open { rate, arrivals: Arrivals::Uniform };
        let plan = Plan { pacing, duration: BLOCK, seed, ..plan.clone() };
        ours.add(&generator.run(plan, &mut |_, _| {})?.total.lateness).map_err(whole)?;
        let floor = floor::measure(cpu, rate, BLOCK, seed).map_err(|error| format!("CPU {cpu}: {error}"))?;
        bare.add(&floor).map_err(whole)?;
    }
    Ok(Lateness { rate, ours: quantiles(&ours), floor: quantiles(&bare) })
}

/// `onehop-bench lateness`: at a quarter, half and three quarters of what generator and origin bear together on a core.
///
/// # Errors
/// When it cannot be run.
pub fn table(place: &Place) -> Result<(String, bool), String> {
    let scenario = Scenario::parse(SCENARIO)?;
    let (generator, origins) = runner::generator(&scenario, place, &[])?;
    let plan = runner::plan(&scenario, origins[0], Loop::Closed, 1)?;
    let most = generator.run(plan.clone(), &mut |_, _| {})?.rate();
    let mut text = format!(
        "Generator and origin on CPU {} bear {most:.0} requests a second together. Quantiles 0.5 / 0.9 / 0.99 / 0.999; \
         wanted at half of it: p50 at most {}, p99 at most {}.\n\n\
         | of that | requests a second | lateness | a bare loop on that CPU |\n|---|---|---|---|\n",
        place.generator_cpu,
        show(P50_NS as f64),
        show(P99_NS as f64)
    );
    let mut met = false;
    for share in [0.25, 0.5, 0.75] {
        let found = measure(&generator, &plan, place.generator_cpu, most * share)?;
        let shown = |quantiles: [u64; 4]| quantiles.map(|ns| show(ns as f64)).join(" / ");
        let percent = share * 100.0;
        let _ =
            writeln!(text, "| {percent:.0} % | {:.0} | {} | {} |", found.rate, shown(found.ours), shown(found.floor));
        if share == 0.5 {
            met = found.is_met();
        }
    }
    let _ = write!(text, "\nThe target is {}.", if met { "met" } else { "missed" });
    Ok((text, met))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_cannot_is_no_excuse_for_the_target() {
        let late = |ours, floor| Lateness { rate: 1.0, ours, floor };
        let good = late([500, 1_000, 19_000, 90_000], [20, 40, 60, 80]);
        assert!(good.is_met() && good.is_well());
        let machine = late([500, 1_000, 28_000, 90_000], [20, 40, 15_000, 80_000]);
        assert!(!machine.is_met() && machine.is_well());
        let own = late([500, 1_000, 28_000, 90_000], [20, 40, 5_000, 80_000]);
        assert!(!own.is_met() && !own.is_well());
    }
}
