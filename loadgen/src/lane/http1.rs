//! HTTP/1.1: one request at a time on a connection. Nothing is pipelined: a queue within a connection would hide in
//! the latency.

use onehop_net::{Size, Stream, clock};
use onehop_wire::http1::{BodyLength, ChunkedDecoder, HeadScanner, Limits, Part, ResponseHead};

use super::{Answer, Times, arm, ended, finish, open, unwritten};
use crate::failure::Failure;
use crate::plan::Plan;
use crate::request::Prepared;

/// Bodies of at least this are read in large parts.
const BULK: u64 = 64 * 1024;

/// One connection.
#[derive(Default)]
pub struct Connection {
    stream: Option<Stream>,
    head: ResponseHead,
    /// The bytes that `head` was parsed from: an origin's heads are mostly alike, and the same bytes mean the same.
    bytes: Vec<u8>,
    method: onehop_wire::http1::Method,
}

impl Connection {
    /// Connects, unless it is connected.
    pub async fn connect(&mut self, plan: &Plan, times: &mut Times) -> Result<(), Failure> {
        if self.stream.is_none() {
            self.stream = Some(open(plan, times).await?);
        }
        Ok(())
    }

    /// The stream, between two requests.
    pub fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }

    /// One request and its answer.
    pub async fn exchange(
        &mut self,
        plan: &Plan,
        request: &Prepared,
        times: &mut Times,
        begun: Option<usize>,
    ) -> Result<Answer, (Failure, u16)> {
        if times.sent == 0 {
            times.sent = clock::now();
        }
        let (fresh, mut stream) = match self.stream.take() {
            Some(stream) => (false, stream),
            None => (true, open(plan, times).await.map_err(|failure| (failure, 0))?),
        };
        if fresh && !plan.new_connections {
            times.sent = clock::now();
        }
        let written = begun.unwrap_or_else(|| {
            arm(&stream, plan, times.sent);
            // An error shows again below.
            stream.try_write_parts(&request.head, &request.body).unwrap_or(0)
        });
        if written < request.head.len() + request.body.len() {
            let head = &request.head[written.min(request.head.len())..];
            let body = &request.body[written.saturating_sub(request.head.len())..];
            stream.write_all_vectored(head, body).await.map_err(|_| (unwritten(&stream), 0))?;
        }
        self.read_head(&mut stream, request).await.map_err(|failure| (failure, 0))?;
        let status = self.head.status;
        let (bytes, checksum) = read_body(&mut stream, self.head.body, plan.expect.checksum.is_some())
            .await
            .map_err(|failure| (failure, status))?;
        times.done = clock::now();
        stream.deadline().disarm();
        if self.head.keep_alive && !plan.new_connections {
            self.stream = Some(stream);
        } else {
            finish(stream).await;
        }
        if !plan.expect.takes(status) {
            return Err((Failure::Status, status));
        }
        if plan.expect.length.is_some_and(|length| length != bytes) {
            return Err((Failure::Length, status));
        }
        if plan.expect.checksum.is_some_and(|expected| expected != checksum) {
            return Err((Failure::Content, status));
        }
        Ok(Answer { status, bytes, messages: 0 })
    }

    /// Reads and consumes the head of a final answer into `self.head`.
    async fn read_head(&mut self, stream: &mut Stream, request: &Prepared) -> Result<(), Failure> {
        let mut scanner = HeadScanner::default();
        loop {
            let buffered = stream.buffered();
            let known = !self.bytes.is_empty() && self.method == request.method && buffered.starts_with(&self.bytes);
            if known {
                stream.consume(self.bytes.len());
                return Ok(());
            }
            if let Some(end) = scanner.find_end(buffered) {
                self.bytes.clear();
                let parsed = self.head.parse(&buffered[..end], request.method, &Limits::default());
                parsed.map_err(|_| Failure::Malformed)?;
                if self.head.status < 200 {
                    stream.consume(end);
                    scanner.reset();
                    continue;
                }
                self.bytes.extend_from_slice(&buffered[..end]);
                self.method = request.method;
                stream.consume(end);
                return Ok(());
            }
            if buffered.len() > Limits::default().head_bytes as usize {
                return Err(Failure::Malformed);
            }
            let begun = !buffered.is_empty();
            match stream.fill(Size::Medium).await {
                Ok(1..) => {}
                _ if begun => return Err(ended(stream, Failure::ShortBody)),
                _ => return Err(ended(stream, Failure::Closed)),
            }
        }
    }
}

/// Reads a body to its end: its length and, if wanted, its CRC-32.
async fn read_body(stream: &mut Stream, body: BodyLength, sum: bool) -> Result<(u64, u32), Failure> {
    let mut hasher = crc32fast::Hasher::new();
    let mut bytes = 0u64;
    match body {
        BodyLength::None => {}
        BodyLength::Length(length) => {
            let size = if length >= BULK { Size::Large } else { Size::Medium };
            loop {
                let here = stream.buffered().len().min(usize::try_from(length - bytes).unwrap_or(usize::MAX));
                if sum {
                    hasher.update(&stream.buffered()[..here]);
                }
                stream.consume(here);
                bytes += here as u64;
                if bytes == length {
                    break;
                }
                more(stream, size).await?;
            }
        }
        BodyLength::Chunked => {
            let mut decoder = ChunkedDecoder::new();
            while !decoder.is_done() {
                let buffered = stream.buffered();
                match decoder.next(buffered).map_err(|_| Failure::Malformed)? {
                    Part::Data(count) => {
                        if sum {
                            hasher.update(&buffered[..count]);
                        }
                        stream.consume(count);
                        bytes += count as u64;
                    }
                    Part::Framing(count) | Part::Trailers(count) => stream.consume(count),
                    Part::NeedMore => more(stream, if bytes >= BULK { Size::Large } else { Size::Medium }).await?,
                }
            }
        }
        BodyLength::UntilClose => loop {
            let here = stream.buffered().len();
            if sum {
                hasher.update(stream.buffered());
            }
            stream.consume(here);
            bytes += here as u64;
            match stream.fill(Size::Medium).await {
                Ok(0) if !stream.timed_out() => break,
                Ok(1..) => {}
                _ => return Err(ended(stream, Failure::ShortBody)),
            }
        },
    }
    Ok((bytes, hasher.finalize()))
}

async fn more(stream: &mut Stream, size: Size) -> Result<(), Failure> {
    match stream.fill(size).await {
        Ok(1..) => Ok(()),
        _ => Err(ended(stream, Failure::ShortBody)),
    }
}
