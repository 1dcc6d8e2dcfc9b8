//! HTTP/2: each stream of a connection is a lane. The lanes of a connection make it together: whoever needs it first
//! connects, and when the peer has ended it or sends GOAWAY, the next request goes over a new one.

mod connection;
mod streams;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use connection::{Connection, Instead};
use onehop_net::clock;
use onehop_net::deadline::Alarm;
use streams::{Ask, Slot};

use super::{Answer, Times};
use crate::failure::{Code, Failure};
use crate::http2::grpc::Kind;
use crate::plan::{Call, Plan};
use crate::request::Prepared;

/// The lanes of one connection.
#[derive(Default)]
pub struct Group {
    connection: RefCell<Option<Rc<Connection>>>,
    connecting: Cell<bool>,
    /// Attempts at connecting that failed, and how the last one did.
    failed: Cell<u64>,
    failure: Cell<Option<Failure>>,
    waiting: RefCell<Vec<Waker>>,
}

impl Drop for Group {
    fn drop(&mut self) {
        self.close();
    }
}

impl Group {
    fn usable(&self) -> Option<Rc<Connection>> {
        self.connection.borrow().as_ref().filter(|connection| connection.is_usable()).cloned()
    }

    fn close(&self) {
        if let Some(connection) = self.connection.take() {
            connection.close();
        }
    }

    /// The connection, made where there is none; only one lane connects at a time.
    async fn connect(&self, plan: &Plan, times: &mut Times) -> Result<Rc<Connection>, Failure> {
        loop {
            if let Some(connection) = self.usable() {
                return Ok(connection);
            }
            if !self.connecting.replace(true) {
                let made = Connection::open(plan, times).await;
                self.connecting.set(false);
                self.waiting.borrow_mut().drain(..).for_each(Waker::wake);
                match made {
                    // One that is left ends by itself, when its last stream has.
                    Ok(connection) => *self.connection.borrow_mut() = Some(connection.clone()),
                    Err(failure) => {
                        self.failed.set(self.failed.get() + 1);
                        self.failure.set(Some(failure));
                        return Err(failure);
                    }
                }
                continue;
            }
            let failed = self.failed.get();
            poll_fn(|cx| {
                if !self.connecting.get() {
                    return Poll::Ready(());
                }
                self.waiting.borrow_mut().push(cx.waker().clone());
                Poll::Pending
            })
            .await;
            if let (true, Some(failure)) = (self.failed.get() > failed, self.failure.get()) {
                return Err(failure);
            }
        }
    }
}

/// One stream of a connection.
pub struct Lane {
    group: Rc<Group>,
    number: usize,
    alarm: Alarm,
    /// Where a request was begun whose answer nobody waits for yet.
    begun_on: Option<Rc<Connection>>,
}

impl Lane {
    /// The lane of that number of a connection's.
    pub fn new(group: Rc<Group>, number: usize) -> Lane {
        Lane { group, number, alarm: Alarm::new(), begun_on: None }
    }

    /// Whether it makes the connection before the run begins: one lane of each connection does.
    pub fn connects(&self) -> bool {
        self.number == 0
    }

    /// Connects, unless it is connected.
    pub async fn connect(&mut self, plan: &Plan, times: &mut Times) -> Result<(), Failure> {
        self.group.connect(plan, times).await.map(|_| ())
    }

    /// Whether the next request goes over the same connection.
    pub fn is_kept(&self) -> bool {
        self.group.usable().is_some()
    }

    /// Sends what goes at once of a request, in the caller's own turn; whether it could be begun.
    pub fn begin(&mut self, plan: &Plan, request: &Prepared, times: &mut Times) -> bool {
        let Some(connection) = self.group.usable() else { return false };
        times.sent = clock::now();
        let begun = connection.begin(self.number, &ask(plan, request));
        if begun {
            self.alarm.arm(clock::after(times.sent, plan.timeout));
            self.begun_on = Some(connection);
        }
        begun
    }

    /// One request and its answer. `begun`: it is on its way.
    pub async fn exchange(
        &mut self,
        plan: &Plan,
        request: &Prepared,
        times: &mut Times,
        begun: bool,
    ) -> Result<Answer, (Failure, u16)> {
        if times.sent == 0 {
            times.sent = clock::now();
        }
        let ask = ask(plan, request);
        if !begun {
            self.alarm.arm(clock::after(times.sent, plan.timeout));
        }
        let slot = loop {
            let connection = match self.begun_on.take() {
                Some(connection) => connection,
                None => self.group.connect(plan, times).await.map_err(|failure| (failure, 0))?,
            };
            match connection.exchange(self.number, &ask, &self.alarm).await {
                Ok(slot) => break slot,
                // It has ended meanwhile; the alarm bounds how often.
                Err(Instead::Another) if !self.alarm.fired() => {}
                Err(Instead::Another) => return Err((Failure::Timeout, 0)),
                Err(Instead::Failed(failure)) => return Err((failure, 0)),
            }
        };
        self.alarm.disarm();
        if plan.new_connections {
            self.group.close();
        } else if slot.sent > 0 {
            times.sent = slot.sent;
        }
        (times.code, times.waited) = (slot.code, slot.waited);
        judge(plan, request, slot, times)
    }
}

/// What a lane asks.
fn ask<'a>(plan: &Plan, request: &'a Prepared) -> Ask<'a> {
    let call = plan.http2.call.as_ref();
    let sends = call.map_or(1, Call::sends);
    let in_turn = call.is_some_and(|call| call.kind == Kind::Bidirectional);
    Ask { fields: &request.fields, unit: &request.body, total: request.body.len() as u64 * sends, in_turn }
}

/// What is to be said of an answer.
fn judge(plan: &Plan, request: &Prepared, slot: Slot, times: &mut Times) -> Result<Answer, (Failure, u16)> {
    let status = if slot.answered { slot.head.status } else { 0 };
    let failed = |failure| Err((failure, status));
    if let Some(failure) = slot.failure {
        return failed(failure);
    }
    let bodiless = request.method == onehop_wire::http1::Method::Head;
    if let Some(length) = slot.head.length.filter(|length| *length != slot.bytes && !bodiless && status != 304) {
        return failed(if slot.bytes < length { Failure::ShortBody } else { Failure::Malformed });
    }
    if !plan.expect.takes(status) {
        return failed(Failure::Status);
    }
    let messages = match &plan.http2.call {
        Some(call) => {
            if let Some(failure) = judge_call(call, &slot, times) {
                return failed(failure);
            }
            slot.messages.count
        }
        None if plan.expect.length.is_some_and(|length| length != slot.bytes) => return failed(Failure::Length),
        None => 0,
    };
    if plan.expect.checksum.is_some_and(|expected| expected != slot.checksum.finalize()) {
        return failed(Failure::Content);
    }
    times.done = slot.done;
    Ok(Answer { status, bytes: slot.bytes, messages })
}

/// What is wrong with the answer to a call.
fn judge_call(call: &Call, slot: &Slot, times: &mut Times) -> Option<Failure> {
    if !slot.head.is_grpc {
        return Some(Failure::ContentType);
    }
    times.code = Code::Grpc(slot.grpc_status);
    if slot.grpc_status != Some(0) {
        return Some(Failure::GrpcStatus);
    }
    if slot.messages.wrong {
        return Some(Failure::Length);
    }
    let expected = call.answers();
    let counted = slot.messages.is_whole() && expected.is_none_or(|expected| expected == slot.messages.count);
    (!counted).then_some(Failure::Messages)
}
