//! The streams of one connection, each a lane's: what was asked on it, and what has come of it.

use std::collections::VecDeque;
use std::task::{Context, Waker};

use onehop_net::clock::Nanos;

use crate::failure::{Code, Failure};
use crate::http2::encode::Field;
use crate::http2::grpc::Messages;
use crate::http2::head::Head;
use crate::http2::link::{Event, Link, MOST_WINDOW};
use crate::http2::{code, pieces};
use crate::plan::Plan;

/// Bytes that wait to be written; beyond it bodies and new requests wait too.
pub(super) const MOST_WAITING: usize = 256 * 1024;
/// Identifiers end here; the connection is replaced then.
const LAST_ID: u32 = MOST_WINDOW - 2;

/// What a lane asks.
pub(super) struct Ask<'a> {
    /// The request's fields.
    pub fields: &'a [Field],
    /// The body, or the message that it consists of over and over.
    pub unit: &'a [u8],
    /// Bytes of the whole body.
    pub total: u64,
    /// Each message waits for the answer to the one before.
    pub in_turn: bool,
}

impl Ask<'_> {
    /// How much of the body may be sent when so many messages have been answered.
    fn allowed(&self, answered: u64) -> u64 {
        if self.in_turn { self.total.min((answered + 1) * self.unit.len() as u64) } else { self.total }
    }
}

/// One stream, as the lane and the connection share it.
#[derive(Default)]
pub(super) struct Slot {
    /// Zero: nothing is under way.
    id: u32,
    /// It has ended, however that was.
    pub ended: bool,
    /// A final head has come.
    pub answered: bool,
    /// That head.
    pub head: Head,
    /// The status of a call.
    pub grpc_status: Option<u32>,
    /// Bytes of the answer's body.
    pub bytes: u64,
    /// Messages in it.
    pub messages: Messages,
    /// Its CRC-32.
    pub checksum: crc32fast::Hasher,
    /// How it failed.
    pub failure: Option<Failure>,
    /// With which code.
    pub code: Code,
    /// It waited for a place.
    pub waited: bool,
    /// When it was written.
    pub sent: Nanos,
    /// When its last byte came.
    pub done: Nanos,
    offset: u64,
    window: i64,
    taken: u32,
    blocked: bool,
    waker: Option<Waker>,
}

impl Slot {
    fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Remembers whom to wake.
    pub fn watch(&mut self, cx: &Context<'_>) {
        if !self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            self.waker = Some(cx.waker().clone());
        }
    }

    /// Whether something is under way or has ended and was not looked at yet.
    pub fn is_begun(&self) -> bool {
        self.id > 0 || self.ended
    }

    fn fail(&mut self, failure: Failure) {
        self.failure = self.failure.or(Some(failure));
    }
}

/// All streams of a connection.
pub(super) struct Streams {
    /// By lane.
    pub slots: Vec<Slot>,
    /// By half the identifier, modulo its size: the slot plus one, or zero.
    by_id: Vec<u32>,
    next: u32,
    /// How many are open.
    pub open: u32,
    waiting: VecDeque<usize>,
    blocked: Vec<usize>,
    /// Begun and not written yet.
    unsent: Vec<usize>,
    /// The connection has ended.
    pub gone: Option<Failure>,
    /// The connection takes no new streams.
    pub leaving: bool,
    window: u32,
    message_length: Option<u64>,
    is_grpc: bool,
    sums: bool,
}

impl Streams {
    pub fn new(plan: &Plan) -> Streams {
        let count = plan.http2.streams;
        Streams {
            slots: (0..count).map(|_| Slot::default()).collect(),
            by_id: vec![0; (4 * count).next_power_of_two()],
            next: 1,
            open: 0,
            waiting: VecDeque::new(),
            blocked: Vec::new(),
            unsent: Vec::new(),
            gone: None,
            leaving: false,
            window: plan.http2.window,
            message_length: plan.expect.length,
            is_grpc: plan.http2.call.is_some(),
            sums: plan.expect.checksum.is_some(),
        }
    }

    fn place(&self, id: u32) -> usize {
        (id >> 1) as usize & (self.by_id.len() - 1)
    }

    fn find(&self, id: u32) -> Option<usize> {
        let slot = (self.by_id[self.place(id)] as usize).checked_sub(1)?;
        (self.slots[slot].id == id).then_some(slot)
    }

    /// Begins a lane's request; false where it must wait, and is woken then.
    pub fn begin(&mut self, lane: usize, ask: &Ask<'_>, link: &mut Link) -> bool {
        let full = self.open >= link.peer.streams || link.out.waiting().len() > MOST_WAITING;
        if !self.waiting.is_empty() || full {
            // In turn: whoever has just been answered must not overtake those who wait.
            if full || self.waiting.front() != Some(&lane) {
                if !self.waiting.contains(&lane) {
                    self.waiting.push_back(lane);
                }
                return false;
            }
            self.waiting.pop_front();
            self.wake_next();
        }
        // A place that a long stream still holds is passed over: identifiers need not be used.
        while self.by_id[self.place(self.next)] > 0 {
            self.next += 2;
        }
        let id = self.next;
        self.next += 2;
        self.leaving |= self.next >= LAST_ID;
        let place = self.place(id);
        self.by_id[place] = lane as u32 + 1;
        self.open += 1;
        let slot = &mut self.slots[lane];
        let (waited, waker) = (slot.waited, slot.waker.take());
        *slot = Slot { id, window: link.peer.window, waited, waker, ..Slot::default() };
        link.head(id, ask.fields, ask.total == 0);
        self.unsent.push(lane);
        true
    }

    /// Sends of a lane's body what may be sent; whether anything was.
    pub fn send(&mut self, lane: usize, ask: &Ask<'_>, link: &mut Link) -> bool {
        let slot = &mut self.slots[lane];
        let mut sent = false;
        while slot.id > 0 && !slot.ended {
            let left = ask.allowed(slot.messages.count).saturating_sub(slot.offset);
            if left == 0 {
                break;
            }
            let room = if link.out.waiting().len() > MOST_WAITING { 0 } else { link.room(slot.window) };
            let count = room.min(usize::try_from(left).unwrap_or(usize::MAX));
            if count == 0 {
                if !std::mem::replace(&mut slot.blocked, true) {
                    self.blocked.push(lane);
                }
                break;
            }
            let from = (slot.offset % ask.unit.len() as u64) as usize;
            slot.offset += count as u64;
            slot.window -= count as i64;
            link.body(slot.id, pieces(ask.unit, from, count), slot.offset == ask.total);
            sent = true;
        }
        sent
    }

    /// A lane gives its request up; whether the peer has to be told.
    pub fn give_up(&mut self, lane: usize, failure: Failure, link: &mut Link) {
        let id = self.slots[lane].id;
        if id > 0 && !self.slots[lane].ended {
            link.reset(id, code::CANCEL);
        }
        self.slots[lane].fail(failure);
        self.end(lane, 0);
        self.withdraw(lane);
    }

    /// A lane waits no more for a place.
    pub fn withdraw(&mut self, lane: usize) {
        if let Some(at) = self.waiting.iter().position(|waiting| *waiting == lane) {
            self.waiting.remove(at);
            self.wake_next();
        }
    }

    /// Whether requests have been begun that were not written yet.
    pub fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// They are about to be.
    pub fn stamp(&mut self, now: Nanos) {
        for lane in self.unsent.drain(..) {
            self.slots[lane].sent = now;
        }
    }

    /// A lane has seen what came of its request.
    pub fn finish(&mut self, lane: usize, ask: &Ask<'_>, link: &mut Link) -> Slot {
        let waker = self.slots[lane].waker.clone();
        let slot = std::mem::replace(&mut self.slots[lane], Slot { waker, ..Slot::default() });
        // Answered before all was asked: the rest is not sent.
        if slot.failure.is_none() && slot.offset < ask.total && self.gone.is_none() {
            link.reset(slot.id, code::CANCEL);
        }
        slot
    }

    fn end(&mut self, lane: usize, now: Nanos) {
        let slot = &mut self.slots[lane];
        if std::mem::replace(&mut slot.ended, true) {
            return;
        }
        slot.done = now;
        slot.wake();
        let id = slot.id;
        if id > 0 {
            let place = self.place(id);
            self.by_id[place] = 0;
            self.open -= 1;
        }
        self.wake_next();
    }

    fn wake_next(&self) {
        if let Some(next) = self.waiting.front() {
            self.slots[*next].wake();
        }
    }

    /// The connection has ended: so have all its streams.
    pub fn fail_all(&mut self, failure: Failure) {
        self.gone = Some(failure);
        for lane in 0..self.slots.len() {
            let slot = &mut self.slots[lane];
            if slot.id > 0 && !slot.ended {
                let short = failure == Failure::Closed && slot.answered;
                slot.fail(if short { Failure::ShortBody } else { failure });
                self.end(lane, 0);
            }
        }
        self.wake_waiting();
    }

    /// Those who wait for a place or for room look again.
    pub fn wake_waiting(&mut self) {
        self.waiting.iter().for_each(|lane| self.slots[*lane].wake());
        self.wake_blocked();
    }

    /// Those whose bodies wait for credit or room look again.
    pub fn wake_blocked(&mut self) {
        for lane in self.blocked.drain(..) {
            self.slots[lane].blocked = false;
            self.slots[lane].wake();
        }
    }

    /// Takes in what has come.
    pub fn on(&mut self, event: Event<'_>, link: &mut Link, now: Nanos) {
        match event {
            Event::Head { stream, head, end } => self.on_head(stream, head, end, now),
            Event::Data { stream, bytes, weight, end } => self.on_data(stream, bytes, weight, end, link, now),
            Event::Reset { stream, code } => {
                if let Some(lane) = self.find(stream) {
                    let slot = &mut self.slots[lane];
                    slot.fail(if code == code::REFUSED_STREAM { Failure::StreamRefused } else { Failure::StreamReset });
                    slot.code = Code::Reset(code);
                    self.end(lane, now);
                }
            }
            Event::Credit { stream: 0, .. } => self.wake_blocked(),
            Event::Credit { stream, by } => {
                if let Some(lane) = self.find(stream) {
                    let slot = &mut self.slots[lane];
                    slot.window += by;
                    if slot.window > i64::from(MOST_WINDOW) {
                        return self.break_stream(lane, code::FLOW_CONTROL_ERROR, link, now);
                    }
                    self.wake_blocked();
                }
            }
            Event::Settings { windows_by } => {
                for slot in self.slots.iter_mut().filter(|slot| slot.id > 0) {
                    slot.window += windows_by;
                }
                self.wake_waiting();
            }
            Event::GoAway { last } => {
                self.leaving = true;
                for lane in 0..self.slots.len() {
                    if self.slots[lane].id > last {
                        self.slots[lane].fail(Failure::GoAway);
                        self.end(lane, now);
                    }
                }
                self.wake_waiting();
            }
        }
    }

    fn break_stream(&mut self, lane: usize, code: u32, link: &mut Link, now: Nanos) {
        link.reset(self.slots[lane].id, code);
        self.slots[lane].fail(Failure::Malformed);
        self.end(lane, now);
    }

    fn on_head(&mut self, stream: u32, head: Head, end: bool, now: Nanos) {
        // What was given up may still be under way.
        let Some(lane) = self.find(stream) else { return };
        let slot = &mut self.slots[lane];
        if slot.answered {
            // Trailers, which end it.
            if !end || head.status > 0 {
                slot.fail(Failure::Malformed);
            }
            slot.grpc_status = head.grpc_status;
        } else if (100..200).contains(&head.status) && !end {
            return;
        } else {
            if head.status < 200 {
                slot.fail(Failure::Malformed);
            }
            slot.answered = true;
            slot.head = head;
            if end {
                slot.grpc_status = head.grpc_status;
            }
        }
        if end || slot.failure.is_some() {
            self.end(lane, now);
        }
    }

    fn on_data(&mut self, stream: u32, bytes: &[u8], weight: u32, end: bool, link: &mut Link, now: Nanos) {
        let Some(lane) = self.find(stream) else { return };
        let slot = &mut self.slots[lane];
        if !slot.answered {
            return self.break_stream(lane, code::PROTOCOL_ERROR, link, now);
        }
        slot.bytes += bytes.len() as u64;
        if self.sums {
            slot.checksum.update(bytes);
        }
        if self.is_grpc {
            let before = slot.messages.count;
            slot.messages.take(bytes, self.message_length);
            if slot.messages.count > before && !end {
                // The next message may be due.
                slot.wake();
            }
        }
        if end {
            return self.end(lane, now);
        }
        slot.taken += weight;
        if slot.taken > self.window / 2 {
            link.credit(stream, std::mem::take(&mut slot.taken));
        }
    }
}
