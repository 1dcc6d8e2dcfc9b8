//! Copies of requests to another cluster. The caller neither waits for them nor fails with them: each is a task of its
//! own, which waits until the caller's body is here, and whose answer is read and thrown away. They are bounded in
//! number and in bytes; what is beyond the bounds is dropped and counted.

use std::cell::{Cell, OnceCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use onehop_meter::ledger::Ledger;
use onehop_net::{clock, runtime};
use onehop_plan::resilience::{self, Mirror};
use onehop_plan::{Listener, Route};
use onehop_wire::http1::{BodyLength, Method, RequestHead};

use super::attempt::Attempt;
use super::changes::Changes;
use super::choice::Choice;
use super::course::Course;
use super::leg::Leg;
use super::tape::Tape;
use super::{Active, Outcome, Request};
use crate::http1::forward::{Identity, Origin};
use crate::shard::Shard;
use crate::upstream::{ClusterState, Wanted, outlier};

/// How long a copy may take where its route has no time-out.
const PATIENCE: Duration = Duration::from_secs(15);

/// What a copy takes along.
struct Copy {
    shard: Rc<Shard>,
    head: RequestHead,
    bytes: Vec<u8>,
    origin: Origin,
    identity: Identity,
    listener: Arc<Listener>,
    route: Arc<Route>,
    changes: Option<Box<Changes>>,
    cluster: Rc<ClusterState>,
    tape: Option<Tape>,
}

/// A copy under way.
struct UnderWay(Active);

impl Drop for UnderWay {
    fn drop(&mut self) {
        let copies = &self.0.cluster.mirroring;
        copies.set(copies.get().saturating_sub(1));
    }
}

/// Sends a copy of the request, if chance says so. Its body comes from the tape, once all of it is there.
pub(super) fn send(course: &Course<'_>, mirror: &Mirror, tape: Option<&Tape>) {
    let Course { shard, request, route, .. } = *course;
    let head = request.head;
    let is_tunnel = head.upgrade.is_some() || head.method == Method::Connect;
    if is_tunnel || !resilience::meets(mirror.per_million, shard.random()) {
        return;
    }
    let too_long = matches!(head.body, BodyLength::Length(length) if length > mirror.max_body as u64);
    let cluster = shard.cluster(mirror.cluster.id, &mirror.cluster.name);
    let room = |cluster: &Rc<ClusterState>| cluster.mirroring.get() < mirror.max_in_flight && !cluster.requests_full();
    let Some(cluster) = cluster.filter(|cluster| !too_long && room(cluster)) else {
        route.meters.core(shard.outfit.core).resilience.get().mirrors_dropped.add(1);
        return;
    };
    let mut changes = course.changes.map(|changes| Box::new(changes.clone()));
    if mirror.shadow_host {
        changes.get_or_insert_default().shadow(head.authority.of(request.bytes));
    }
    cluster.mirroring.set(cluster.mirroring.get() + 1);
    let under_way = UnderWay(Active::enter(cluster.clone()));
    let copy = Copy {
        shard: shard.clone(),
        head: head.clone(),
        bytes: request.bytes.to_vec(),
        origin: request.origin.clone(),
        identity: request.identity.clone(),
        listener: request.listener.clone(),
        route: route.clone(),
        changes,
        cluster,
        tape: tape.cloned(),
    };
    let (shard, listener, max_body) = (shard.clone(), request.listener.clone(), mirror.max_body);
    runtime::spawn(async move {
        if let Err(panic) = crate::conn::guard(Box::pin(copy.run(max_body)).as_mut()).await {
            crate::conn::count_panic(&shard, &listener, &*panic, "a mirrored request was lost");
        }
        drop(under_way);
    });
}

impl Copy {
    async fn run(self, max_body: usize) {
        let meters = self.route.meters.core(self.shard.outfit.core).resilience.get();
        if let Some(tape) = &self.tape
            && (!poll_fn(|cx| tape.poll_whole(cx)).await || tape.size() > max_body)
        {
            meters.mirrors_dropped.add(1);
            return;
        }
        meters.mirrored.add(1);
        let request = Request {
            head: &self.head,
            bytes: &self.bytes,
            origin: &self.origin,
            identity: &self.identity,
            listener: &self.listener,
            deadline: None,
        };
        let Some(mirror) = self.route.resilience.as_ref().and_then(|policy| policy.mirror.as_ref()) else { return };
        let choice = Choice::new(&request, &mirror.cluster, &self.cluster);
        let now = clock::now();
        let patience = self.route.timeout.unwrap_or(PATIENCE);
        let tape = self.tape.clone().map_or_else(OnceCell::new, OnceCell::from);
        let course = Course {
            shard: &self.shard,
            request: &request,
            route: &self.route,
            policy: None,
            cluster: &self.cluster,
            choice: &choice,
            changes: self.changes.as_deref(),
        };
        let attempt = Attempt {
            course: &course,
            // Nobody repeats it.
            wanted: Wanted::Fresh,
            tape: Some(&tape),
            due: clock::after(now, patience),
            patience: Some(patience),
            number: 0,
            picked: Cell::new(usize::MAX),
            slow: None,
        };
        let mut ledger = Ledger::new(now);
        let asked = attempt.ask(&mut Leg::Nobody, &mut Vec::new(), &mut ledger, &mut Outcome::default()).await;
        match asked {
            Ok(answer) => {
                let endpoint = answer.lease.endpoint().clone();
                // What became of a call is known once its trailers are here.
                if let Some(event) = answer.drain(&self.shard, attempt.limits(), attempt.due).await {
                    outlier::report(&self.cluster, &endpoint, event, 0, clock::now());
                }
            }
            Err(_) => meters.mirrors_failed.add(1),
        }
    }
}
