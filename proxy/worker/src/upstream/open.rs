//! Making one connection to an endpoint.

use std::io;

use onehop_meter::names::Reason;
use onehop_net::Stream;
use onehop_net::clock;
use onehop_plan::outlier::Event;

use super::{ClusterState, EndpointState, net_address};
use crate::fault::{Fault, Side, Step};
use crate::secure;

/// Connects, with TLS where the cluster has it, and counts how it went. `alone`: for one exchange at a time, or for bytes.
pub(super) async fn open(
    cluster: &ClusterState,
    endpoint: &EndpointState,
    alone: bool,
    timeout_ns: u64,
) -> Result<Stream, Fault> {
    let address = net_address(&endpoint.endpoint.borrow().address);
    let begun = clock::now();
    let due = begun.saturating_add(timeout_ns);
    let connected = Stream::connect_from(&address, endpoint.source, due).await;
    let config = cluster.cluster.borrow().clone();
    let meters = config.meters.core(cluster.core);
    let peer = endpoint.endpoint.borrow().clone();
    let connected = match (connected, &config.tls) {
        (Ok(mut stream), Some(tls)) => {
            let secured = secure::connect(&mut stream, tls, &peer.address, &config.name, &meters.tls, alone, due);
            if let Err(reason) = Box::pin(secured).await {
                meters.connect_failures.add(1);
                peer.meters.core(cluster.core).connect_failures.add(1);
                let now = clock::now();
                super::outlier::failed(cluster, endpoint, now.saturating_sub(begun), now);
                super::outlier::report(cluster, endpoint, Event::ConnectFailure, 0, now);
                return Err(Fault::retryable(Side::Upstream, Step::Lease, reason));
            }
            Ok(stream)
        }
        (connected, _) => connected,
    };
    match connected {
        Ok(stream) => {
            meters.connects.add(1);
            peer.meters.core(cluster.core).connects.add(1);
            super::outlier::connected(cluster, endpoint);
            Ok(stream)
        }
        Err(error) => {
            meters.connect_failures.add(1);
            peer.meters.core(cluster.core).connect_failures.add(1);
            let now = clock::now();
            super::outlier::failed(cluster, endpoint, now.saturating_sub(begun), now);
            super::outlier::report(cluster, endpoint, Event::ConnectFailure, 0, now);
            let reason = match error.kind() {
                io::ErrorKind::ConnectionRefused => Reason::ConnectRefused,
                io::ErrorKind::TimedOut => Reason::ConnectTimeout,
                _ => Reason::ConnectFailed,
            };
            Err(Fault::retryable(Side::Upstream, Step::Lease, reason))
        }
    }
}
