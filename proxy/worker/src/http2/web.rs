//! gRPC-Web at the edge: a browser's call becomes gRPC on its way to an HTTP/2 upstream, and the answer becomes one that
//! a browser can read: trailers in the body, all of it in base64 where the client asked for text.

use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use onehop_wire::grpc_web::{Decoder, encode, trailer_frame};
use onehop_wire::http1::{Edits, Field, Known, Limits, RequestHead, ResponseHead};

use super::grpc;
use crate::exchange::Leg;
use crate::exchange::body::Broken;
use crate::exchange::reader::{Next, Reader};

/// What a gRPC-Web call's body is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Web {
    /// `application/grpc-web`: bytes.
    Binary,
    /// `application/grpc-web-text`: base64.
    Text,
}

const BINARY: &[u8] = b"application/grpc-web";
const TEXT: &[u8] = b"application/grpc-web-text";

impl Web {
    /// What a request is, if it is gRPC-Web.
    pub fn of(head: &RequestHead, bytes: &[u8]) -> Option<Web> {
        head.find(Known::ContentType).and_then(|field| Web::of_value(field.value.of(bytes)))
    }

    /// What its answer is to be written in: that of the two which it accepts, else what it is written in itself.
    pub fn of_answer(head: &RequestHead, bytes: &[u8]) -> Option<Web> {
        let own = Web::of(head, bytes)?;
        let accepts = head.fields.iter().filter(|field| field.name.of(bytes).eq_ignore_ascii_case(b"accept"));
        let mut accepted = accepts.flat_map(|field| field.value.of(bytes).split(|byte| *byte == b','));
        Some(accepted.find_map(|kind| Web::of_value(kind.trim_ascii())).unwrap_or(own))
    }

    /// What a content type says.
    pub fn of_value(value: &[u8]) -> Option<Web> {
        Web::of_type(value).map(|(web, _)| web)
    }

    /// What a content type names, and what stands behind: `+proto`, or nothing.
    fn of_type(value: &[u8]) -> Option<(Web, &[u8])> {
        let begins = |prefix: &[u8]| {
            let is_it = value.len() >= prefix.len() && value[..prefix.len()].eq_ignore_ascii_case(prefix);
            is_it.then(|| &value[prefix.len()..]).filter(|rest| matches!(rest.first(), None | Some(b'+' | b';' | b' ')))
        };
        begins(TEXT).map(|rest| (Web::Text, rest)).or_else(|| begins(BINARY).map(|rest| (Web::Binary, rest)))
    }

    fn text(self) -> &'static [u8] {
        match self {
            Web::Binary => BINARY,
            Web::Text => TEXT,
        }
    }

    /// The content type of an answer that has no message.
    pub fn content_type(self) -> &'static str {
        match self {
            Web::Binary => "application/grpc-web+proto",
            Web::Text => "application/grpc-web-text+proto",
        }
    }
}

fn dropped(fields: &[Field], buf: &[u8], drops: impl Fn(&Field, &[u8]) -> bool) -> u128 {
    let matching = fields.iter().enumerate().filter(|(_, field)| drops(field, field.name.of(buf)));
    matching.fold(0, |bits, (index, _)| bits | 1 << index)
}

/// The request's edits as the gRPC call that it becomes; `encode` writes it down.
pub fn request<R>(head: &RequestHead, buf: &[u8], edits: &Edits<'_>, encode: impl FnOnce(&Edits<'_>) -> R) -> R {
    let rest = head.find(Known::ContentType).and_then(|field| Web::of_type(field.value.of(buf)));
    let kind = [grpc::TYPE, rest.map_or(&b""[..], |(_, rest)| rest)].concat();
    let drop = edits.drop
        | dropped(&head.fields, buf, |field, name| {
            matches!(field.known, Known::ContentType | Known::ContentLength) || name.eq_ignore_ascii_case(b"accept")
        });
    let replaced = |name: &[u8]| {
        [&b"content-type"[..], b"content-length", b"te", b"connection"]
            .iter()
            .any(|other| name.eq_ignore_ascii_case(other))
    };
    let mut add: Vec<_> = edits.add.iter().copied().filter(|(name, _)| !replaced(name)).collect();
    add.push((b"content-type", &kind));
    // gRPC servers refuse calls without it: a proxy that drops trailers would drop the status.
    add.push((b"te", b"trailers"));
    encode(&Edits { drop, add: &add })
}

/// Whether an upstream's answer is one of gRPC: what is not passes as it is.
pub fn is_translated(head: &ResponseHead, buf: &[u8]) -> bool {
    head.find(Known::ContentType).is_some_and(|field| grpc::is_grpc_type(field.value.of(buf)))
}

/// The edits of a gRPC answer as the gRPC-Web one that it becomes.
pub fn response<R>(
    web: Web,
    head: &ResponseHead,
    buf: &[u8],
    edits: &Edits<'_>,
    encode: impl FnOnce(&Edits<'_>) -> R,
) -> R {
    let came = head.find(Known::ContentType).map_or(&b""[..], |field| field.value.of(buf));
    let kind = [web.text(), came.get(grpc::TYPE.len()..).unwrap_or_default()].concat();
    let drop = edits.drop
        | dropped(&head.fields, buf, |field, _| {
            matches!(field.known, Known::ContentType | Known::ContentLength | Known::Trailer)
        });
    let mut add = edits.add.to_vec();
    add.push((b"content-type", &kind));
    encode(&Edits { drop, add: &add })
}

/// A body on its way through the translation.
pub struct Translated {
    inner: Reader,
    way: Way,
    /// What came out of it and was not taken yet. While it is not empty, nothing of the leg's is offered.
    out: Bytes,
    ended: bool,
    status: Option<u16>,
}

enum Way {
    /// A request's base64 becomes bytes.
    Decoding(Decoder),
    /// A response's trailers join its body.
    Binary,
    /// The same, in base64.
    Encoding,
}

impl Translated {
    /// A request's body; binary ones are as gRPC has them.
    pub fn request(web: Web, body: Reader) -> Reader {
        match web {
            Web::Binary => body,
            Web::Text => Translated::begin(body, Way::Decoding(Decoder::default())),
        }
    }

    /// A response's body. One without a body keeps its status in the head, where clients look too.
    pub fn response(web: Web, body: Reader) -> Reader {
        Translated::begin(body, if web == Web::Text { Way::Encoding } else { Way::Binary })
    }

    fn begin(inner: Reader, way: Way) -> Reader {
        if inner.is_done() {
            return inner;
        }
        Reader::translated(Box::new(Translated { inner, way, out: Bytes::new(), ended: false, status: None }))
    }

    /// The limits of the body's trailers.
    pub fn limits(&self) -> Limits {
        self.inner.limits()
    }

    /// The status in the trailers that have passed.
    pub fn grpc_status(&self) -> Option<u16> {
        self.status
    }

    /// What is offered.
    pub fn data<'x>(&'x self, leg: &'x Leg<'_>) -> &'x [u8] {
        if self.out.is_empty() { self.inner.data(leg) } else { &self.out }
    }

    /// The first `count` bytes of it.
    pub fn take(&mut self, leg: &mut Leg<'_>, count: usize) -> Bytes {
        if self.out.is_empty() { self.inner.take(leg, count) } else { self.out.split_to(count) }
    }

    /// They were passed on.
    pub fn consume(&mut self, leg: &mut Leg<'_>, count: usize) {
        if self.out.is_empty() { self.inner.consume(leg, count) } else { self.out.advance(count) }
    }

    /// Waits for what comes next.
    pub fn poll_next(&mut self, cx: &mut Context<'_>, leg: &mut Leg<'_>) -> Poll<Result<Next, Broken>> {
        loop {
            if self.ended {
                return Poll::Ready(Ok(Next::End));
            }
            let next = ready!(self.inner.poll_next(cx, leg))?;
            if let Some(next) = self.translate(next, leg)? {
                return Poll::Ready(Ok(next));
            }
        }
    }

    /// `None`: more is needed first.
    fn translate(&mut self, next: Next, leg: &mut Leg<'_>) -> Result<Option<Next>, Broken> {
        match (next, &mut self.way) {
            (Next::Data { length, last }, Way::Binary) => {
                self.ended = last;
                Ok(Some(Next::Data { length, last }))
            }
            (Next::Data { length, last }, Way::Encoding) => {
                let mut text = Vec::new();
                encode(&self.inner.take(leg, length), &mut text);
                Ok(Some(self.offer(text, last)))
            }
            (Next::Data { length, last }, Way::Decoding(decoder)) => {
                let mut bytes = Vec::new();
                decoder.decode(&self.inner.take(leg, length), &mut bytes).map_err(Broken::Framing)?;
                if last {
                    decoder.finish().map_err(Broken::Framing)?;
                }
                if bytes.is_empty() && !last { Ok(None) } else { Ok(Some(self.offer(bytes, last))) }
            }
            (Next::Trailers(lines), Way::Binary | Way::Encoding) => {
                self.status = grpc::status_in(&lines);
                let mut frame = Vec::with_capacity(lines.len() + 5);
                trailer_frame(&lines, &mut frame);
                if matches!(self.way, Way::Encoding) {
                    let mut text = Vec::new();
                    encode(&frame, &mut text);
                    frame = text;
                }
                Ok(Some(self.offer(frame, true)))
            }
            (end, Way::Decoding(decoder)) => {
                decoder.finish().map_err(Broken::Framing)?;
                self.ended = true;
                Ok(Some(end))
            }
            (end, _) => {
                self.ended = true;
                Ok(Some(end))
            }
        }
    }

    fn offer(&mut self, bytes: Vec<u8>, last: bool) -> Next {
        self.ended = last;
        if bytes.is_empty() {
            return Next::End;
        }
        self.out = Bytes::from(bytes);
        Next::Data { length: self.out.len(), last }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_apart() {
        assert_eq!(Web::of_type(b"application/grpc-web"), Some((Web::Binary, &b""[..])));
        assert_eq!(Web::of_type(b"Application/gRPC-Web+proto"), Some((Web::Binary, &b"+proto"[..])));
        assert_eq!(Web::of_type(b"application/grpc-web-text"), Some((Web::Text, &b""[..])));
        assert_eq!(Web::of_type(b"application/grpc-web-text+proto; x=y"), Some((Web::Text, &b"+proto; x=y"[..])));
        for other in [&b"application/grpc"[..], b"application/grpc-webby", b"application/grpc+web", b""] {
            assert_eq!(Web::of_type(other), None);
        }
    }

    #[test]
    fn a_text_becomes_bytes_and_nothing_is_left() {
        let limits = onehop_wire::http1::Limits { head_bytes: 1000, fields: 10, request_line: 100 };
        let mut reader = Translated::request(Web::Text, Reader::held(Bytes::from_static(b"AAAAAAU=aGVsbG8="), limits));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        let next = reader.poll_next(&mut cx, &mut Leg::Nobody);
        assert_eq!(next, Poll::Ready(Ok(Next::Data { length: 10, last: true })));
        assert_eq!(reader.take(&mut Leg::Nobody, 10), b"\0\0\0\0\x05hello"[..]);
        assert_eq!(reader.poll_next(&mut cx, &mut Leg::Nobody), Poll::Ready(Ok(Next::End)));
        let mut cut = Translated::request(Web::Text, Reader::held(Bytes::from_static(b"AAAAA"), limits));
        assert!(matches!(cut.poll_next(&mut cx, &mut Leg::Nobody), Poll::Ready(Err(Broken::Framing(_)))));
    }
}
