//! Asking the listener's rules about a request or a connection, and counting what they say.

use onehop_meter::names::Reason;
use onehop_plan::Listener;
use onehop_plan::authz::{self, Subject};

use crate::exchange::Request;
use crate::fault::{Fault, Side, Step};
use crate::http1::forward::Origin;
use crate::shard::Shard;

fn subject<'a>(origin: &'a Origin, listener: &Listener, request: Option<authz::Request<'a>>) -> Subject<'a> {
    let secure = origin.secure.as_deref();
    Subject {
        id: secure.and_then(|secure| secure.peer.as_ref()?.id.as_ref()),
        source: origin.peer.ip(),
        server_name: secure.and_then(|secure| secure.info.server_name.as_deref()),
        port: Some(origin.destination.map_or(listener.address.port(), |destination| destination.port())),
        request,
    }
}

fn decide(shard: &Shard, listener: &Listener, subject: &Subject<'_>) -> bool {
    let Some(policy) = &listener.access else { return true };
    let verdict = policy.judge(subject);
    if verdict.would_deny {
        listener.meters.core(shard.outfit.core).would_deny.add(1);
    }
    verdict.allowed
}

/// Whether a request may go on, its `path` as the routes saw it.
///
/// # Errors
/// The 403.
pub fn request(shard: &Shard, request: &Request<'_>, path: &[u8]) -> Result<(), Fault> {
    if request.listener.access.is_none() {
        return Ok(());
    }
    let (head, bytes) = (request.head, request.bytes);
    let header = |name: &str| {
        let named = |field: &&onehop_wire::http1::Field| field.name.of(bytes).eq_ignore_ascii_case(name.as_bytes());
        head.fields.iter().find(named).map(|field| field.value.of(bytes))
    };
    let facts = authz::Request { method: head.method_span.of(bytes), path, header: &header };
    if decide(shard, request.listener, &subject(request.origin, request.listener, Some(facts))) {
        Ok(())
    } else {
        Err(Fault::new(Side::Proxy, Step::Route, Reason::AccessDenied))
    }
}

/// Whether a relayed connection may go on.
pub fn connection(shard: &Shard, listener: &Listener, origin: &Origin) -> bool {
    decide(shard, listener, &subject(origin, listener, None))
}
