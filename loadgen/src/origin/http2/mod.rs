//! One HTTP/2 connection of the origin: requests are answered in the turn in which they are here as a whole, unless the
//! origin is told to take its time; gRPC methods are answered by the end of their name.

mod answers;
mod stream;

use std::cell::RefCell;
use std::collections::HashMap;
use std::future::poll_fn;
use std::hash::{BuildHasherDefault, Hasher};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use onehop_net::deadline::{Ends, sleep_until};
use onehop_net::{Size, Stream, clock, runtime};

use super::behaviour::Served;
use super::echo::IDLE;
use super::http::MOST_ECHOED;
use crate::http2::code;
use crate::http2::grpc::{self, Kind};
use crate::http2::head::Head;
use crate::http2::link::{Event, Link, MOST_WINDOW};

pub(super) use answers::Answers;
use stream::{Answer, MOST_WAITING, Open, Progress, Unit};

/// Stream numbers are counted up by the client: they need no mixing, only spreading.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u32(&mut self, number: u32) {
        self.0 = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

/// A connection, as its task and those of its slow answers share it.
struct Connection {
    link: Link,
    streams: HashMap<u32, Open, BuildHasherDefault<Spread>>,
    served: Rc<Served>,
    /// The highest stream that was taken.
    last: u32,
    requests: u64,
    blocked: Vec<u32>,
    /// GOAWAY has been sent.
    leaving: bool,
    task: Option<Waker>,
    woken: bool,
}

type Shared = Rc<RefCell<Connection>>;

/// Serves a client that has sent its preface.
pub(super) async fn serve(mut stream: Stream, served: Rc<Served>) -> io::Result<()> {
    let http2 = &served.behaviour.http2;
    let link = Link::new(http2.window, MOST_WINDOW, &[(3, http2.max_streams)]);
    let shared = Rc::new(RefCell::new(Connection {
        link,
        streams: HashMap::default(),
        served,
        last: 0,
        requests: 0,
        blocked: Vec::new(),
        leaving: false,
        task: None,
        woken: false,
    }));
    let mut size = Size::Medium;
    // What came along with the preface.
    let mut ended = shared.borrow_mut().take_in(&shared, &mut stream);
    if ended.is_ok() {
        ended = poll_fn(|cx| poll(&shared, &mut stream, &mut size, cx)).await;
    }
    // Answers that are still under way find nothing to send.
    let (mut connection, mut closed) = (shared.borrow_mut(), Ok(()));
    connection.streams.clear();
    if ended.is_ok() && connection.leaving {
        closed = stream.shutdown_write();
    }
    drop(connection);
    ended.and(closed)
}

/// One turn of the connection's task.
fn poll(shared: &Shared, stream: &mut Stream, size: &mut Size, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
    let mut connection = shared.borrow_mut();
    connection.woken = false;
    if !connection.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
        connection.task = Some(cx.waker().clone());
    }
    loop {
        let mut came = false;
        // Whoever takes nothing is not listened to.
        if connection.link.out.waiting().len() <= 4 * MOST_WAITING
            && let Poll::Ready(filled) = stream.poll_fill(cx, *size)
        {
            let count = filled?;
            if count == 0 {
                return Poll::Ready(Ok(()));
            }
            *size = if count >= Size::Medium.bytes() / 2 { Size::Large } else { Size::Medium };
            came = true;
            stream.deadline().arm(clock::after(clock::now(), IDLE), Ends::Both);
            connection.take_in(shared, stream)?;
        }
        connection.flush(stream, cx)?;
        if connection.leaving && connection.streams.is_empty() && connection.link.out.waiting().is_empty() {
            return Poll::Ready(Ok(()));
        }
        if !came {
            return Poll::Pending;
        }
    }
}

impl Connection {
    fn wake(&mut self) {
        if !std::mem::replace(&mut self.woken, true)
            && let Some(task) = &self.task
        {
            task.wake_by_ref();
        }
    }

    /// Takes in all that is buffered.
    fn take_in(&mut self, shared: &Shared, stream: &mut Stream) -> io::Result<()> {
        let bytes = stream.buffered();
        let mut at = 0;
        loop {
            let (used, event) = match self.link.next(&bytes[at..]) {
                Ok(step) => step,
                Err(breach) => {
                    self.link.go_away(self.last, breach.0);
                    // It is told why, if it listens.
                    let _ = stream.try_write(self.link.out.waiting());
                    return Err(io::ErrorKind::InvalidData.into());
                }
            };
            at += used;
            match event {
                Some(event) => self.on(shared, event)?,
                None if used == 0 => break,
                None => {}
            }
        }
        stream.consume(at);
        Ok(())
    }

    fn on(&mut self, shared: &Shared, event: Event<'_>) -> io::Result<()> {
        match event {
            Event::Head { stream, head, end } => self.on_head(shared, stream, head, end),
            Event::Data { stream, bytes, weight, end } => return self.on_data(shared, stream, bytes, weight, end),
            Event::Reset { stream, .. } => drop(self.streams.remove(&stream)),
            Event::Credit { stream: 0, .. } => self.unblock(),
            Event::Credit { stream, by } => {
                if let Some(open) = self.streams.get_mut(&stream) {
                    open.window += by;
                    self.unblock();
                }
            }
            Event::Settings { windows_by } => {
                self.streams.values_mut().for_each(|open| open.window += windows_by);
                self.unblock();
            }
            Event::GoAway { .. } => self.leaving = true,
        }
        Ok(())
    }

    fn on_head(&mut self, shared: &Shared, stream: u32, head: Head, end: bool) {
        if let Some(mut open) = self.streams.remove(&stream) {
            // Trailers.
            open.asked |= end;
            return self.step(shared, stream, open);
        }
        // A stream above the last one, or one that has been reset: the client knows or will.
        if self.leaving || stream <= self.last {
            return;
        }
        (self.last, self.requests) = (stream, self.requests + 1);
        let http2 = &self.served.behaviour.http2;
        let refused = self.streams.len() >= http2.max_streams as usize || self.served.chance(http2.refusals);
        if http2.goaway_after > 0 && self.requests >= http2.goaway_after {
            self.leaving = true;
            self.link.go_away(self.last, code::NO_ERROR);
        }
        if refused {
            return self.link.reset(stream, code::REFUSED_STREAM);
        }
        let open = Open { head, asked: end, window: self.link.peer.window, ..Open::default() };
        self.step(shared, stream, open);
    }

    fn on_data(&mut self, shared: &Shared, stream: u32, bytes: &[u8], weight: u32, end: bool) -> io::Result<()> {
        let Some(mut open) = self.streams.remove(&stream) else { return Ok(()) };
        let behaviour = &self.served.behaviour;
        if behaviour.echo_body {
            if open.body.len() + bytes.len() > MOST_ECHOED {
                return Err(io::ErrorKind::InvalidData.into());
            }
            open.body.extend_from_slice(bytes);
        }
        if open.is_conversation() {
            open.messages.take(bytes, None);
        }
        open.asked = end;
        open.taken += weight;
        if !end && !behaviour.http2.stalled && open.taken > behaviour.http2.window / 2 {
            self.link.credit(stream, std::mem::take(&mut open.taken));
        }
        self.step(shared, stream, open);
        Ok(())
    }

    /// Goes on with a stream after something has come on it, and keeps it unless it is over.
    fn step(&mut self, shared: &Shared, stream: u32, mut open: Open) {
        crate::pace::look();
        if open.answer.is_some() {
            self.converse(&mut open);
            return self.send(stream, open);
        }
        if !open.asked && !open.is_conversation() {
            self.streams.insert(stream, open);
            return;
        }
        if self.served.sleeper.is_none() {
            return self.answer(shared, stream, open);
        }
        let is_first = !open.is_conversation() || open.asked || open.messages.count == 0;
        self.streams.insert(stream, open);
        if !is_first {
            return;
        }
        let (shared, served) = (shared.clone(), self.served.clone());
        runtime::spawn(async move {
            if let Some(sleeper) = &served.sleeper {
                sleeper.until(clock::after(clock::now(), served.service())).await;
            }
            let mut connection = shared.borrow_mut();
            if let Some(open) = connection.streams.remove(&stream) {
                if open.answer.is_some() {
                    connection.streams.insert(stream, open);
                    return;
                }
                connection.answer(&shared, stream, open);
                connection.wake();
            }
        });
    }

    /// Begins an answer.
    fn answer(&mut self, shared: &Shared, stream: u32, mut open: Open) {
        let served = self.served.clone();
        let (behaviour, answers) = (&served.behaviour, &served.http2);
        if served.chance(behaviour.resets) {
            return self.link.reset(stream, code::INTERNAL_ERROR);
        }
        if served.chance(behaviour.errors) {
            return self.link.head(stream, if open.head.is_grpc { &answers.call_error } else { &answers.error }, true);
        }
        let allowed = if behaviour.slow.is_some() { 0 } else { u64::MAX };
        if open.head.is_grpc {
            self.link.head(stream, &answers.call, false);
            let (unit, total) = self.call(&mut open);
            open.answer = Some(Answer { unit, offset: 0, total, allowed, whole: false });
            self.converse(&mut open);
        } else {
            let unit = if behaviour.echo_body {
                Unit::Own(std::mem::take(&mut open.body))
            } else {
                Unit::Filler(served.size())
            };
            let length = match &unit {
                Unit::Own(bytes) => bytes.len(),
                Unit::Filler(length) => *length,
                Unit::Message => 0,
            };
            let end = open.head.bodiless || length == 0;
            if behaviour.chunked {
                self.link.head(stream, &answers.open, end);
            } else if length == served.filler.len() {
                self.link.head(stream, &answers.fixed, end);
            } else {
                self.link.head(stream, &answers.with_length(length), end);
            }
            if end {
                return;
            }
            open.answer = Some(Answer { unit, offset: 0, total: length as u64, allowed, whole: true });
        }
        if let Some((piece, pause)) = behaviour.slow {
            let shared = shared.clone();
            runtime::spawn(async move {
                while allow(&shared, stream, piece) {
                    sleep_until(clock::after(clock::now(), pause)).await;
                }
            });
        }
        self.send(stream, open);
    }

    /// What a call is answered with, as far as it is known when it begins.
    fn call(&self, open: &mut Open) -> (Unit, u64) {
        let behaviour = &self.served.behaviour;
        let unit = match open.head.call {
            Kind::Unary | Kind::Bidirectional if behaviour.echo_body => Unit::Own(std::mem::take(&mut open.body)),
            _ => match self.served.size() {
                size if size == self.served.filler.len() => Unit::Message,
                size => Unit::Own(grpc::frame(&self.served.filler[..size])),
            },
        };
        let length = self.length(&unit);
        let count = match open.head.call {
            Kind::Bidirectional => 0,
            Kind::Server => behaviour.http2.messages,
            Kind::Unary | Kind::Client => 1,
        };
        (unit, length * count)
    }

    fn length(&self, unit: &Unit) -> u64 {
        match unit {
            Unit::Filler(length) => *length as u64,
            Unit::Message => self.served.http2.message.len() as u64,
            Unit::Own(bytes) => bytes.len() as u64,
        }
    }

    /// Adds to a call's answer what the messages so far call for.
    fn converse(&self, open: &mut Open) {
        let conversation = open.is_conversation();
        let Some(answer) = &mut open.answer else { return };
        if open.head.is_grpc {
            answer.whole = open.asked;
        }
        match (&mut answer.unit, conversation) {
            (Unit::Own(bytes), true) if self.served.behaviour.echo_body => {
                bytes.append(&mut open.body);
                answer.total = bytes.len() as u64;
            }
            (unit, true) => answer.total = self.length(unit) * open.messages.count,
            _ => {}
        }
    }

    /// Sends what can be sent of an answer, and keeps the stream unless it is over.
    fn send(&mut self, stream: u32, mut open: Open) {
        let served = &self.served;
        match open.send(stream, &mut self.link, &served.filler, &served.http2) {
            Progress::Done => return,
            Progress::Blocked if !std::mem::replace(&mut open.blocked, true) => self.blocked.push(stream),
            Progress::Blocked | Progress::Waiting => {}
        }
        self.streams.insert(stream, open);
    }

    /// There is credit or room again.
    fn unblock(&mut self) {
        for stream in std::mem::take(&mut self.blocked) {
            if let Some(mut open) = self.streams.remove(&stream) {
                open.blocked = false;
                self.send(stream, open);
            }
        }
    }

    /// Writes what waits, as far as the client takes it.
    fn flush(&mut self, stream: &Stream, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.link.out.waiting().is_empty() {
            match stream.try_write(self.link.out.waiting()) {
                Ok(count) => {
                    self.link.out.written(count);
                    if !self.blocked.is_empty() && self.link.out.waiting().len() <= MOST_WAITING {
                        self.unblock();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match stream.poll_writable(cx) {
                    Poll::Ready(writable) => writable?,
                    Poll::Pending => break,
                },
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Lets a slow answer go on by a piece; false when it is over.
fn allow(shared: &Shared, stream: u32, piece: usize) -> bool {
    let mut connection = shared.borrow_mut();
    let Some(mut open) = connection.streams.remove(&stream) else { return false };
    if let Some(answer) = &mut open.answer {
        answer.allowed = answer.allowed.saturating_add(piece.max(1) as u64);
    }
    connection.send(stream, open);
    connection.wake();
    true
}
