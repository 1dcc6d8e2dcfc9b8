//! What a saturated core refuses. A core looks every few milliseconds how long a turn of its loop takes, which a task that
//! is ready has to wait for; while even the shortest of these waits in an interval exceeds the target (as CoDel judges a
//! queue, RFC 8289), the pressure rises, and with it the share of requests that are refused: first all of low priority,
//! then of normal, then of high. Critical ones are never refused.

use crate::model::Priority;

/// The waits of so many looks are judged together.
const LOOKS: u32 = 10;
/// How much pressure an interval adds at most, and takes away; the share of one priority is 1.
const UP: f64 = 0.2;
const DOWN: f64 = 0.05;

/// A core's pressure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pressure {
    level: f64,
    shortest_ns: Option<u64>,
    looks: u32,
}

impl Pressure {
    /// A task that was ready waited so long for its turn.
    pub fn look(&mut self, waited_ns: u64, target_ns: u64) {
        self.shortest_ns = Some(self.shortest_ns.map_or(waited_ns, |shortest| shortest.min(waited_ns)));
        self.looks += 1;
        if self.looks < LOOKS {
            return;
        }
        let shortest = self.shortest_ns.take().unwrap_or(0);
        self.looks = 0;
        let change = if shortest > target_ns {
            // The further above the target, the faster; at twice the target at full speed.
            ((shortest - target_ns) as f64 / target_ns.max(1) as f64).clamp(0.1, 1.0) * UP
        } else {
            -DOWN
        };
        self.level = (self.level + change).clamp(0.0, 3.0);
    }

    /// Nothing is refused at 0, everything but the critical at 3.
    pub fn level(&self) -> f64 {
        self.level
    }

    /// Whether a request is refused; `random` decides within the priority that is refused in part.
    pub fn refuses(&self, priority: Priority, random: u64) -> bool {
        let below = match priority {
            Priority::Low => 0.0,
            Priority::Normal => 1.0,
            Priority::High => 2.0,
            Priority::Critical => return false,
        };
        random as f64 / u64::MAX as f64 <= self.level - below && self.level > below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_lowest_priority_goes_first_and_the_critical_never() {
        let mut pressure = Pressure::default();
        let looks = |pressure: &mut Pressure, intervals: u32, waited: u64| {
            (0..intervals * LOOKS).for_each(|_| pressure.look(waited, 5 * MS));
        };
        let refused = |pressure: &Pressure, priority| {
            (0..1000u64).filter(|at| pressure.refuses(priority, at * (u64::MAX / 1000))).count()
        };
        looks(&mut pressure, 50, 4 * MS);
        assert_eq!(refused(&pressure, Priority::Low), 0);
        looks(&mut pressure, 3, 20 * MS);
        let share = refused(&pressure, Priority::Low);
        assert!((550..650).contains(&share), "{share}");
        assert_eq!(refused(&pressure, Priority::Normal), 0);
        looks(&mut pressure, 5, 20 * MS);
        assert_eq!(refused(&pressure, Priority::Low), 1000);
        assert!((550..650).contains(&refused(&pressure, Priority::Normal)));
        assert_eq!(refused(&pressure, Priority::High), 0);
        looks(&mut pressure, 50, 20 * MS);
        assert_eq!(refused(&pressure, Priority::High), 1000);
        assert_eq!(refused(&pressure, Priority::Critical), 0);
        // A single quiet look in an interval is enough: what is there comes and goes.
        for _ in 0..100 {
            looks(&mut pressure, 1, MS);
        }
        assert_eq!(refused(&pressure, Priority::Low), 0);
    }

    /// A core that serves 1,000 requests a second and is offered more, half of them of low priority: the line stays
    /// short, and what is not of low priority is served.
    #[test]
    fn an_overloaded_core_keeps_its_line_short() {
        let mut pressure = Pressure::default();
        let (mut waiting, mut high_refused, mut high_offered, mut longest) = (0.0f64, 0u32, 0u32, 0.0f64);
        for step in 0..6000u64 {
            // One step is 10 ms: ten requests are served, fifteen come.
            let mut admitted = 0.0;
            for number in 0..15u64 {
                let random = (step * 15 + number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let priority = if number % 2 == 0 { Priority::Low } else { Priority::High };
                let refused = pressure.refuses(priority, random);
                admitted += f64::from(u32::from(!refused));
                if step > 1000 && priority == Priority::High {
                    high_offered += 1;
                    high_refused += u32::from(refused);
                }
            }
            waiting = (waiting + admitted - 10.0).max(0.0);
            if step > 1000 {
                longest = longest.max(waiting);
            }
            pressure.look((waiting * MS as f64) as u64, 50 * MS);
        }
        assert_eq!(high_refused, 0, "of {high_offered}");
        assert!(longest < 250.0, "{longest} waited");
    }
}
