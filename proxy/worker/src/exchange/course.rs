//! The attempts of an exchange. Under a route's own policy its body is kept, its failures are judged, its attempts repeated
//! elsewhere after a wait, each within its time; without one, two simple rules say whether there is another attempt.

use std::borrow::Cow;
use std::cell::{Cell, OnceCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use onehop_meter::ResilienceMeters;
use onehop_meter::ledger::{Ledger, State};
use onehop_meter::names::{Denied, Reason};
use onehop_net::Size;
use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::Alarm;
use onehop_plan::Route;
use onehop_plan::resilience::{Happened, Resilience, Verdict};
use onehop_wire::http1::BodyLength;

use super::attempt::{Answer, Attempt, Failure};
use super::changes::Changes;
use super::choice::Choice;
use super::leg::Leg;
use super::mirror;
use super::reader::Reader;
use super::retry_after;
use super::tape::Tape;
use super::{Outcome, Request};
use crate::fault::{Fault, Side, Step};
use crate::shard::Shard;
use crate::upstream::{ClusterState, Wanted};

/// One exchange, its route and its cluster chosen.
pub struct Course<'a> {
    /// The core.
    pub shard: &'a Rc<Shard>,
    /// What is to be sent.
    pub request: &'a Request<'a>,
    /// Its route.
    pub route: &'a Arc<Route>,
    /// The route's policy, if it has one.
    pub policy: Option<&'a Resilience>,
    /// Its cluster.
    pub cluster: &'a Rc<ClusterState>,
    /// What narrows the choice of an endpoint.
    pub choice: &'a Choice<'a>,
    /// What the route changes in the heads.
    pub changes: Option<&'a Changes>,
}

/// What an attempt came to.
pub(super) type Asked = Result<Answer, Failure>;

/// Stops a tape when its exchange ends.
struct Stops(Option<Tape>);

impl Drop for Stops {
    fn drop(&mut self) {
        if let Some(tape) = &self.0 {
            tape.stop();
        }
    }
}

/// How an exchange stands between two attempts.
pub(super) struct Standing {
    begun: Nanos,
    repeatable: bool,
    /// Nothing of the request's body is still to come.
    whole: bool,
    /// The one retry on a connection that died as it was reused has been made.
    repeated: bool,
    /// Connections whose GOAWAY left it out, or that refused its stream.
    left_out: u32,
    wanted: Wanted,
    /// Endpoints at which it failed, by their index in the cluster.
    pub(super) avoid: Vec<usize>,
}

impl Standing {
    /// The next attempt goes elsewhere, if there is an elsewhere.
    pub(super) fn avoid(&mut self, index: usize) {
        if index != usize::MAX && !self.avoid.contains(&index) {
            self.avoid.push(index);
        }
    }
}

impl Course<'_> {
    /// Runs the exchange. The first attempt is made here, what follows is boxed: most have no second one.
    #[expect(clippy::manual_async_fn, reason = "an async fn keeps what it takes twice")]
    pub fn run(&self, client: &mut Leg<'_>, ledger: &mut Ledger, outcome: &mut Outcome) -> impl Future<Output = ()> {
        async move {
            let kept = Stops(self.tape(client));
            // Even where the policy keeps nothing, a body is, as long as it can be refused.
            let cell = kept.0.clone().map_or_else(OnceCell::new, OnceCell::from);
            if let Some(mirror) = self.policy.and_then(|policy| policy.mirror.as_ref()) {
                mirror::send(self, mirror, kept.0.as_ref());
            }
            let mut standing = self.standing(kept.0.as_ref(), ledger.latest());
            // A body that two tries may send at the same time is read in before the first.
            if let Some(tape) = &kept.0
                && self.hedge(standing.repeatable, true).is_some()
                && !self.request.head.expect_continue
            {
                match Box::pin(self.collect(client, tape)).await {
                    Ok(collected) => standing.whole = collected,
                    Err(fault) => {
                        outcome.fault = Some(fault);
                        return;
                    }
                }
            }
            outcome.attempts = 1;
            let attempt = self.attempt(&standing, &cell, outcome, standing.begun, 1);
            // What is borrowed before it is handed on would be kept beside what follows.
            let (asked, judged) = {
                let asked = match self.hedge(standing.repeatable, standing.whole) {
                    None => attempt.ask(client, &mut standing.avoid, ledger, outcome).await,
                    Some(hedge) => {
                        let state = (&mut standing, &cell);
                        Box::pin(self.hedged(hedge, &attempt, state, client, ledger, outcome)).await
                    }
                };
                let judged = self.judge(&asked, kept.0.as_ref(), &mut standing, client, outcome);
                (asked, judged)
            };
            match judged {
                Ok(wait) => {
                    let state = (&mut standing, &cell, kept.0.as_ref());
                    Box::pin(self.go_on(&attempt, asked, wait, state, client, ledger, outcome)).await;
                }
                Err(denied) => {
                    self.denied(denied, outcome);
                    let mut last = asked;
                    let passed = attempt.pass_on(client, &mut last, ledger, outcome).await;
                    attempt.conclude(passed, last, ledger, outcome);
                }
            }
        }
    }

    /// Before the first attempt.
    fn standing(&self, tape: Option<&Tape>, begun: Nanos) -> Standing {
        let repeatable = self.is_repeatable();
        let wanted = if repeatable { Wanted::Any } else { Wanted::Fresh };
        let whole = tape.is_none_or(Tape::is_whole);
        Standing { begun, repeatable, whole, repeated: false, left_out: 0, wanted, avoid: Vec::new() }
    }

    /// Makes further attempts, as long as there are to be any. `wait`: see [`Course::judge`].
    #[expect(clippy::too_many_arguments, reason = "each is a different part of one exchange")]
    async fn go_on(
        &self,
        first: &Attempt<'_>,
        mut asked: Asked,
        mut wait: Option<u64>,
        (standing, cell, tape): (&mut Standing, &OnceCell<Tape>, Option<&Tape>),
        client: &mut Leg<'_>,
        ledger: &mut Ledger,
        outcome: &mut Outcome,
    ) {
        // This request's place in the retry budget, from its first retry to its end.
        let mut place = None;
        let mut latest = None;
        let denied = loop {
            let attempt = latest.as_ref().unwrap_or(first);
            if let Some(wait) = wait {
                let untouched = asked.as_ref().is_err_and(|failure| failure.fault.retryable);
                place = self.cluster.may_retry(place.take(), untouched);
                if place.is_none() {
                    break self.policy.map(|_| Denied::Budget);
                }
                standing.avoid(attempt.picked.get());
                self.give_up(asked, ledger.latest());
                if wait > 0 && self.wait(wait, client, ledger).await {
                    outcome.fault = Some(Fault::new(Side::Downstream, Step::Wait, Reason::ClientLeft));
                    return;
                }
            }
            let core = self.shard.outfit.core;
            self.cluster.cluster.borrow().meters.core(core).retries.add(1);
            self.route.meters.core(core).retries.add(1);
            outcome.attempts += 1;
            let next = self.attempt(standing, cell, outcome, ledger.latest(), outcome.attempts);
            asked = match self.hedge(standing.repeatable, standing.whole) {
                None => next.ask(client, &mut standing.avoid, ledger, outcome).await,
                Some(hedge) => {
                    Box::pin(self.hedged(hedge, &next, (&mut *standing, cell), client, ledger, outcome)).await
                }
            };
            let judged = self.judge(&asked, tape, standing, client, outcome);
            latest = Some(next);
            match judged {
                Ok(again) => wait = again,
                Err(denied) => break denied,
            }
        };
        self.denied(denied, outcome);
        let last = latest.as_ref().unwrap_or(first);
        let passed = last.pass_on(client, &mut asked, ledger, outcome).await;
        last.conclude(passed, asked, ledger, outcome);
    }

    /// Waits before another attempt; true as soon as the client has left.
    async fn wait(&self, wait: u64, client: &mut Leg<'_>, ledger: &mut Ledger) -> bool {
        ledger.enter(State::UpstreamWait, ledger.latest());
        let left = pause(client, clock::now().saturating_add(wait)).await;
        ledger.enter(State::Hop, clock::now());
        left
    }

    /// The request's body, on a tape if there may be use for it.
    fn tape(&self, client: &Leg<'_>) -> Option<Tape> {
        let body = self.request.head.body;
        let bound = self.policy.map_or(0, Resilience::kept_body);
        if bound == 0 || matches!(body, BodyLength::None | BodyLength::Length(0)) {
            return None;
        }
        let limits = crate::http1::limits(&self.request.listener.http);
        let source = match client {
            Leg::Http2(_) => Reader::http2(false, limits),
            _ => Reader::http1(body, limits),
        };
        Some(Tape::new(source, bound, limits))
    }

    /// Whether the request may be carried out twice (RFC 9110 9.2.2; `Idempotency-Key` says so for the others).
    fn is_repeatable(&self) -> bool {
        let head = self.request.head;
        head.method.is_idempotent() || head.value(self.request.bytes, "idempotency-key").is_some()
    }

    /// When all attempts together are over: the route's time runs from the request's end, the client's from its arrival.
    fn due(&self, standing: &Standing, tape: Option<&Tape>) -> Nanos {
        let from = tape.map_or(0, Tape::ended_at).max(standing.begun);
        let due = self.route.timeout.map_or(Nanos::MAX, |timeout| clock::after(from, timeout));
        due.min(self.request.deadline.map_or(Nanos::MAX, |deadline| deadline.at))
    }

    pub(super) fn attempt<'x>(
        &'x self,
        standing: &Standing,
        tape: &'x OnceCell<Tape>,
        outcome: &Outcome,
        now: Nanos,
        number: u32,
    ) -> Attempt<'x> {
        let one = self.policy.and_then(|policy| policy.retry.per_try_timeout);
        let hedges = self.policy.is_some_and(|policy| policy.hedge.is_some());
        let patience = [one, self.route.timeout].into_iter().flatten().min();
        Attempt {
            course: self,
            wanted: standing.wanted,
            // Two tries at once share nothing that is let go when one of them is answered.
            tape: (tape.get().is_some() || !hedges).then_some(tape),
            due: self.due(standing, tape.get()).min(one.map_or(Nanos::MAX, |one| clock::after(now, one))),
            patience,
            number: if self.policy.is_some() { number } else { 0 },
            picked: Cell::new(usize::MAX),
            slow: outcome.slow_body,
        }
    }

    /// Whether there is to be another attempt, and after how many nanoseconds; `None`: at once, and outside the budget.
    ///
    /// # Errors
    /// There is none; why, where the policy names what happened.
    fn judge(
        &self,
        asked: &Asked,
        tape: Option<&Tape>,
        standing: &mut Standing,
        client: &Leg<'_>,
        outcome: &Outcome,
    ) -> Result<Option<u64>, Option<Denied>> {
        let Some(policy) = self.policy else {
            return self.judge_plainly(asked, standing, outcome);
        };
        if client.ended() || client.failed() {
            return Err(None);
        }
        let kept = match tape {
            Some(tape) => tape.is_kept(),
            None => matches!(self.request.head.body, BodyLength::None | BodyLength::Length(0)) || self.is_unread(asked),
        };
        if asked.as_ref().is_err_and(|failure| standing.left_out < failure.free) {
            standing.left_out += 1;
            return Ok(None);
        }
        if let Err(failure) = asked
            && failure.stale
            && standing.repeatable
            && kept
            && !standing.repeated
            && self.route.retry.on_stale_connection
        {
            // A connection that died while it idled is no sign of trouble.
            standing.repeated = true;
            standing.wanted = Wanted::New;
            return Ok(None);
        }
        let now = clock::now();
        let due = self.due(standing, tape);
        let field = |name: &str| header(asked, name).map(Cow::Borrowed);
        let Some(happened) = happened(asked, &field, now, due) else {
            return Err(None);
        };
        let retry = &policy.retry;
        let verdict = {
            let mut routing = self.shard.routing.borrow_mut();
            retry.judge(outcome.attempts - standing.left_out, &happened, standing.repeatable, kept, &mut routing.0)
        };
        match verdict {
            Verdict::Pass => return Err(None),
            Verdict::Denied(denied) => return Err(Some(denied)),
            Verdict::Again => {}
        }
        let asks = header(asked, "retry-after").and_then(retry_after::parse);
        let wait = retry.wait_ns(outcome.attempts, self.shard.random(), asks).map_err(Some)?;
        if now.saturating_add(wait) >= due {
            return Err(Some(Denied::Deadline));
        }
        standing.wanted = if standing.repeatable { Wanted::Any } else { Wanted::Fresh };
        Ok(Some(wait))
    }

    /// The same where the route has no policy: once more at once where nobody was reached, and where a connection that had
    /// idled died at the moment of reuse.
    fn judge_plainly(
        &self,
        asked: &Asked,
        standing: &mut Standing,
        outcome: &Outcome,
    ) -> Result<Option<u64>, Option<Denied>> {
        let Err(failure) = asked else { return Err(None) };
        let retry = &self.route.retry;
        // Neither counted nor in the budget: an upstream whose connections end in order is in no trouble.
        if standing.left_out < failure.free && retry.on_connect_failure {
            standing.left_out += 1;
            return Ok(None);
        }
        let stale = failure.stale && failure.replayable && standing.repeatable;
        if stale && !standing.repeated && retry.on_stale_connection {
            standing.repeated = true;
            standing.wanted = Wanted::New;
            return Ok(None);
        }
        let may_connect = retry.on_connect_failure && outcome.attempts - standing.left_out <= retry.attempts;
        if failure.fault.retryable && may_connect { Ok(Some(0)) } else { Err(None) }
    }

    /// Nothing of a body that is not kept has been taken from the client.
    fn is_unread(&self, asked: &Asked) -> bool {
        asked.as_ref().is_err_and(|failure| failure.replayable && failure.fault.step == Step::Lease)
    }

    /// Whether an attempt came to what the client may have: an answer that the policy does not name.
    pub(super) fn is_good(&self, asked: &Asked) -> bool {
        let field = |name: &str| header(asked, name).map(Cow::Borrowed);
        let Ok(answer) = asked else { return false };
        let happened = Happened::Answer { status: answer.head().status, header: &field };
        let named = |policy: &Resilience| policy.retry.names(&happened, &mut self.shard.routing.borrow_mut().0);
        !self.policy.is_some_and(named)
    }

    /// What the route's policy did, on this core.
    pub(super) fn meters(&self) -> &ResilienceMeters {
        self.route.meters.core(self.shard.outfit.core).resilience.get()
    }

    fn denied(&self, denied: Option<Denied>, outcome: &mut Outcome) {
        let Some(denied) = denied else { return };
        outcome.retry_denied = Some(denied);
        self.meters().denied[denied as usize].add(1);
    }

    /// Nobody gets this answer.
    fn give_up(&self, asked: Asked, now: Nanos) {
        if let Ok(answer) = asked {
            answer.discard(self.shard, now);
        }
    }
}

/// What happened, where another attempt could mend it.
fn happened<'a>(
    asked: &'a Asked,
    field: &'a dyn Fn(&str) -> Option<Cow<'a, [u8]>>,
    now: Nanos,
    due: Nanos,
) -> Option<Happened<'a>> {
    let failure = match asked {
        Ok(answer) => return Some(Happened::Answer { status: answer.head().status, header: field }),
        Err(failure) => failure,
    };
    match failure.fault {
        fault if fault.retryable => Some(Happened::Untouched),
        Fault { side: Side::Upstream, reason, .. } => match reason {
            // When all time is over there is none for another attempt.
            Reason::UpstreamTimeout => (now < due).then_some(Happened::Timeout),
            Reason::UpstreamReset | Reason::UpstreamClosed => Some(Happened::Reset),
            Reason::UpstreamBadResponse => Some(Happened::Nonsense),
            _ => None,
        },
        _ => None,
    }
}

/// A field of the answer.
fn header<'x>(asked: &'x Asked, name: &str) -> Option<&'x [u8]> {
    let answer = asked.as_ref().ok()?;
    let bytes = answer.bytes();
    let mut fields = answer.head().fields.iter();
    let field = fields.find(|field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes()))?;
    Some(field.value.of(bytes))
}

/// Whether the client has gone for good; else the task is woken when it does, as far as that can be seen.
pub(super) fn poll_left(cx: &mut Context<'_>, client: &mut Leg<'_>) -> Poll<()> {
    match client {
        Leg::Http1(stream) => {
            // Its next bytes are the next request, or more of this one's body.
            if !stream.failed() && !stream.ended() && stream.buffered().is_empty() {
                let _ = stream.poll_fill(cx, Size::Small);
            }
            if stream.failed() { Poll::Ready(()) } else { Poll::Pending }
        }
        Leg::Http2(channel) => channel.poll_left(cx),
        Leg::Nobody => Poll::Pending,
    }
}

/// A client whose end of the connection is closed may only have half-closed it: so long it is worked for all the same.
pub(super) const HALF_CLOSED_GRACE_NS: u64 = 1_000_000_000;

/// Waits; true as soon as the client has left.
pub(super) async fn pause(client: &mut Leg<'_>, until: Nanos) -> bool {
    let alarm = Alarm::new();
    alarm.arm(until);
    let mut ended = false;
    poll_fn(|cx| {
        if poll_left(cx, client).is_ready() {
            return Poll::Ready(true);
        }
        if !ended && client.ended() {
            ended = true;
            alarm.arm(until.min(clock::now().saturating_add(HALF_CLOSED_GRACE_NS)));
        }
        alarm.poll(cx).map(|()| ended && clock::now() < until)
    })
    .await
}
