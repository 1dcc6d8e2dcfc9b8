//! What cannot be meant.

use crate::compile::{Place, Problems};
use crate::model::{self, Disturbance};
use crate::route::Field;

/// Checks what the `at`-th route of a model does about failures.
pub(crate) fn check(wanted: &model::Resilience, at: usize, problems: &mut Problems) {
    let place = |key| Place::Route(at, key);
    let retry = &wanted.retry;
    if retry.attempts > 10 {
        problems.add(place("retry"), "more than 10 attempts multiply load when it hurts most");
    }
    if retry.per_try_timeout.is_some_and(|timeout| timeout.is_zero()) {
        problems.add(place("retry"), "a per_try_timeout of zero would fail every attempt");
    }
    if retry.backoff > retry.max_backoff {
        problems.hint(place("retry"), "backoff is longer than max_backoff", "max_backoff = \"1s\"");
    }
    if retry.max_body > MAX_KEPT {
        problems.add(place("retry"), "max_body is kept in memory for each request: at most 16MiB");
    }
    if let Some(status) = retry.statuses.iter().find(|status| !(200..600).contains(*status)) {
        problems.add(place("retry"), format!("{status} is no status of a final response"));
    }
    if let Err(error) = Field::headers(&retry.headers) {
        problems.add(place("retry"), error);
    }
    if let Some(hedge) = &wanted.hedge {
        if hedge.after.is_none() && hedge.quantile.is_none() {
            let hint = "hedge = { after = \"50ms\" }, or hedge = { quantile = 0.95 }";
            problems.hint(place("hedge"), "a hedge needs to know when", hint);
        }
        if hedge.quantile.is_some_and(|share| !(0.5..1.0).contains(&share)) {
            problems.add(place("hedge"), "the quantile is between 0.5 and 1: most requests are not to be sent twice");
        }
        if hedge.budget > 50 {
            problems.add(place("hedge"), "a budget above 50 percent would send most requests twice");
        }
    }
    if let Some(mirror) = &wanted.mirror {
        check_percent(mirror.percent, place("mirror"), problems);
        if mirror.max_body > MAX_KEPT {
            problems.add(place("mirror"), "max_body is kept in memory for each copy: at most 16MiB");
        }
    }
    for injection in &wanted.injections {
        check_percent(injection.percent, place("faults"), problems);
        if let Err(error) = Field::headers(&injection.headers) {
            problems.add(place("faults"), error);
        }
        match injection.what {
            Disturbance::Abort(status) if !(200..600).contains(&status) => {
                problems.add(place("faults"), format!("abort = {status} is no status of a final response"));
            }
            Disturbance::SlowBody(0) => problems.add(place("faults"), "a slow_body of nothing a second never ends"),
            _ => {}
        }
    }
}

/// Of a request body, in memory.
const MAX_KEPT: u64 = 16 * 1024 * 1024;

fn check_percent(percent: f64, place: Place, problems: &mut Problems) {
    if !(0.0..=100.0).contains(&percent) {
        problems.add(place, "a percentage is between 0 and 100");
    }
}
