//! A request's body that is kept while it streams out, within a bound, so that it can be sent again: by a further
//! attempt, by several at once, or to a mirror. Each of them plays the tape from its beginning; whoever is ahead pulls
//! what comes next from the client. A body that outgrows the bound is forgotten, and only the one that is ahead goes on.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use onehop_net::clock::{self, Nanos};
use onehop_wire::http1::Limits;

use super::body::Broken;
use super::leg::Leg;
use super::reader::{Next, Reader};

/// Chunks of an HTTP/2 client that are shorter are copied: each would else hold the whole buffer that it was read into.
const COPIED: usize = 4096;
/// A tape holds no more chunks than this and one for each so many bytes of its bound, since each costs memory beside its
/// bytes: a body of single bytes outgrows it early.
const MIN_CHUNKS: usize = 16;
const BYTES_A_CHUNK: usize = 64;

/// How the body has ended.
#[derive(Clone)]
enum End {
    /// Not yet.
    Open,
    /// In order, with these trailers if any.
    Whole(Option<Vec<u8>>),
    /// It never will.
    Never,
}

struct State {
    source: Reader,
    chunks: Vec<Bytes>,
    size: usize,
    bound: usize,
    /// More came than is kept.
    outgrown: bool,
    /// It is kept only until the upstream has begun to answer.
    passing: bool,
    /// Chunks that the latest attempt has played.
    played: usize,
    end: End,
    ended_at: Nanos,
    waiting: Option<Waker>,
    limits: Limits,
}

/// See the module. Cloning it gives another hand on the same tape.
#[derive(Clone)]
pub struct Tape(Rc<RefCell<State>>);

impl Tape {
    /// Of a body that is pulled from the client by `source`.
    pub fn new(source: Reader, bound: usize, limits: Limits) -> Tape {
        let whole = source.is_done();
        Tape(Rc::new(RefCell::new(State {
            source,
            chunks: Vec::new(),
            size: 0,
            bound,
            outgrown: false,
            passing: false,
            played: 0,
            end: if whole { End::Whole(None) } else { End::Open },
            ended_at: 0,
            waiting: None,
            limits,
        })))
    }

    /// One that a single attempt plays at a time, until [`Tape::answered`].
    pub fn passing(source: Reader, bound: usize, limits: Limits) -> Tape {
        let tape = Tape::new(source, bound, limits);
        tape.0.borrow_mut().passing = true;
        tape
    }

    /// The upstream has begun to answer: a passing body is not played again. What was played is let go, the rest as it is
    /// played.
    pub fn answered(&self) {
        let mut state = self.0.borrow_mut();
        if state.passing {
            state.outgrown = true;
            let played = state.played;
            state.chunks[..played].fill(Bytes::new());
        }
    }

    /// Whether all that has come is here, so that another attempt can begin.
    pub fn is_kept(&self) -> bool {
        let state = self.0.borrow();
        !state.outgrown && !matches!(state.end, End::Never)
    }

    /// Whether the client owes nothing more.
    pub fn is_whole(&self) -> bool {
        matches!(self.0.borrow().end, End::Whole(_))
    }

    /// Whether anything has come yet.
    pub fn has_begun(&self) -> bool {
        let state = self.0.borrow();
        state.size > 0 || state.outgrown || !matches!(state.end, End::Open)
    }

    /// Bytes that have come.
    pub fn size(&self) -> usize {
        self.0.borrow().size
    }

    /// When the client had sent all of it; zero before.
    pub fn ended_at(&self) -> Nanos {
        self.0.borrow().ended_at
    }

    /// From the beginning.
    pub fn play(&self) -> Playback {
        Playback { tape: self.clone(), at: 0, chunk: Bytes::new() }
    }

    /// Nobody pulls any more: who waits for the end need not.
    pub fn stop(&self) {
        let mut state = self.0.borrow_mut();
        if matches!(state.end, End::Open) {
            state.end = End::Never;
        }
        state.wake();
    }

    /// Waits until all of it is here (true), or never will be.
    pub fn poll_whole(&self, cx: &mut Context<'_>) -> Poll<bool> {
        let mut state = self.0.borrow_mut();
        match (&state.end, state.outgrown) {
            (End::Never, _) | (_, true) => Poll::Ready(false),
            (End::Whole(_), false) => Poll::Ready(true),
            (End::Open, false) => {
                state.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    /// Pulls all of it in before anyone plays it; stops where it outgrows the bound (false).
    pub fn poll_collect(&self, cx: &mut Context<'_>, leg: &mut Leg<'_>) -> Poll<Result<bool, Broken>> {
        loop {
            let mut state = self.0.borrow_mut();
            if !matches!(state.end, End::Open) || state.is_full() {
                return Poll::Ready(Ok(!state.is_full()));
            }
            if let Some(chunk) = ready!(state.pull(cx, leg))? {
                state.size += chunk.len();
                state.push(&chunk, leg);
            }
        }
    }
}

impl State {
    /// The next chunk of the client's; none at the end.
    fn pull(&mut self, cx: &mut Context<'_>, leg: &mut Leg<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        let next = match ready!(self.source.poll_next(cx, leg)) {
            Ok(next) => next,
            Err(broken) => {
                self.end = End::Never;
                self.wake();
                return Poll::Ready(Err(broken));
            }
        };
        let (chunk, end) = match next {
            Next::Data { length, last } => (Some(self.source.take(leg, length)), last.then_some(None)),
            Next::Trailers(lines) => {
                let mut checked = Vec::new();
                onehop_wire::http1::trailers(&lines, &self.limits, &mut checked).map_err(Broken::Framing)?;
                (None, Some(Some(checked)))
            }
            Next::End => (None, Some(None)),
        };
        if let Some(trailers) = end {
            self.end = End::Whole(trailers);
            self.ended_at = clock::now();
            self.wake();
        }
        Poll::Ready(Ok(chunk))
    }

    /// Whether it holds more than it may.
    fn is_full(&self) -> bool {
        self.size > self.bound || self.chunks.len() > MIN_CHUNKS + self.bound / BYTES_A_CHUNK
    }

    fn push(&mut self, chunk: &Bytes, leg: &Leg<'_>) {
        let copied = leg.is_http2() && chunk.len() < COPIED;
        self.chunks.push(if copied { Bytes::copy_from_slice(chunk) } else { chunk.clone() });
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waiting.take() {
            waker.wake();
        }
    }
}

/// One attempt's way through the tape.
pub struct Playback {
    tape: Tape,
    /// The next chunk.
    at: usize,
    chunk: Bytes,
}

impl Playback {
    /// What [`Next::Data`] speaks of.
    pub fn data(&self) -> &[u8] {
        &self.chunk
    }

    /// The first `count` bytes of it.
    pub fn take(&mut self, count: usize) -> Bytes {
        self.chunk.split_to(count)
    }

    /// Waits for what comes next.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, leg: &mut Leg<'_>) -> Poll<Result<Next, Broken>> {
        loop {
            let mut state = self.tape.0.borrow_mut();
            if !self.chunk.is_empty() {
                let last = self.at >= state.chunks.len() && matches!(state.end, End::Whole(None));
                return Poll::Ready(Ok(Next::Data { length: self.chunk.len(), last }));
            }
            let is_last_time = state.passing && state.outgrown;
            if let Some(chunk) = state.chunks.get_mut(self.at) {
                self.chunk = if is_last_time { std::mem::take(chunk) } else { chunk.clone() };
                self.at += 1;
                state.played = self.at;
                continue;
            }
            match &state.end {
                End::Whole(Some(trailers)) => return Poll::Ready(Ok(Next::Trailers(trailers.clone()))),
                End::Whole(None) => return Poll::Ready(Ok(Next::End)),
                End::Never => return Poll::Ready(Err(Broken::Source)),
                End::Open => {}
            }
            let Some(chunk) = ready!(state.pull(cx, leg))? else { continue };
            state.size += chunk.len();
            if !state.outgrown && !state.is_full() {
                state.push(&chunk, leg);
                self.at += 1;
                state.played = self.at;
            } else {
                if !std::mem::replace(&mut state.outgrown, true) {
                    state.wake();
                }
                state.chunks = Vec::new();
                (self.at, state.played) = (0, 0);
            }
            self.chunk = chunk;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(tape: &Tape) -> Vec<u8> {
        let mut playback = tape.play();
        let mut cx = Context::from_waker(Waker::noop());
        let mut bytes = Vec::new();
        loop {
            match playback.poll_next(&mut cx, &mut Leg::Nobody) {
                Poll::Ready(Ok(Next::Data { length, last })) => {
                    bytes.extend_from_slice(&playback.take(length));
                    if last {
                        return bytes;
                    }
                }
                Poll::Ready(Ok(Next::End)) => return bytes,
                other => panic!("{other:?}"),
            }
        }
    }

    #[test]
    fn it_plays_as_often_as_it_is_asked_to() {
        let limits = Limits::default();
        let tape = Tape::new(Reader::held(Bytes::from_static(b"hello"), limits), 5, limits);
        assert!(tape.is_kept() && !tape.is_whole() && !tape.has_begun());
        assert_eq!(read(&tape), b"hello");
        assert!(tape.is_whole() && tape.is_kept() && tape.ended_at() > 0);
        assert_eq!(read(&tape), b"hello");
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(tape.poll_whole(&mut cx), Poll::Ready(true));
    }

    #[test]
    fn what_outgrows_the_bound_passes_once() {
        let limits = Limits::default();
        let tape = Tape::new(Reader::held(Bytes::from_static(b"hello"), limits), 4, limits);
        assert_eq!(read(&tape), b"hello");
        assert!(!tape.is_kept());
        let mut cx = Context::from_waker(Waker::noop());
        assert_eq!(tape.poll_whole(&mut cx), Poll::Ready(false));
        // Collected first, it is still whole for the first that plays it.
        let tape = Tape::new(Reader::held(Bytes::from_static(b"hello"), limits), 4, limits);
        assert!(matches!(tape.poll_collect(&mut cx, &mut Leg::Nobody), Poll::Ready(Ok(false))));
        assert_eq!(read(&tape), b"hello");
    }

    #[test]
    fn what_passes_is_let_go_once_it_is_answered() {
        let limits = Limits::default();
        let bytes = Bytes::from(vec![7; 100]);
        let tape = Tape::passing(Reader::held(bytes.clone(), limits), 1000, limits);
        assert_eq!(read(&tape), bytes);
        assert!(tape.is_kept() && !bytes.is_unique());
        tape.answered();
        assert!(!tape.is_kept() && bytes.is_unique());
    }

    #[test]
    fn nobody_waits_for_a_body_that_was_given_up() {
        let limits = Limits::default();
        let tape = Tape::new(Reader::held(Bytes::from_static(b"hello"), limits), 64, limits);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(tape.poll_whole(&mut cx).is_pending());
        tape.stop();
        assert_eq!(tape.poll_whole(&mut cx), Poll::Ready(false));
    }
}
