//! One stream of the origin: a request that comes, and the answer that goes as credit allows.

use super::answers::Answers;
use crate::http2::grpc::{Kind, Messages};
use crate::http2::head::Head;
use crate::http2::link::Link;
use crate::http2::pieces;

/// Bytes that wait to be written; beyond it bodies wait too.
pub const MOST_WAITING: usize = 256 * 1024;

/// What a body consists of, over and over.
pub enum Unit {
    /// The origin's filler, so much of it.
    Filler(usize),
    /// The one message that there is.
    Message,
    /// Bytes of its own.
    Own(Vec<u8>),
}

/// An answer under way, its head sent.
pub struct Answer {
    /// What its body consists of.
    pub unit: Unit,
    /// Bytes sent.
    pub offset: u64,
    /// Bytes of the whole body, as far as it is known.
    pub total: u64,
    /// Bytes that may be sent so far.
    pub allowed: u64,
    /// Nothing will be added to it.
    pub whole: bool,
}

/// One stream.
#[derive(Default)]
pub struct Open {
    /// The request's head.
    pub head: Head,
    /// The request is here as a whole.
    pub asked: bool,
    /// Its body, where it is sent back.
    pub body: Vec<u8>,
    /// Messages in it.
    pub messages: Messages,
    /// What the client has not been given back yet.
    pub taken: u32,
    /// What may be sent.
    pub window: i64,
    /// The answer, once it is begun.
    pub answer: Option<Answer>,
    /// Waits for credit or room.
    pub blocked: bool,
}

/// How far an answer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// All of it is written.
    Done,
    /// The client must give credit, or take what waits.
    Blocked,
    /// More of it must come into being first.
    Waiting,
}

impl Open {
    /// Whether each message is answered as it comes.
    pub fn is_conversation(&self) -> bool {
        self.head.is_grpc && self.head.call == Kind::Bidirectional
    }

    /// Sends what can be sent.
    pub fn send(&mut self, stream: u32, link: &mut Link, filler: &[u8], answers: &Answers) -> Progress {
        let Some(answer) = &mut self.answer else { return Progress::Waiting };
        let is_call = self.head.is_grpc;
        loop {
            let left = answer.total.min(answer.allowed).saturating_sub(answer.offset);
            if left == 0 {
                if answer.offset < answer.total || !answer.whole {
                    return Progress::Waiting;
                }
                link.head(stream, &answers.call_end, true);
                return Progress::Done;
            }
            let room = if link.out.waiting().len() > MOST_WAITING { 0 } else { link.room(self.window) };
            let count = room.min(usize::try_from(left).unwrap_or(usize::MAX));
            if count == 0 {
                return Progress::Blocked;
            }
            let unit = match &answer.unit {
                Unit::Filler(length) => &filler[..*length],
                Unit::Message => &answers.message,
                Unit::Own(bytes) => bytes,
            };
            let from = (answer.offset % unit.len() as u64) as usize;
            answer.offset += count as u64;
            self.window -= count as i64;
            let end = !is_call && answer.whole && answer.offset == answer.total;
            link.body(stream, pieces(unit, from, count), end);
            if end {
                return Progress::Done;
            }
        }
    }
}
