//! One side of a connection: frames in, one event after another; frames out, into a buffer that is written whole. The
//! connection's own affairs (settings, pings, its windows, header compression) are dealt with here; streams are the
//! caller's.

use super::code;
use super::decode::Decoder;
use super::encode::{Encoder, Field};
use super::head::Head;

/// The largest frame that we take: the default, which we never change.
const MOST_FRAME: usize = 16_384;
/// A header block with its continuations.
const MOST_BLOCK: usize = 256 * 1024;
/// The largest window (RFC 9113 6.9.1).
pub const MOST_WINDOW: u32 = (1 << 31) - 1;
/// A window before anybody says otherwise.
const FIRST_WINDOW: i64 = 65_535;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const PRIORITY: u8 = 32;

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A head, or trailers.
    Head {
        /// Its stream.
        stream: u32,
        /// What it says.
        head: Head,
        /// Nothing follows.
        end: bool,
    },
    /// Part of a body.
    Data {
        /// Its stream.
        stream: u32,
        /// Its bytes.
        bytes: &'a [u8],
        /// What it takes from the stream's window, its padding included.
        weight: u32,
        /// Nothing follows.
        end: bool,
    },
    /// The peer gives a stream up.
    Reset {
        /// Which.
        stream: u32,
        /// Why.
        code: u32,
    },
    /// The peer takes more; stream 0: of the connection, which is booked already.
    Credit {
        /// Of which.
        stream: u32,
        /// So many bytes.
        by: i64,
    },
    /// The peer has changed its settings; the windows of all open streams grow by this.
    Settings {
        /// Negative where they shrink.
        windows_by: i64,
    },
    /// The peer takes no stream above this one.
    GoAway {
        /// The last that it may have acted on.
        last: u32,
    },
}

/// The peer breaks a rule of the connection: the error code that it is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breach(pub u32);

/// What the peer has said of itself.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    /// What may be sent on a new stream before it gives credit.
    pub window: i64,
    /// The largest frame that it takes.
    pub frame: usize,
    /// Streams that it takes at once.
    pub streams: u32,
    /// It has said something at all.
    pub settled: bool,
}

/// A DATA frame that is under way.
struct Body {
    stream: u32,
    left: usize,
    padding: usize,
    end: bool,
    /// Of its weight, what no event has carried yet.
    weight: u32,
}

/// A block whose bytes meant this when the decoder's table was in this state.
#[derive(Default)]
struct Memo {
    bytes: Vec<u8>,
    changes: u64,
    head: Head,
}

/// One side of a connection.
pub struct Link {
    /// What waits to be written.
    pub out: Out,
    /// What the peer has said of itself.
    pub peer: Peer,
    /// What may be sent on all streams together.
    pub window: i64,
    encoder: Encoder,
    decoder: Decoder,
    /// Heads and trailers mostly repeat.
    memos: [Memo; 2],
    turn: usize,
    body: Option<Body>,
    /// A block without its end: its stream, whether it ends it, and its bytes.
    block: Option<(u32, bool, Vec<u8>)>,
    /// What has come and was not given back yet, and when it is.
    taken: u32,
    refill: u32,
}

impl Link {
    /// A side that gives each stream a window of `window`, and the connection one of `whole` bytes; both are kept full. Its
    /// settings are in `out`; `more`: further ones.
    pub fn new(window: u32, whole: u32, more: &[(u16, u32)]) -> Link {
        let mut link = Link {
            out: Out::default(),
            peer: Peer { window: FIRST_WINDOW, frame: MOST_FRAME, streams: u32::MAX, settled: false },
            window: FIRST_WINDOW,
            encoder: Encoder::default(),
            decoder: Decoder::default(),
            memos: Default::default(),
            turn: 0,
            body: None,
            block: None,
            taken: 0,
            refill: whole / 2,
        };
        let settings = [&[(4, window.min(MOST_WINDOW))], more].concat();
        link.out.frame(4, 0, 0, settings.len() * 6);
        for (name, value) in settings {
            link.out.bytes.extend_from_slice(&name.to_be_bytes());
            link.out.bytes.extend_from_slice(&value.to_be_bytes());
        }
        let more = i64::from(whole.min(MOST_WINDOW)) - FIRST_WINDOW;
        if more > 0 {
            link.credit(0, more as u32);
        }
        link
    }

    /// Takes the next step through what has come: how many bytes it used, and what it was. Nothing used and nothing
    /// found: more must come first.
    ///
    /// # Errors
    /// When the peer breaks a rule of the connection.
    #[inline]
    pub fn next<'a>(&mut self, bytes: &'a [u8]) -> Result<(usize, Option<Event<'a>>), Breach> {
        if self.body.is_some() {
            return Ok(self.data(bytes));
        }
        let Some((head, rest)) = bytes.split_first_chunk::<9>() else { return Ok((0, None)) };
        let [a, b, c, kind, flags, stream @ ..] = *head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        let stream = u32::from_be_bytes(stream) & MOST_WINDOW;
        if length > MOST_FRAME {
            return Err(Breach(code::FRAME_SIZE_ERROR));
        }
        if (self.block.is_some() && kind != 9) || (!self.peer.settled && kind != 4) {
            return Err(Breach(code::PROTOCOL_ERROR));
        }
        if kind == 0 {
            let padded = usize::from(flags & PADDED != 0);
            if rest.len() < padded {
                return Ok((0, None));
            }
            let padding = if padded == 1 { usize::from(rest[0]) } else { 0 };
            if stream == 0 || padded + padding > length {
                return Err(Breach(code::PROTOCOL_ERROR));
            }
            self.book(length as u32);
            let left = length - padded - padding;
            self.body = Some(Body { stream, left, padding, end: flags & END_STREAM != 0, weight: length as u32 });
            let (used, event) = self.data(&rest[padded..]);
            return Ok((9 + padded + used, event));
        }
        let Some(payload) = rest.get(..length) else { return Ok((0, None)) };
        self.frame(kind, flags, stream, payload).map(|event| (9 + length, event))
    }

    /// Books what has come on the whole connection, and gives it back in large parts.
    fn book(&mut self, count: u32) {
        self.taken += count;
        if self.taken > self.refill {
            let taken = std::mem::take(&mut self.taken);
            self.credit(0, taken);
        }
    }

    fn data<'a>(&mut self, bytes: &'a [u8]) -> (usize, Option<Event<'a>>) {
        let Some(body) = &mut self.body else { return (0, None) };
        let here = body.left.min(bytes.len());
        body.left -= here;
        let padding = if body.left == 0 { body.padding.min(bytes.len() - here) } else { 0 };
        body.padding -= padding;
        let whole = body.left == 0 && body.padding == 0;
        if here == 0 && !whole {
            return (padding, None);
        }
        let weight = if whole { body.weight } else { here as u32 };
        body.weight -= weight;
        let event = Event::Data { stream: body.stream, bytes: &bytes[..here], weight, end: body.end && whole };
        if whole {
            self.body = None;
        }
        (here + padding, Some(event))
    }

    fn frame<'a>(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Result<Option<Event<'a>>, Breach> {
        let protocol = Err(Breach(code::PROTOCOL_ERROR));
        let size = Err(Breach(code::FRAME_SIZE_ERROR));
        match kind {
            1 => self.headers(flags, stream, payload),
            3 => match <[u8; 4]>::try_from(payload) {
                Ok(_) if stream == 0 => protocol,
                Ok(bytes) => Ok(Some(Event::Reset { stream, code: u32::from_be_bytes(bytes) })),
                Err(_) => size,
            },
            4 if stream != 0 => protocol,
            4 if flags & ACK != 0 => {
                if payload.is_empty() {
                    Ok(None)
                } else {
                    size
                }
            }
            4 => self.settings(payload).map(Some),
            // What we have forbidden.
            5 => protocol,
            6 if stream != 0 => protocol,
            6 if payload.len() != 8 => size,
            6 => {
                if flags & ACK == 0 {
                    self.out.frame(6, ACK, 0, 8);
                    self.out.bytes.extend_from_slice(payload);
                }
                Ok(None)
            }
            7 if stream != 0 => protocol,
            7 => match payload.first_chunk::<4>() {
                Some(last) if payload.len() >= 8 => {
                    Ok(Some(Event::GoAway { last: u32::from_be_bytes(*last) & MOST_WINDOW }))
                }
                _ => size,
            },
            8 => match <[u8; 4]>::try_from(payload) {
                Ok(by) => self.credited(stream, i64::from(u32::from_be_bytes(by) & MOST_WINDOW)).map(Some),
                Err(_) => size,
            },
            9 => self.continuation(flags, stream, payload),
            // Priorities are obsolete, and what is not known is passed over.
            _ => Ok(None),
        }
    }

    fn credited<'a>(&mut self, stream: u32, by: i64) -> Result<Event<'a>, Breach> {
        if by == 0 {
            return Err(Breach(code::PROTOCOL_ERROR));
        }
        if stream == 0 {
            self.window += by;
            if self.window > i64::from(MOST_WINDOW) {
                return Err(Breach(code::FLOW_CONTROL_ERROR));
            }
        }
        Ok(Event::Credit { stream, by })
    }

    fn settings<'a>(&mut self, payload: &[u8]) -> Result<Event<'a>, Breach> {
        let (settings, []) = payload.as_chunks::<6>() else { return Err(Breach(code::FRAME_SIZE_ERROR)) };
        let before = self.peer.window;
        for [a, b, value @ ..] in settings {
            let value = u32::from_be_bytes(*value);
            match u16::from_be_bytes([*a, *b]) {
                1 => self.encoder.allow(value as usize),
                3 => self.peer.streams = value,
                4 if value > MOST_WINDOW => return Err(Breach(code::FLOW_CONTROL_ERROR)),
                4 => self.peer.window = i64::from(value),
                5 if !(16_384..1 << 24).contains(&value) => return Err(Breach(code::PROTOCOL_ERROR)),
                // Larger frames would only copy more at a time.
                5 => {}
                _ => {}
            }
        }
        self.peer.settled = true;
        self.out.frame(4, ACK, 0, 0);
        Ok(Event::Settings { windows_by: self.peer.window - before })
    }

    fn headers<'a>(&mut self, flags: u8, stream: u32, payload: &[u8]) -> Result<Option<Event<'a>>, Breach> {
        let (mut from, mut until) = (0, payload.len());
        if flags & PADDED != 0 {
            let padding = payload.first().map_or(usize::MAX, |padding| usize::from(*padding));
            from = 1;
            until = until.saturating_sub(padding);
        }
        from += if flags & PRIORITY != 0 { 5 } else { 0 };
        if stream == 0 || from > until {
            return Err(Breach(code::PROTOCOL_ERROR));
        }
        let (block, end) = (&payload[from..until], flags & END_STREAM != 0);
        if flags & END_HEADERS == 0 {
            self.block = Some((stream, end, block.to_vec()));
            return Ok(None);
        }
        let head = self.read(block)?;
        Ok(Some(Event::Head { stream, head, end }))
    }

    fn continuation<'a>(&mut self, flags: u8, stream: u32, payload: &[u8]) -> Result<Option<Event<'a>>, Breach> {
        let Some((of, end, mut block)) = self.block.take().filter(|(of, ..)| *of == stream) else {
            return Err(Breach(code::PROTOCOL_ERROR));
        };
        block.extend_from_slice(payload);
        if block.len() > MOST_BLOCK || (payload.is_empty() && flags & END_HEADERS == 0) {
            return Err(Breach(code::ENHANCE_YOUR_CALM));
        }
        if flags & END_HEADERS == 0 {
            self.block = Some((of, end, block));
            return Ok(None);
        }
        let head = self.read(&block)?;
        Ok(Some(Event::Head { stream, head, end }))
    }

    fn read(&mut self, block: &[u8]) -> Result<Head, Breach> {
        let changes = self.decoder.changes();
        if let Some(memo) = self.memos.iter().find(|memo| memo.changes == changes && memo.bytes == block)
            && !block.is_empty()
        {
            return Ok(memo.head);
        }
        let mut head = Head::default();
        let decoded = self.decoder.decode(block, &mut |name, value| head.take(name, value));
        decoded.map_err(|_| Breach(code::COMPRESSION_ERROR))?;
        // A block that has changed the table means something else the next time.
        if self.decoder.changes() == changes {
            self.turn = (self.turn + 1) % self.memos.len();
            let memo = &mut self.memos[self.turn];
            memo.bytes.clear();
            memo.bytes.extend_from_slice(block);
            (memo.changes, memo.head) = (changes, head);
        }
        Ok(head)
    }

    /// Writes a head, or trailers.
    pub fn head(&mut self, stream: u32, fields: &[Field], end: bool) {
        let at = self.out.bytes.len();
        self.out.frame(1, END_HEADERS | if end { END_STREAM } else { 0 }, stream, 0);
        self.encoder.encode(fields, &mut self.out.bytes);
        let length = self.out.bytes.len() - at - 9;
        if length <= MOST_FRAME {
            self.out.bytes[at..at + 3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
            return;
        }
        let block = self.out.bytes.split_off(at + 9);
        self.out.bytes.truncate(at);
        let last = (block.len() - 1) / MOST_FRAME;
        for (number, part) in block.chunks(MOST_FRAME).enumerate() {
            let ends = if number == last { END_HEADERS } else { 0 };
            let (kind, flags) = if number == 0 { (1, ends | if end { END_STREAM } else { 0 }) } else { (9, ends) };
            self.out.frame(kind, flags, stream, part.len());
            self.out.bytes.extend_from_slice(part);
        }
    }

    /// Writes part of a body: at most what [`Link::room`] says. `parts` are its bytes, in pieces.
    pub fn body<'a>(&mut self, stream: u32, parts: impl Iterator<Item = &'a [u8]>, end: bool) {
        let at = self.out.bytes.len();
        self.out.frame(0, u8::from(end), stream, 0);
        parts.for_each(|part| self.out.bytes.extend_from_slice(part));
        let length = self.out.bytes.len() - at - 9;
        self.window -= length as i64;
        self.out.bytes[at..at + 3].copy_from_slice(&(length as u32).to_be_bytes()[1..]);
    }

    /// How much of a body one frame may carry now on a stream with this window.
    pub fn room(&self, window: i64) -> usize {
        usize::try_from(window.min(self.window)).unwrap_or(0).min(self.peer.frame)
    }

    /// Gives a stream up.
    pub fn reset(&mut self, stream: u32, code: u32) {
        self.out.frame(3, 0, stream, 4);
        self.out.bytes.extend_from_slice(&code.to_be_bytes());
    }

    /// Lets the peer send more, on a stream or (0) on all together.
    pub fn credit(&mut self, stream: u32, by: u32) {
        self.out.frame(8, 0, stream, 4);
        self.out.bytes.extend_from_slice(&by.to_be_bytes());
    }

    /// Takes no stream above `last`, and says why.
    pub fn go_away(&mut self, last: u32, code: u32) {
        self.out.frame(7, 0, 0, 8);
        self.out.bytes.extend_from_slice(&last.to_be_bytes());
        self.out.bytes.extend_from_slice(&code.to_be_bytes());
    }
}

/// Bytes that wait to be written.
#[derive(Debug, Default)]
pub struct Out {
    pub(super) bytes: Vec<u8>,
    sent: usize,
}

/// A buffer that has grown beyond it is given back once it is empty.
const KEPT: usize = 1 << 20;

impl Out {
    fn frame(&mut self, kind: u8, flags: u8, stream: u32, length: usize) {
        let [_, a, b, c] = (length as u32).to_be_bytes();
        let [d, e, f, g] = stream.to_be_bytes();
        self.bytes.extend_from_slice(&[a, b, c, kind, flags, d, e, f, g]);
    }

    /// Puts bytes before everything: the preface.
    pub fn begin(&mut self, bytes: &[u8]) {
        self.bytes.splice(0..0, bytes.iter().copied());
    }

    /// What waits.
    pub fn waiting(&self) -> &[u8] {
        &self.bytes[self.sent..]
    }

    /// So much of it was written.
    pub fn written(&mut self, count: usize) {
        self.sent += count;
        if self.sent == self.bytes.len() {
            self.sent = 0;
            self.bytes.clear();
            if self.bytes.capacity() > KEPT {
                self.bytes = Vec::new();
            }
        } else if self.sent > KEPT {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
