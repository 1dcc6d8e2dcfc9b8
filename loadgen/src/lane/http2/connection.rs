//! One connection, shared by its lanes: a task of its own reads, and writes what the lanes have put down since its last
//! turn in as few calls as possible.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use onehop_net::clock;
use onehop_net::deadline::Alarm;
use onehop_net::{Size, Stream};

use super::streams::{Ask, MOST_WAITING, Slot, Streams};
use crate::failure::Failure;
use crate::http2::link::{Link, MOST_WINDOW};
use crate::http2::{PREFACE, code};
use crate::lane::{Times, arm, ended, finish, open};
use crate::plan::Plan;

/// See [`Shared`].
pub(super) struct Connection {
    state: RefCell<Shared>,
}

/// What the lanes and the task share.
struct Shared {
    /// `None`: it has ended.
    stream: Option<Box<Stream>>,
    link: Link,
    streams: Streams,
    task: Option<Waker>,
    /// The task has been woken and not run since.
    woken: bool,
    /// No lane is left.
    closing: bool,
}

/// Why a request is not under way on this connection.
pub(super) enum Instead {
    /// It takes no more: another one must be made.
    Another,
    /// It failed.
    Failed(Failure),
}

impl Connection {
    /// Connects, and waits until the peer has said its settings.
    pub async fn open(plan: &Plan, times: &mut Times) -> Result<Rc<Connection>, Failure> {
        let mut stream = open(plan, times).await?;
        if stream.tls().is_some_and(|info| info.alpn.as_deref() != Some(b"h2")) {
            return Err(Failure::NotHttp2);
        }
        arm(&stream, plan, clock::now());
        let window = plan.http2.window;
        let whole = u64::from(window) * plan.http2.streams as u64;
        // Nothing is pushed to us.
        let mut link = Link::new(window, u32::try_from(whole).unwrap_or(MOST_WINDOW).min(MOST_WINDOW), &[(2, 0)]);
        link.out.begin(PREFACE);
        let mut streams = Streams::new(plan);
        while !link.peer.settled {
            let waiting = link.out.waiting();
            stream.write_all(waiting).await.map_err(|_| unsettled(&stream))?;
            let count = waiting.len();
            link.out.written(count);
            match stream.fill(Size::Medium).await {
                Ok(1..) => {}
                _ => return Err(unsettled(&stream)),
            }
            take_in(&mut stream, &mut link, &mut streams).map_err(|_| Failure::NotHttp2)?;
        }
        stream.deadline().disarm();
        let stream = Some(Box::new(stream));
        let shared = Shared { stream, link, streams, task: None, woken: false, closing: false };
        let connection = Rc::new(Connection { state: RefCell::new(shared) });
        onehop_net::runtime::spawn(drive(connection.clone()));
        Ok(connection)
    }

    /// Whether new requests can be begun.
    pub fn is_usable(&self) -> bool {
        let shared = self.state.borrow();
        shared.streams.gone.is_none() && !shared.streams.leaving
    }

    /// No lane needs it any more.
    pub fn close(&self) {
        let mut shared = self.state.borrow_mut();
        shared.closing = true;
        shared.wake();
    }

    /// Asks on a lane's stream, and writes it at once; false where it must wait.
    pub fn begin(&self, lane: usize, ask: &Ask<'_>) -> bool {
        // Whoever looks for what is due in the middle of this connection's work must come again.
        let Ok(mut shared) = self.state.try_borrow_mut() else { return false };
        let Shared { stream: Some(stream), link, streams, .. } = &mut *shared else { return false };
        let idle = link.out.waiting().is_empty();
        if streams.gone.is_some() || streams.leaving || !streams.begin(lane, ask, link) {
            streams.withdraw(lane);
            return false;
        }
        streams.send(lane, ask, link);
        if idle {
            streams.stamp(clock::now());
            // What kept it from being written shows again in the task.
            if let Ok(count) = stream.try_write(link.out.waiting()) {
                link.out.written(count);
            }
        }
        if !link.out.waiting().is_empty() {
            shared.wake();
        }
        true
    }

    /// Asks on a lane's stream, unless that is begun, and waits for what comes of it, or for the alarm.
    pub async fn exchange(&self, lane: usize, ask: &Ask<'_>, alarm: &Alarm) -> Result<Slot, Instead> {
        poll_fn(|cx| self.state.borrow_mut().poll_exchange(lane, ask, alarm, cx)).await
    }
}

/// What the end of a connection means whose peer has not said its settings.
fn unsettled(stream: &Stream) -> Failure {
    if stream.timed_out() { Failure::ConnectTimeout } else { Failure::NotHttp2 }
}

impl Shared {
    fn wake(&mut self) {
        if !std::mem::replace(&mut self.woken, true)
            && let Some(task) = &self.task
        {
            task.wake_by_ref();
        }
    }

    fn poll_exchange(
        &mut self,
        lane: usize,
        ask: &Ask<'_>,
        alarm: &Alarm,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Slot, Instead>> {
        let Shared { link, streams, .. } = self;
        let mut written = false;
        if !streams.slots[lane].is_begun() {
            if streams.gone.is_some() || streams.leaving {
                return Poll::Ready(Err(Instead::Another));
            }
            written = streams.begin(lane, ask, link);
            streams.slots[lane].waited |= !written;
        }
        if !streams.slots[lane].ended {
            written |= streams.send(lane, ask, link);
        }
        if streams.slots[lane].ended {
            let slot = streams.finish(lane, ask, link);
            self.wake_if(!self.link.out.waiting().is_empty());
            return Poll::Ready(Ok(slot));
        }
        if alarm.poll(cx).is_ready() {
            let begun = streams.slots[lane].is_begun();
            streams.give_up(lane, Failure::Timeout, link);
            let slot = streams.finish(lane, ask, link);
            self.wake();
            return Poll::Ready(if begun { Ok(slot) } else { Err(Instead::Failed(Failure::Timeout)) });
        }
        streams.slots[lane].watch(cx);
        self.wake_if(written);
        Poll::Pending
    }

    fn wake_if(&mut self, needed: bool) {
        if needed {
            self.wake();
        }
    }

    /// One turn of the task; ready at the connection's end, with whether it ended in order, at our wish.
    fn poll(&mut self, size: &mut Size, cx: &mut Context<'_>) -> Poll<bool> {
        let Some(mut stream) = self.stream.take() else { return Poll::Ready(false) };
        let polled = self.turn(&mut stream, size, cx);
        self.stream = Some(stream);
        polled
    }

    fn turn(&mut self, stream: &mut Stream, size: &mut Size, cx: &mut Context<'_>) -> Poll<bool> {
        self.woken = false;
        if !self.task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
            self.task = Some(cx.waker().clone());
        }
        loop {
            let mut came = false;
            // A peer that takes nothing is not listened to: what it asks for would only pile up.
            if self.link.out.waiting().len() <= 2 * MOST_WAITING
                && let Poll::Ready(filled) = stream.poll_fill(cx, *size)
            {
                match filled {
                    Ok(count @ 1..) => {
                        came = true;
                        *size = if count >= Size::Medium.bytes() / 2 { Size::Large } else { Size::Medium };
                        if let Err(breach) = take_in(stream, &mut self.link, &mut self.streams) {
                            self.link.go_away(0, breach);
                            // It is told why, if it listens.
                            let _ = stream.try_write(self.link.out.waiting());
                            self.streams.fail_all(Failure::Http2);
                            return Poll::Ready(false);
                        }
                    }
                    _ => {
                        self.streams.fail_all(ended(stream, Failure::Closed));
                        return Poll::Ready(false);
                    }
                }
            }
            let over = self.closing || (self.streams.leaving && self.streams.open == 0);
            if over {
                self.link.go_away(0, code::NO_ERROR);
            }
            if self.flush(stream, cx).is_err() {
                self.streams.fail_all(Failure::Reset);
                return Poll::Ready(false);
            }
            if over {
                self.streams.fail_all(Failure::Closed);
                return Poll::Ready(true);
            }
            if !came {
                return Poll::Pending;
            }
        }
    }

    /// Writes what waits, as far as the peer takes it.
    fn flush(&mut self, stream: &Stream, cx: &mut Context<'_>) -> io::Result<()> {
        let full = self.link.out.waiting().len() > MOST_WAITING;
        while !self.link.out.waiting().is_empty() {
            if self.streams.has_unsent() {
                self.streams.stamp(clock::now());
            }
            match stream.try_write(self.link.out.waiting()) {
                Ok(count) => self.link.out.written(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => match stream.poll_writable(cx) {
                    Poll::Ready(writable) => writable?,
                    Poll::Pending => break,
                },
                Err(error) => return Err(error),
            }
        }
        if full && self.link.out.waiting().len() <= MOST_WAITING {
            self.streams.wake_waiting();
        }
        Ok(())
    }
}

/// Takes in all that is buffered; the error code of a rule that the peer breaks.
fn take_in(stream: &mut Stream, link: &mut Link, streams: &mut Streams) -> Result<(), u32> {
    // What was buffered was here when the read ended.
    let now = clock::now();
    let bytes = stream.buffered();
    let mut at = 0;
    loop {
        let (used, event) = link.next(&bytes[at..]).map_err(|breach| breach.0)?;
        at += used;
        match event {
            Some(event) => streams.on(event, link, now),
            None if used == 0 => break,
            None => {}
        }
    }
    stream.consume(at);
    Ok(())
}

/// The connection's task.
async fn drive(connection: Rc<Connection>) {
    let mut size = Size::Medium;
    let ours = poll_fn(|cx| connection.state.borrow_mut().poll(&mut size, cx)).await;
    let stream = connection.state.borrow_mut().stream.take();
    if let Some(stream) = stream.filter(|stream| ours && stream.shutdown_write().is_ok()) {
        finish(*stream).await;
    }
}
