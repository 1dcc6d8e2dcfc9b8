//! A second try beside the first, elsewhere, where the first has not been answered within a time: whichever is answered
//! first wins, and the other is cancelled by dropping it. Both send the body from memory, and neither touches the client.

use std::cell::OnceCell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use onehop_meter::ledger::{Ledger, State, Step as Mark};
use onehop_meter::names::Reason;
use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::{Alarm, Ends};
use onehop_plan::resilience::Hedge;
use onehop_wire::http1::Method;

use super::Outcome;
use super::attempt::{Attempt, Failure};
use super::course::{Asked, Course, HALF_CLOSED_GRACE_NS, Standing, poll_left};
use super::leg::Leg;
use super::tape::Tape;
use crate::fault::{Fault, Side, Step};
use crate::upstream::outlier;

type Try<'a> = Pin<&'a mut dyn Future<Output = Asked>>;

/// Watches the client while others work for it.
struct Watch {
    alarm: Alarm,
    armed: bool,
}

impl Watch {
    fn poll(&mut self, cx: &mut Context<'_>, client: &mut Leg<'_>) -> Poll<()> {
        if poll_left(cx, client).is_ready() {
            return Poll::Ready(());
        }
        if !client.ended() {
            return Poll::Pending;
        }
        if !std::mem::replace(&mut self.armed, true) {
            self.alarm.arm(clock::now() + HALF_CLOSED_GRACE_NS);
        }
        self.alarm.poll(cx)
    }
}

fn left() -> Asked {
    Err(Failure::new(Fault::new(Side::Downstream, Step::Wait, Reason::ClientLeft)))
}

/// The first try alone; `None` when it has not been answered by then.
async fn alone(mut one: Try<'_>, watch: &mut Watch, client: &mut Leg<'_>, until: Nanos) -> Option<Asked> {
    let alarm = Alarm::new();
    alarm.arm(until);
    poll_fn(|cx| {
        if let Poll::Ready(asked) = one.as_mut().poll(cx) {
            return Poll::Ready(Some(asked));
        }
        if watch.poll(cx, client).is_ready() {
            return Poll::Ready(Some(left()));
        }
        alarm.poll(cx).map(|()| None)
    })
    .await
}

impl Course<'_> {
    /// The policy's hedge, where this request may be sent twice at the same time: it is replayable, safe, and no tunnel.
    pub(super) fn hedge(&self, repeatable: bool, whole: bool) -> Option<&Hedge> {
        let hedge = self.policy?.hedge.as_ref()?;
        let head = self.request.head;
        let fits = repeatable && whole && head.upgrade.is_none() && head.method != Method::Connect;
        (fits && self.cluster.cluster.borrow().original.is_none()).then_some(hedge)
    }

    /// Reads a request's whole body in, so that two tries can send it; false: it is longer than what is kept.
    pub(super) async fn collect(&self, client: &mut Leg<'_>, tape: &Tape) -> Result<bool, Fault> {
        let idle = self.request.listener.http.body_idle_timeout;
        client.arm(clock::after(clock::now(), idle), Ends::Read);
        let collected = poll_fn(|cx| {
            let polled = tape.poll_collect(cx, client);
            if polled.is_pending() && !client.timed_out() {
                client.arm(clock::after(clock::now(), idle), Ends::Read);
            }
            polled
        })
        .await;
        let timed_out = client.timed_out();
        client.disarm();
        collected.map_err(|broken| super::response::upload_fault(broken, timed_out))
    }

    /// Tries once, and once more beside it if that takes long. The endpoints that failed are noted in `standing`.
    pub(super) async fn hedged(
        &self,
        hedge: &Hedge,
        first: &Attempt<'_>,
        (standing, cell): (&mut Standing, &OnceCell<Tape>),
        client: &mut Leg<'_>,
        ledger: &mut Ledger,
        outcome: &mut Outcome,
    ) -> Asked {
        let second = self.attempt(standing, cell, outcome, ledger.latest(), outcome.attempts + 1);
        let begun = clock::now();
        ledger.enter(State::UpstreamWait, begun);
        let (mut outcome_one, mut outcome_two) = (Outcome::default(), Outcome::default());
        let (asked, winner) = {
            let (mut ledger_one, mut ledger_two) = (*ledger, *ledger);
            let (mut avoid_one, mut avoid_two) = (standing.avoid.clone(), standing.avoid.clone());
            let (mut nobody, mut nobody_too) = (Leg::Nobody, Leg::Nobody);
            let mut one = pin!(first.ask(&mut nobody, &mut avoid_one, &mut ledger_one, &mut outcome_one));
            let mut watch = Watch { alarm: Alarm::new(), armed: false };
            let wait = hedge.wait(self.cluster.quantile(hedge.quantile));
            let until = wait.map_or(Nanos::MAX, |wait| begun.saturating_add(wait));
            match alone(one.as_mut(), &mut watch, client, until).await {
                Some(asked) => (asked, 0),
                None => match self.cluster.may_hedge(hedge.percent) {
                    None => (alone(one.as_mut(), &mut watch, client, Nanos::MAX).await.unwrap_or_else(left), 0),
                    Some(_place) => {
                        outcome.attempts += 1;
                        self.meters().hedges.add(1);
                        avoid_two.push(first.picked.get());
                        let two = second.ask(&mut nobody_too, &mut avoid_two, &mut ledger_two, &mut outcome_two);
                        // Whoever has lost is dropped here, which closes its connection or resets its stream.
                        self.race(one.as_mut(), pin!(two), &mut watch, client).await
                    }
                },
            }
        };
        let now = clock::now();
        ledger.enter(State::Hop, now);
        ledger.mark(Mark::FirstByte, now);
        self.learn(hedge, first, &second, winner, (begun, now), &asked);
        if winner == 1 && asked.is_ok() {
            self.meters().hedges_won.add(1);
        }
        for attempt in [first, &second] {
            standing.avoid(attempt.picked.get());
        }
        let won = if winner == 0 { outcome_one } else { outcome_two };
        (outcome.endpoint, outcome.bytes_in) = (won.endpoint, won.bytes_in);
        asked
    }

    /// Both; the first good answer wins, or else the last bad one.
    async fn race<'x>(
        &self,
        mut one: Try<'x>,
        mut two: Try<'x>,
        watch: &mut Watch,
        client: &mut Leg<'_>,
    ) -> (Asked, usize) {
        let mut over: [Option<Asked>; 2] = [None, None];
        poll_fn(|cx| {
            for at in [0, 1] {
                if over[at].is_some() {
                    continue;
                }
                let polled = if at == 0 { one.as_mut().poll(cx) } else { two.as_mut().poll(cx) };
                let Poll::Ready(asked) = polled else { continue };
                if self.is_good(&asked) {
                    return Poll::Ready((asked, at));
                }
                over[at] = Some(asked);
            }
            if over.iter().all(Option::is_some) {
                let [one, two] = std::mem::take(&mut over);
                // An answer says more than a failure.
                let (asked, at) = match (one, two) {
                    (Some(Ok(answer)), _) => (Some(Ok(answer)), 0),
                    (_, two) => (two, 1),
                };
                return Poll::Ready((asked.unwrap_or_else(left), at));
            }
            watch.poll(cx, client).map(|()| (left(), 0))
        })
        .await
    }

    /// What is known of the times now: those that lost took at least as long as they were waited for.
    fn learn(
        &self,
        hedge: &Hedge,
        first: &Attempt<'_>,
        second: &Attempt<'_>,
        winner: usize,
        (begun, now): (Nanos, Nanos),
        asked: &Asked,
    ) {
        if asked.is_ok()
            && let Some(share) = hedge.quantile
        {
            self.cluster.observe(share, now.saturating_sub(begun), now);
        }
        // A winner has booked its own.
        let loser = if winner == 0 { second } else { first };
        if winner == 1 && loser.picked.get() != usize::MAX {
            outlier::waited(self.cluster, loser.picked.get(), now.saturating_sub(begun), now);
        }
    }
}
