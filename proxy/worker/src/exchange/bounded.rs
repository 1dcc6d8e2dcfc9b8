//! An exchange whose client brought a deadline of its own (`grpc-timeout`).

use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use onehop_meter::ledger::{Ledger, State};
use onehop_meter::names::Reason;
use onehop_net::clock;
use onehop_net::deadline::Alarm;

use super::deadline::Deadline;
use super::{Leg, Outcome, Request, run};
use crate::fault::{Fault, Side, Step};
use crate::shard::Shard;

/// An attempt that waits for its answer ends by itself when the deadline passes, and is booked with its endpoint. All the
/// rest is ended from outside, this much later.
const SLACK_NS: u64 = 5_000_000;

/// Runs an exchange, and ends it when its deadline has passed.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps what it takes twice")]
pub fn run_bounded(
    shard: &Rc<Shard>,
    request: &Request<'_>,
    client: &mut Leg<'_>,
    ledger: &mut Ledger,
    outcome: &mut Outcome,
) -> impl Future<Output = ()> {
    async move {
        let over = {
            let mut exchange = pin!(run(shard, request, client, ledger, outcome));
            let due = request.deadline.filter(Deadline::is_call).map(|deadline| deadline.at);
            let alarm = due.map(|due| Alarm::at(due.saturating_add(SLACK_NS)));
            poll_fn(|cx| match (exchange.as_mut().poll(cx), &alarm) {
                (Poll::Pending, Some(alarm)) => alarm.poll(cx).map(|()| true),
                (polled, _) => polled.map(|()| false),
            })
            .await
        };
        if over {
            if let Leg::Http2(channel) = client {
                outcome.started = channel.has_answered();
            }
            outcome.tunnel = None;
            outcome.fault = Some(Fault::new(Side::Upstream, Step::Wait, Reason::UpstreamTimeout));
            ledger.enter(State::Hop, clock::now());
        }
    }
}
