//! Whether an attempt is repeated, and after how long.

use std::borrow::Cow;
use std::time::Duration;

use onehop_meter::names::Denied;

use super::calls::{self, Calls};
use crate::model::{self, RetryOn};
use crate::route::{Field, Scratch};

/// What became of an attempt.
pub enum Happened<'a> {
    /// Nobody can have acted on the request.
    Untouched,
    /// The connection ended before any byte of a response.
    Reset,
    /// The try's time was over before any byte of a response.
    Timeout,
    /// What came is no response.
    Nonsense,
    /// A response.
    Answer {
        /// Its status.
        status: u16,
        /// Its fields by their names in lower case.
        header: &'a dyn Fn(&str) -> Option<Cow<'a, [u8]>>,
    },
}

/// What is to be done about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is what the client gets: no condition is met.
    Pass,
    /// A condition is met, and yet there is no other attempt.
    Denied(Denied),
    /// Another attempt, if the budget allows it.
    Again,
}

/// When and how an attempt is repeated.
#[derive(Debug)]
pub struct Retry {
    /// Attempts beyond the first.
    pub attempts: u32,
    /// How long one may take to its response head.
    pub per_try_timeout: Option<Duration>,
    /// Bytes of a request body that are kept.
    pub max_body: usize,
    connect_failure: bool,
    reset: bool,
    gateway_error: bool,
    server_error: bool,
    calls: Calls,
    statuses: Vec<u16>,
    headers: Vec<Field>,
    backoff_ns: u64,
    max_backoff_ns: u64,
    max_retry_after_ns: u64,
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Retry {
    pub(super) fn new(wanted: &model::Retry) -> Retry {
        let on = |what| wanted.on.contains(&what);
        let mut statuses = wanted.statuses.clone();
        statuses.sort_unstable();
        Retry {
            attempts: wanted.attempts,
            per_try_timeout: wanted.per_try_timeout,
            max_body: if wanted.attempts == 0 { 0 } else { wanted.max_body as usize },
            connect_failure: on(RetryOn::ConnectFailure),
            reset: on(RetryOn::ResetBeforeResponse),
            gateway_error: on(RetryOn::GatewayError),
            server_error: on(RetryOn::ServerError),
            calls: Calls::new(&wanted.on),
            statuses,
            headers: Field::headers(&wanted.headers).unwrap_or_default(),
            backoff_ns: nanos(wanted.backoff),
            max_backoff_ns: nanos(wanted.max_backoff),
            max_retry_after_ns: nanos(wanted.max_retry_after),
        }
    }

    /// Whether what happened is a reason for another attempt.
    pub fn names(&self, happened: &Happened<'_>, scratch: &mut Scratch) -> bool {
        match happened {
            Happened::Untouched => self.connect_failure || self.gateway_error || self.server_error,
            Happened::Reset | Happened::Timeout => self.reset || self.gateway_error || self.server_error,
            Happened::Nonsense => self.gateway_error || self.server_error,
            Happened::Answer { status, header } => {
                self.names_call(happened)
                    || (self.server_error && (500..600).contains(status))
                    || (self.gateway_error && (502..=504).contains(status))
                    || self.statuses.binary_search(status).is_ok()
                    || self.headers.iter().any(|field| field.test.holds(header(&field.name).as_deref(), scratch))
            }
        }
    }

    /// Whether a call ended with one of the named statuses.
    fn names_call(&self, happened: &Happened<'_>) -> bool {
        match happened {
            Happened::Answer { status: 200, header } => self.calls.names(|| header(calls::FIELD)),
            _ => false,
        }
    }

    /// What is to be done after `tried` attempts. `repeatable`: the request may be carried out twice (its method is
    /// idempotent, or it brings an `Idempotency-Key`); `whole`: all of its body can be sent again.
    pub fn judge(
        &self,
        tried: u32,
        happened: &Happened<'_>,
        repeatable: bool,
        whole: bool,
        scratch: &mut Scratch,
    ) -> Verdict {
        if !self.names(happened, scratch) {
            return Verdict::Pass;
        }
        if !repeatable && !matches!(happened, Happened::Untouched) && !self.names_call(happened) {
            return Verdict::Denied(Denied::NotIdempotent);
        }
        if !whole {
            return Verdict::Denied(Denied::BodyTooLong);
        }
        if tried > self.attempts {
            // Where none are wanted none are missed.
            return if self.attempts == 0 { Verdict::Pass } else { Verdict::Denied(Denied::Attempts) };
        }
        Verdict::Again
    }

    /// How long the next attempt waits after `tried` of them: a random part (`random` of all 64 bits) of a time that
    /// doubles, but at least what the upstream asked for.
    ///
    /// # Errors
    /// It asked for more than may be waited.
    pub fn wait_ns(&self, tried: u32, random: u64, retry_after: Option<Duration>) -> Result<u64, Denied> {
        let doubled = self.backoff_ns.saturating_mul(1 << tried.saturating_sub(1).min(30));
        let most = doubled.min(self.max_backoff_ns);
        let jittered = ((u128::from(random) * u128::from(most)) >> 64) as u64;
        match retry_after.map(nanos) {
            Some(asked) if asked > self.max_retry_after_ns => Err(Denied::RetryAfter),
            Some(asked) => Ok(asked.saturating_add(jittered)),
            None => Ok(jittered),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{FieldMatch, ValueMatch};

    fn retry(on: &[RetryOn]) -> Retry {
        let headers = vec![FieldMatch { name: "X-Retry".to_owned(), value: ValueMatch::Exact("yes".to_owned()) }];
        Retry::new(&model::Retry { on: on.to_vec(), statuses: vec![429, 404], headers, ..Default::default() })
    }

    fn judge(retry: &Retry, happened: &Happened<'_>) -> Verdict {
        retry.judge(1, happened, true, true, &mut Scratch::default())
    }

    fn answers(retry: &Retry, status: u16) -> bool {
        judge(retry, &Happened::Answer { status, header: &|_| None }) == Verdict::Again
    }

    #[test]
    fn each_condition_means_what_it_says() {
        use RetryOn::*;
        let gateway = retry(&[GatewayError]);
        let statuses: Vec<u16> = (200..600).filter(|status| answers(&gateway, *status)).collect();
        assert_eq!(statuses, [404, 429, 502, 503, 504]);
        let server = retry(&[ServerError]);
        assert!((500..600).all(|status| answers(&server, status)) && !answers(&server, 400));
        let reset = retry(&[ResetBeforeResponse]);
        assert_eq!(judge(&reset, &Happened::Reset), Verdict::Again);
        assert_eq!(judge(&reset, &Happened::Timeout), Verdict::Again);
        assert_eq!(judge(&reset, &Happened::Untouched), Verdict::Pass);
        assert_eq!(judge(&reset, &Happened::Nonsense), Verdict::Pass);
        assert!(!answers(&reset, 503) && answers(&reset, 429));
        let marked: &dyn Fn(&str) -> Option<Cow<'static, [u8]>> =
            &|name| (name == "x-retry").then_some(Cow::Borrowed(&b"yes"[..]));
        assert_eq!(judge(&reset, &Happened::Answer { status: 200, header: marked }), Verdict::Again);
        assert_eq!(judge(&retry(&[ConnectFailure]), &Happened::Untouched), Verdict::Again);
        assert_eq!(judge(&retry(&[ConnectFailure]), &Happened::Reset), Verdict::Pass);
    }

    #[test]
    fn only_what_may_happen_twice_is_repeated() {
        let retry = retry(&[RetryOn::ServerError]);
        let mut scratch = Scratch::default();
        let mut judge = |tried, happened: &Happened<'_>, repeatable, whole| {
            retry.judge(tried, happened, repeatable, whole, &mut scratch)
        };
        let failed = Happened::Answer { status: 500, header: &|_| None };
        assert_eq!(judge(1, &failed, false, true), Verdict::Denied(Denied::NotIdempotent));
        assert_eq!(judge(1, &Happened::Untouched, false, true), Verdict::Again);
        assert_eq!(judge(1, &failed, true, false), Verdict::Denied(Denied::BodyTooLong));
        assert_eq!(judge(2, &failed, true, true), Verdict::Again);
        assert_eq!(judge(3, &failed, true, true), Verdict::Denied(Denied::Attempts));
        let fine = Happened::Answer { status: 200, header: &|_| None };
        assert_eq!(judge(1, &fine, false, false), Verdict::Pass);
    }

    #[test]
    fn waits_are_random_parts_of_times_that_double() {
        let retry = retry(&[]);
        let ms = 1_000_000;
        let longest = |tried| retry.wait_ns(tried, u64::MAX, None).expect("no Retry-After").div_ceil(ms);
        assert_eq!((1..=6).map(longest).collect::<Vec<_>>(), [25, 50, 100, 200, 250, 250]);
        assert_eq!(retry.wait_ns(40, u64::MAX / 2, None).expect("no Retry-After").div_ceil(ms), 125);
        assert_eq!(retry.wait_ns(1, 0, None), Ok(0));
        assert_eq!(retry.wait_ns(1, 0, Some(Duration::from_secs(1))), Ok(1000 * ms));
        assert_eq!(retry.wait_ns(1, 0, Some(Duration::from_secs(2))), Err(Denied::RetryAfter));
    }
}
