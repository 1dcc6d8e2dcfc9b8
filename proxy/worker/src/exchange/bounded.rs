//! An exchange whose client brought a deadline of its own (`grpc-timeout`).

use std::pin::pin;
use std::rc::Rc;

use onehop_meter::ledger::{Ledger, State};
use onehop_meter::names::Reason;
use onehop_net::clock;
use onehop_net::deadline::sleep_until;
use onehop_net::stream::{Either, first};

use super::deadline::Deadline;
use super::{Leg, Outcome, Request, run};
use crate::fault::{Fault, Side, Step};
use crate::shard::Shard;

/// An attempt that waits for its answer ends by itself when the deadline passes, and is booked with its endpoint. All the
/// rest is ended from outside, this much later.
const SLACK_NS: u64 = 5_000_000;

/// Runs an exchange, and ends it when its deadline has passed.
pub async fn run_bounded(
    shard: &Rc<Shard>,
    request: &Request<'_>,
    client: &mut Leg<'_>,
    ledger: &mut Ledger,
    outcome: &mut Outcome,
) {
    let Some(due) = request.deadline.filter(Deadline::is_call).map(|deadline| deadline.at) else {
        return run(shard, request, client, ledger, outcome).await;
    };
    let over = {
        // Pinned here: what is given to `first` by value is kept twice.
        let exchange = pin!(run(shard, request, client, ledger, outcome));
        matches!(first(exchange, sleep_until(due.saturating_add(SLACK_NS))).await, Either::Right(()))
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
