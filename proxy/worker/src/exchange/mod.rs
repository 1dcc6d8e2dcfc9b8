//! One request and its response. Route, lease, send, wait, pass on: with every failure a [`Fault`], and retries
//! only where no byte of the request can have been acted on or where the request may be repeated.

mod admission;
pub mod answer;
pub mod attempt;
pub mod body;
mod bounded;
pub mod changes;
pub mod choice;
mod course;
pub mod deadline;
pub mod flow;
mod hangup;
mod hedge;
mod inject;
mod interim;
mod leave;
pub mod leg;
mod local;
pub mod manner;
mod mirror;
mod pace;
pub mod pour;
pub mod reader;
mod response;
mod retry_after;
pub mod routing;
pub mod tape;
mod tunnel;
mod upload;
mod wait;

pub use bounded::run_bounded;
pub use leg::Leg;
pub use response::Response;
pub use tunnel::Tunnel;

use std::borrow::Cow;
use std::num::NonZeroU64;
use std::rc::Rc;
use std::sync::Arc;

use onehop_meter::ledger::Ledger;
use onehop_meter::names::{Denied, Reason};
use onehop_net::clock;
use onehop_plan::{Listener, Route};
use onehop_wire::http1::{BodyLength, Method, RequestHead, Version};

use crate::fault::{Fault, Side, Step};
use crate::http1::forward::{Identity, Origin};
use crate::shard::Shard;
use crate::upstream::ClusterState;
use deadline::Deadline;
use routing::{Routed, route};

/// Connections by whose GOAWAY a request may be left out, beside its retries; an upstream with no other answer is broken.
const MAX_LEFT_OUT: u32 = 8;
/// Refusals of its stream after which a request is sent again beside its retries. A peer whose limit of streams was not known
/// yet refuses once; one that goes on has too much to do, and the budget of retries is to spare it.
const MAX_REFUSED: u32 = 2;

/// The request as its exchange sees it: alive and unchanged until the last attempt has ended.
pub struct Request<'a> {
    /// The parsed head.
    pub head: &'a RequestHead,
    /// The bytes that its spans point into.
    pub bytes: &'a [u8],
    /// Where it came from.
    pub origin: &'a Origin,
    /// What identifies it.
    pub identity: &'a Identity,
    /// The listener that took it.
    pub listener: &'a Arc<Listener>,
    /// The client's own deadline, which the upstream is told of.
    pub deadline: Option<Deadline>,
}

impl Request<'_> {
    /// The request's id as the upstream gets it.
    pub fn id(&self) -> Cow<'_, [u8]> {
        use onehop_wire::http1::Known;
        let kept = self.listener.http.request_id == onehop_plan::RequestId::Keep;
        let brought = self.head.find(Known::XRequestId).filter(|_| kept);
        Cow::Borrowed(brought.map_or_else(|| self.identity.request_id(), |field| field.value.of(self.bytes)))
    }
}

/// How an exchange ended, for the connection, the meters and the access record.
#[derive(Default)]
pub struct Outcome {
    /// The client's status; zero when none was sent.
    pub status: u16,
    /// What went wrong, if anything did.
    pub fault: Option<Fault>,
    /// Whether a part of the response was already sent when it went wrong.
    pub started: bool,
    /// Whether the downstream connection can take another request.
    pub keep: bool,
    /// The status of a gRPC call, from the response's head or its trailers, or ours.
    pub grpc_status: Option<u16>,
    /// Payload bytes from and to the client.
    pub bytes_in: u64,
    /// Payload bytes to the client.
    pub bytes_out: u64,
    /// Attempts made.
    pub attempts: u32,
    /// Why there was no further one, where the route's policy names the failure.
    pub retry_denied: Option<Denied>,
    /// What was done to it on purpose.
    pub injected: Option<&'static str>,
    /// Its response's body is to flow at so many bytes a second.
    pub slow_body: Option<NonZeroU64>,
    /// The chosen route.
    pub route: Option<Arc<Route>>,
    /// The cluster of the last attempt.
    pub cluster: Option<Arc<str>>,
    /// The endpoint of the last attempt.
    pub endpoint: Option<Box<str>>,
    /// The response opened a tunnel.
    pub tunnels: bool,
    /// A tunnel, to be relayed by the caller.
    pub tunnel: Option<Box<Tunnel>>,
}

impl Outcome {
    /// A request that never became one.
    pub fn rejected(fault: Fault) -> Outcome {
        Outcome { fault: Some(fault), ..Outcome::default() }
    }
}

/// Runs one exchange. The client's leg stands behind the request head; the outcome says how far it had come when it was
/// given up half-way.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps what it takes twice")]
pub fn run(
    shard: &Rc<Shard>,
    request: &Request<'_>,
    client: &mut Leg<'_>,
    ledger: &mut Ledger,
    outcome: &mut Outcome,
) -> impl Future<Output = ()> {
    async move {
        // Taken apart at once: what has a name is kept to the end.
        let Routed { route, mut changes, local } = match route(shard, request) {
            Ok(routed) => routed,
            Err((fault, route)) => {
                (outcome.fault, outcome.route) = (Some(fault), route);
                return;
            }
        };
        outcome.route = Some(route.clone());
        // Without a name: what has one is kept.
        let held = match match &local {
            Some(local) if local.is_free() => Ok(admission::Held::default()),
            _ => admission::admit(shard, request, &route, changes.as_deref_mut(), ledger.latest()),
        } {
            Ok(held) => held,
            Err(fault) => {
                outcome.fault = Some(fault);
                shard.give_changes(changes.take());
                return;
            }
        };
        if let Some(local) = local {
            ledger.mark(onehop_meter::ledger::Step::Routed, clock::now());
            let sending = local::Sending { shard, request, route: &route, changes: changes.as_deref() };
            Box::pin(sending.run(*local, client, ledger, outcome)).await;
            shard.give_changes(changes.take());
            return;
        }
        if let Some(injections) = route.resilience.as_deref().map(|policy| &policy.injections)
            && !injections.is_empty()
        {
            let disturbed = inject::disturb(shard, request, &route, injections, client, ledger, outcome);
            if let Err(fault) = Box::pin(disturbed).await {
                outcome.fault = Some(fault);
                shard.give_changes(changes.take());
                return;
            }
        }
        let Some((reference, cluster)) = choose_for(shard, request, &route) else {
            outcome.fault = Some(Fault::new(Side::Proxy, Step::Route, Reason::NoEndpoint));
            return;
        };
        if shard.logs_access() {
            outcome.cluster = Some(reference.name.clone());
        }
        // Finding a route takes about as long as reading the clock does.
        ledger.mark(onehop_meter::ledger::Step::Routed, ledger.latest());
        if let Err(fault) = admit(request, &route, &cluster) {
            outcome.fault = Some(fault);
            return;
        }
        let active = Active::enter(cluster);
        let choice = choice::Choice::new(request, reference, &active.cluster);
        let course = course::Course {
            shard,
            request,
            route: &route,
            policy: route.resilience.as_deref(),
            cluster: &active.cluster,
            choice: &choice,
            changes: changes.as_deref(),
        };
        course.run(client, ledger, outcome).await;
        tunnel::hold(outcome, (held, active));
        shard.give_changes(changes.take());
    }
}

/// A cluster of the split that this core still knows.
pub fn choose<'a>(
    shard: &Shard,
    split: &'a onehop_plan::Split,
) -> Option<(&'a onehop_plan::ClusterRef, Rc<ClusterState>)> {
    let reference = split.pick(shard.random())?;
    Some((reference, shard.cluster(reference.id, &reference.name)?))
}

/// Counts a request, and down again when its exchange ends, however it ends.
struct Active {
    cluster: Rc<ClusterState>,
}

impl Active {
    fn enter(cluster: Rc<ClusterState>) -> Active {
        {
            let config = cluster.cluster.borrow();
            let meters = config.meters.core(cluster.core());
            meters.requests.add(1);
            meters.active.add(1);
        }
        cluster.active.set(cluster.active.get() + 1);
        Active { cluster }
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.cluster.active.set(self.cluster.active.get().saturating_sub(1));
        self.cluster.cluster.borrow().meters.core(self.cluster.core()).active.sub(1);
    }
}

/// A cluster for this request: by chance, or always the same for the same value.
fn choose_for<'a>(
    shard: &Shard,
    request: &Request<'_>,
    route: &'a Route,
) -> Option<(&'a onehop_plan::ClusterRef, Rc<ClusterState>)> {
    let hash = route.split_by.as_ref().and_then(|on| routing::hash(request, on));
    let reference = route.split.pick(hash.unwrap_or_else(|| shard.random()))?;
    Some((reference, shard.cluster(reference.id, &reference.name)?))
}

/// Whether the route and the cluster take this request at all.
fn admit(request: &Request<'_>, route: &Route, cluster: &ClusterState) -> Result<(), Fault> {
    let head = request.head;
    let fault = |step, reason| Fault::new(Side::Proxy, step, reason);
    if head.method == Method::Connect && !route.allow_connect {
        return Err(fault(Step::Route, Reason::ConnectMethodRefused));
    }
    if let Some(upgrade) = head.upgrade
        && !upgrade_allowed(route, upgrade.of(request.bytes))
        // An HTTP/1 client is answered without it (RFC 9110 7.8); over HTTP/2 there is no request but the tunnel's.
        && (head.version == Version::Http2 || !upgrade.of(request.bytes).eq_ignore_ascii_case(b"h2c"))
    {
        return Err(fault(Step::Route, Reason::UpgradeRefused));
    }
    if let (BodyLength::Length(length), Some(max)) = (head.body, route.max_body)
        && length > max
    {
        return Err(Fault::new(Side::Downstream, Step::Route, Reason::BodyTooLarge));
    }
    if cluster.requests_full() {
        return Err(fault(Step::Lease, Reason::Overflow));
    }
    Ok(())
}

/// Whether the client takes this status for the beginning of the tunnel that it asked for: any success to CONNECT
/// (RFC 9110 9.3.6), and over HTTP/2 to an extended one (RFC 8441 5), where HTTP/1 has 101 for it.
fn begins_tunnel(head: &RequestHead, status: u16) -> bool {
    let asks = head.method == Method::Connect || (head.version == Version::Http2 && head.upgrade.is_some());
    asks && (200..300).contains(&status)
}

/// Whether the route lets this protocol through; `h2c` never (RFC 9113 3.1 dropped it, and it walks around routing).
pub fn upgrade_allowed(route: &Route, protocol: &[u8]) -> bool {
    !protocol.eq_ignore_ascii_case(b"h2c")
        && route.upgrades.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(protocol))
}
