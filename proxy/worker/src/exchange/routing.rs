//! Finding the route of a request, and what it says before any upstream is asked.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use onehop_meter::names::Reason;
use onehop_plan::Route;
use onehop_plan::filter::Action;
use onehop_plan::model::HashOn;
use onehop_plan::route::{Facts, PathBuffers, Scratch, query_value};
use onehop_wire::http1::{Method, RequestHead};

use super::Request;
use super::changes::{Changes, client, cookie, cors, header, identity};
use super::local::{self, Local};
use crate::access;
use crate::fault::{Fault, Side, Step};
use crate::secure;
use crate::shard::Shard;

/// A request's route.
pub struct Routed {
    /// It.
    pub route: Arc<Route>,
    /// What it changes, if anything.
    pub changes: Option<Box<Changes>>,
    /// The answer, where it needs no upstream.
    pub local: Option<Box<Local>>,
}

/// Why a request goes no further, and its route, where it has one: who may read the answer is a matter of the route.
pub type Refused = (Fault, Option<Arc<Route>>);

/// Finds a request's route.
pub fn route(shard: &Shard, request: &Request<'_>) -> Result<Routed, Refused> {
    let (head, bytes) = (request.head, request.bytes);
    let mut routing = shard.routing.borrow_mut();
    let (scratch, buffers) = &mut *routing;
    let path = head.path.of(bytes);
    let Ok(normal) = request.listener.http.path.apply(path, buffers) else {
        return Err((Fault::new(Side::Downstream, Step::Route, Reason::BadPath), None));
    };
    let header = |name: &str| header(request, name);
    let facts = facts(request, normal.matched, &header);
    let found = shard.find_route(request.listener, &facts, scratch);
    if head.method == Method::Options
        && let Some(route) = preflight_route(shard, request, &facts, found.as_ref(), scratch)
    {
        let local = local::preflight(request, &route).map(Box::new);
        if local.is_some() {
            let mut changes = shard.take_changes();
            changes.prepare(request, &route, normal);
            return Ok(Routed { route, changes: Some(changes), local });
        }
    }
    if let Err(fault) = judge(shard, request, normal.matched) {
        return Err((fault, found));
    }
    let Some(route) = found else {
        return Err((Fault::new(Side::Proxy, Step::Route, Reason::NoRoute), None));
    };
    let is_plain = std::ptr::eq(normal.forwarded, path) || path.is_empty();
    if is_plain && route.filters.is_none() && matches!(route.action, Action::Forward) {
        return Ok(Routed { route, changes: None, local: None });
    }
    let local = local::answer(request, &route, normal).map(Box::new);
    let mut changes = shard.take_changes();
    changes.prepare(request, &route, normal);
    Ok(Routed { route, changes: Some(changes), local })
}

/// Whether a request may go on at all: judged by the path as routes see it, and before it is told whether there is a route.
fn judge(shard: &Shard, request: &Request<'_>, path: &[u8]) -> Result<(), Fault> {
    let (head, bytes) = (request.head, request.bytes);
    let fault = |reason| Err(Fault::new(Side::Proxy, Step::Route, reason));
    if is_loop(head, bytes, &shard.outfit.instance) {
        return fault(Reason::Loop);
    }
    let secured = request.origin.secure.as_deref();
    if secured.is_some() && secure::is_misdirected(request.listener, secured, head.authority.of(bytes)) {
        return fault(Reason::Misdirected);
    }
    access::request(shard, request, path)
}

/// The route whose CORS a preflight asks for: its own, or else that of the request that it announces, which may be one for
/// its method alone.
fn preflight_route<'a>(
    shard: &Shard,
    request: &'a Request<'_>,
    facts: &Facts<'a>,
    own: Option<&Arc<Route>>,
    scratch: &mut Scratch,
) -> Option<Arc<Route>> {
    if let Some(own) = own.filter(|route| cors(route).is_some()) {
        return Some(own.clone());
    }
    let method = request.head.value(request.bytes, "access-control-request-method")?;
    let announced = shard.find_route(request.listener, &Facts { method, ..*facts }, scratch);
    announced.filter(|route| cors(route).is_some())
}

/// The route that a request would have taken which goes no further.
pub fn find(shard: &Shard, request: &Request<'_>) -> Option<Arc<Route>> {
    let mut routing = shard.routing.borrow_mut();
    let (scratch, buffers) = &mut *routing;
    let normal = request.listener.http.path.apply(request.head.path.of(request.bytes), buffers).ok()?;
    let header = |name: &str| header(request, name);
    shard.find_route(request.listener, &facts(request, normal.matched, &header), scratch)
}

/// What routes are matched against; `path` in normal form.
fn facts<'a>(request: &'a Request<'_>, path: &'a [u8], header: &'a dyn Fn(&str) -> Option<Cow<'a, [u8]>>) -> Facts<'a> {
    let (head, bytes) = (request.head, request.bytes);
    Facts {
        host: head.authority.of(bytes),
        path,
        query: head.query.of(bytes),
        method: head.method_span.of(bytes),
        header,
        source: client(request),
        sni: request.origin.secure.as_deref().and_then(|secured| secured.info.server_name.as_deref()),
    }
}

/// The hash of what a choice is made by; none where the request does not have it.
pub fn hash(request: &Request<'_>, on: &HashOn) -> Option<u64> {
    match on {
        HashOn::Source => Some(hash_ip(client(request))),
        on => value(request, on).map(|value| onehop_plan::balance::hash_of(&value)),
    }
}

/// The value that a choice is made by; none where the request does not have it. An address is no text: see the callers.
pub fn value<'a>(request: &'a Request<'_>, on: &HashOn) -> Option<Cow<'a, [u8]>> {
    match on {
        HashOn::Header(name) => header(request, name),
        HashOn::Cookie(name) => cookie(request, name).map(Cow::Borrowed),
        HashOn::Query(name) => query_value(request.head.query.of(request.bytes), name.as_bytes()),
        HashOn::Source => None,
        HashOn::Path => Some(path(request)),
        HashOn::Identity => identity(request).map(Cow::Borrowed),
    }
}

/// The path as routes see it, so that another spelling of it makes no other choice, and has no rate of its own.
fn path<'a>(request: &'a Request<'_>) -> Cow<'a, [u8]> {
    let path = request.head.path.of(request.bytes);
    // Only a path that is not in normal form is written down anew.
    let mut buffers = PathBuffers::default();
    match request.listener.http.path.apply(path, &mut buffers) {
        Ok(normal) if !std::ptr::eq(normal.matched, path) => Cow::Owned(normal.matched.to_vec()),
        _ => Cow::Borrowed(path),
    }
}

/// The hash of an address.
pub fn hash_ip(ip: IpAddr) -> u64 {
    use onehop_plan::balance::hash_of;
    match ip {
        IpAddr::V4(ip) => hash_of(&ip.octets()),
        IpAddr::V6(ip) => hash_of(&ip.octets()),
    }
}

/// A request that names this process in `Via` has been here before.
fn is_loop(head: &RequestHead, bytes: &[u8], instance: &str) -> bool {
    use onehop_wire::http1::Known;
    let mut vias = head.fields.iter().filter(|field| field.known == Known::Via);
    head.fields.has(Known::Via) && vias.any(|field| memmem(field.value.of(bytes), instance.as_bytes()))
}

fn memmem(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}
