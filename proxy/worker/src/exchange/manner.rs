//! How an answer of ours has to look to whoever asked: to a call a status that its clients understand, to a script in a
//! browser with the fields that let it be read, without which it sees a network error instead of any status.

use onehop_plan::Route;

use super::changes::cors_fields;
use super::{Request, routing};
use crate::http2::grpc;
use crate::shard::Shard;

/// See the module.
#[derive(Default)]
pub struct Manner {
    /// The content type that a call is answered with.
    pub call: Option<&'static str>,
    /// What lets scripts of the request's origin read the answer: names in lower case, and values.
    pub cors: Vec<(&'static str, Vec<u8>)>,
}

impl Manner {
    /// To a request, whose route is known or not: what scripts of other origins may read is the route's to say.
    pub fn of(request: &Request<'_>, route: Option<&Route>) -> Manner {
        let call = grpc::call_of(request.head, request.bytes);
        Manner { call, cors: route.map(|route| cors_fields(request, route, call.is_some())).unwrap_or_default() }
    }

    /// To a request whose head was refused, and of which this is the gist.
    pub fn of_gist(shard: &Shard, gist: &Request<'_>) -> Manner {
        Manner::of(gist, routing::find(shard, gist).as_deref())
    }
}
