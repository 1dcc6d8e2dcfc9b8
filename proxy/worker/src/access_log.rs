//! The books of one exchange: counters, histograms, and the access record for the log's thread.

use std::time::SystemTime;

use onehop_meter::ledger::Ledger;
use onehop_meter::names::{Denied, Reason};
use onehop_meter::record::{AccessRecord, MAX_PATH};
use onehop_plan::Listener;
use onehop_wire::http1::Reject;

use crate::exchange::{Outcome, Request};
use crate::http1::forward::Origin;
use crate::shard::Shard;

/// Closes the books.
pub fn conclude(
    shard: &Shard,
    listener: &Listener,
    origin: &Origin,
    request: Option<&Request<'_>>,
    outcome: &Outcome,
    ledger: &Ledger,
) {
    let core = shard.outfit.core;
    let account = ledger.finish(ledger.latest());
    let meters = listener.meters.core(core);
    meters.bytes_in.add(outcome.bytes_in);
    meters.bytes_out.add(outcome.bytes_out);
    meters.hop.record(account.hop_ns);
    meters.upstream_wait.record(account.upstream_wait_ns);
    if account.client_wait_ns > 0 {
        meters.client_wait.record(account.client_wait_ns);
    }
    if let Some(fault) = &outcome.fault {
        meters.faults[fault.reason as usize].add(1);
        if let (Reason::Rejected, Some(reject)) = (fault.reason, fault.reject) {
            meters.rejected[number(reject)].add(1);
        }
    }
    if let Some(route) = &outcome.route {
        let meters = route.meters.core(core);
        meters.requests.add(1);
        meters.responses[class(outcome.status)].add(1);
        if let Some(status) = outcome.grpc_status {
            meters.grpc.add(status);
        }
        meters.hop.record(account.hop_ns);
        meters.total.record(account.total_ns);
    }
    if !shard.logs_access() {
        return;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let head = request.map(|request| (request.head, request.bytes));
    let record = AccessRecord {
        time: SystemTime::now(),
        listener: listener.name.clone(),
        route: outcome.route.as_ref().map(|route| route.name.clone()),
        cluster: outcome.cluster.clone(),
        endpoint: outcome.endpoint.as_deref().map(str::to_owned),
        peer: Some(origin.peer.ip()),
        method: head.map(|(head, bytes)| text(head.method_span.of(bytes))).unwrap_or_default(),
        host: head.map(|(head, bytes)| text(head.authority.of(bytes))).unwrap_or_default(),
        path: head
            .map(|(head, bytes)| {
                let target = head.target.of(bytes);
                text(&target[..target.len().min(MAX_PATH)])
            })
            .unwrap_or_default(),
        status: outcome.status,
        reason: outcome.fault.map(|fault| fault.name()),
        bytes_in: outcome.bytes_in,
        bytes_out: outcome.bytes_out,
        account,
        attempts: outcome.attempts,
        retry_denied: outcome.retry_denied.map(Denied::as_str),
        injected: outcome.injected,
        request_id: request.map(|request| text(&request.id())).unwrap_or_default(),
    };
    push(shard, record);
}

/// Leaves a record for the log's thread; a full queue is counted, never waited for.
pub fn push(shard: &Shard, record: AccessRecord) {
    if shard.outfit.access.push(record).is_err() {
        shard.meters().access_dropped.add(1);
    }
}

fn class(status: u16) -> usize {
    match status / 100 {
        hundreds @ 1..=5 => usize::from(hundreds) - 1,
        _ => 5,
    }
}

fn number(reject: Reject) -> usize {
    Reject::ALL.iter().position(|other| *other == reject).unwrap_or(0)
}
