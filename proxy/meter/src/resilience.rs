//! What a route's policy did about failures: retries that were denied, hedges, copies, disturbances.

use std::sync::OnceLock;

use crate::core::Counter;
use crate::names::{Denied, Injected};
use crate::registry::Family;
use crate::scrape::{Text, route};
use crate::series::RouteMeters;

/// Of one route, on one core.
#[derive(Debug)]
pub struct ResilienceMeters {
    /// Retries that the policy names and that were not made, by why.
    pub denied: [Counter; Denied::ALL.len()],
    /// Requests disturbed on purpose, by how.
    pub injected: [Counter; Injected::ALL.len()],
    /// Second tries beside a first one.
    pub hedges: Counter,
    /// Of them answered first.
    pub hedges_won: Counter,
    /// Copies sent.
    pub mirrored: Counter,
    /// Copies not sent: too many under way, or a body that is too long or did not come.
    pub mirrors_dropped: Counter,
    /// Copies that were sent and got no answer.
    pub mirrors_failed: Counter,
}

impl Default for ResilienceMeters {
    fn default() -> ResilienceMeters {
        ResilienceMeters {
            denied: std::array::from_fn(|_| Counter::default()),
            injected: std::array::from_fn(|_| Counter::default()),
            hedges: Counter::default(),
            hedges_won: Counter::default(),
            mirrored: Counter::default(),
            mirrors_dropped: Counter::default(),
            mirrors_failed: Counter::default(),
        }
    }
}

/// The same, made when it is first written: most routes have no policy.
#[derive(Debug, Default)]
pub struct LazyResilience(OnceLock<Box<ResilienceMeters>>);

impl LazyResilience {
    /// To be written, by its core alone.
    pub fn get(&self) -> &ResilienceMeters {
        self.0.get_or_init(Box::default)
    }

    fn read(&self, figure: impl Fn(&ResilienceMeters) -> &Counter) -> u64 {
        self.0.get().map_or(0, |meters| figure(meters).get())
    }
}

impl Text {
    pub(crate) fn resilience(&mut self, family: &Family<RouteMeters>) {
        type Figure = fn(&ResilienceMeters) -> &Counter;
        const PLAIN: [(&str, &str, Figure); 5] = [
            ("onehop_route_hedges_total", "Second tries sent beside a first one.", |meters| &meters.hedges),
            ("onehop_route_hedges_won_total", "Of them answered first.", |meters| &meters.hedges_won),
            ("onehop_route_mirrored_total", "Copies sent to the mirror.", |meters| &meters.mirrored),
            (
                "onehop_route_mirrors_dropped_total",
                "Copies not sent: too many under way, or a body that is too long or did not come.",
                |meters| &meters.mirrors_dropped,
            ),
            ("onehop_route_mirrors_failed_total", "Copies sent that got no answer.", |meters| &meters.mirrors_failed),
        ];
        for (name, help, figure) in PLAIN {
            self.some(family, name, help, "", figure);
        }
        let name = "onehop_route_retries_denied_total";
        self.head(name, "counter", "Failures that the retry policy names and that were not sent again, by why.");
        for (at, denied) in Denied::ALL.iter().enumerate() {
            let label = format!(",why=\"{}\"", denied.as_str());
            self.samples(family, name, &label, |meters| &meters.denied[at]);
        }
        let name = "onehop_route_faults_injected_total";
        self.head(name, "counter", "Requests disturbed on purpose, by how.");
        for (at, injected) in Injected::ALL.iter().enumerate() {
            let label = format!(",kind=\"{}\"", injected.as_str());
            self.samples(family, name, &label, |meters| &meters.injected[at]);
        }
    }

    fn some(
        &mut self,
        family: &Family<RouteMeters>,
        name: &str,
        help: &str,
        label: &str,
        figure: impl Fn(&ResilienceMeters) -> &Counter,
    ) {
        self.head(name, "counter", help);
        self.samples(family, name, label, figure);
    }

    /// Only of routes that have counted something.
    fn samples(
        &mut self,
        family: &Family<RouteMeters>,
        name: &str,
        label: &str,
        figure: impl Fn(&ResilienceMeters) -> &Counter,
    ) {
        for (key, series) in family {
            let count = series.sum(|block| block.resilience.read(&figure));
            if count > 0 {
                self.sample(name, &format!("{}{label}", route(key)), count);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::Registry;
    use crate::names::{Denied, Injected};

    #[test]
    fn what_was_counted_is_shown_and_nothing_else() {
        let registry = Registry::new(2);
        registry.route("plain").core(0).requests.add(1);
        let route = registry.route("r");
        route.core(1).resilience.get().denied[Denied::Budget as usize].add(2);
        route.core(0).resilience.get().injected[Injected::SlowBody as usize].add(1);
        let text = registry.scrape();
        assert!(text.contains("onehop_route_retries_denied_total{route=\"r\",why=\"budget\"} 2\n"), "{text}");
        assert!(text.contains("onehop_route_faults_injected_total{route=\"r\",kind=\"slow-body\"} 1\n"), "{text}");
        assert!(!text.contains("onehop_route_hedges_total{"), "{text}");
    }
}
