//! One HTTP/1.1 connection of the origin.

use std::io;

use onehop_net::deadline::Ends;
use onehop_net::{Size, Stream, clock};
use onehop_wire::http1::{BodyLength, ChunkedDecoder, HeadScanner, Limits, Method, Part, RequestHead};

use super::behaviour::Served;
use super::{body, echo};

/// An echoed body is held whole: at most so much.
pub(super) const MOST_ECHOED: usize = 16 << 20;
const ERROR: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nServer: onehop-load\r\nContent-Length: 0\r\n\r\n";
const BAD: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// The last head and the bytes that it was parsed from: clients repeat theirs, and the same bytes mean the same.
#[derive(Default)]
struct Last {
    bytes: Vec<u8>,
    head: RequestHead,
}

pub(super) async fn serve(stream: &mut Stream, served: &Served) -> io::Result<()> {
    let mut last = Last::default();
    loop {
        stream.deadline().arm(clock::after(clock::now(), echo::IDLE), Ends::Both);
        if !read_head(stream, &mut last).await? {
            return Ok(());
        }
        let mut received = Vec::new();
        read_body(stream, last.head.body, served.behaviour.echo_body.then_some(&mut received)).await?;
        crate::pace::look();
        if let Some(sleeper) = &served.sleeper {
            sleeper.until(clock::after(clock::now(), served.service())).await;
        }
        let bodiless = last.head.method == Method::Head;
        if served.chance(served.behaviour.resets) {
            stream.reset_on_close();
            return Ok(());
        } else if served.chance(served.behaviour.errors) {
            stream.write_all(ERROR).await?;
        } else if let Some(fixed) = &served.fixed {
            stream.write_all(&fixed[usize::from(bodiless)]).await?;
        } else {
            let echoed = served.behaviour.echo_body.then_some(received.as_slice());
            answer(stream, served, echoed, bodiless).await?;
        }
        if !last.head.keep_alive {
            return Ok(());
        }
        crate::pace::look();
    }
}

async fn answer(stream: &Stream, served: &Served, echoed: Option<&[u8]>, bodiless: bool) -> io::Result<()> {
    let bytes = match echoed {
        Some(bytes) => bytes,
        None => &served.filler[..served.size()],
    };
    let chunked = served.behaviour.chunked;
    let mut head = Vec::with_capacity(128);
    body::head(bytes.len(), chunked, &mut head);
    if bodiless {
        return stream.write_all(&head).await;
    }
    let Some((piece, pause)) = served.behaviour.slow else {
        if chunked {
            body::chunks(bytes, &mut head);
            return stream.write_all_vectored(&head, body::LAST_CHUNK).await;
        }
        return stream.write_all_vectored(&head, bytes).await;
    };
    stream.write_all(&head).await?;
    for part in bytes.chunks(piece.max(1)) {
        onehop_net::deadline::sleep_until(clock::after(clock::now(), pause)).await;
        if chunked {
            let mut out = Vec::new();
            body::chunks(part, &mut out);
            stream.write_all(&out).await?;
        } else {
            stream.write_all(part).await?;
        }
    }
    stream.write_all(if chunked { body::LAST_CHUNK } else { b"" }).await
}

/// Reads and consumes a head; false at the client's end.
async fn read_head(stream: &mut Stream, last: &mut Last) -> io::Result<bool> {
    let mut scanner = HeadScanner::default();
    loop {
        let buffered = stream.buffered();
        if !last.bytes.is_empty() && buffered.starts_with(&last.bytes) {
            stream.consume(last.bytes.len());
            return Ok(true);
        }
        if let Some(end) = scanner.find_end(buffered) {
            last.bytes.clear();
            if let Err(reject) = last.head.parse(&buffered[..end], &Limits::default()) {
                stream.write_all(BAD).await?;
                return Err(io::Error::new(io::ErrorKind::InvalidData, reject.reason()));
            }
            last.bytes.extend_from_slice(&buffered[..end]);
            stream.consume(end);
            return Ok(true);
        }
        if buffered.len() > Limits::default().head_bytes as usize {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if stream.fill(Size::Medium).await? == 0 {
            return Ok(false);
        }
    }
}

/// Reads a body to its end, keeping it where it is to be echoed.
async fn read_body(stream: &mut Stream, length: BodyLength, mut kept: Option<&mut Vec<u8>>) -> io::Result<()> {
    let mut keep = |bytes: &[u8]| match kept.as_mut() {
        Some(kept) if kept.len() + bytes.len() > MOST_ECHOED => Err(io::Error::from(io::ErrorKind::InvalidData)),
        Some(kept) => {
            kept.extend_from_slice(bytes);
            Ok(())
        }
        None => Ok(()),
    };
    match length {
        BodyLength::None | BodyLength::UntilClose => {}
        BodyLength::Length(mut left) => {
            while left > 0 {
                let here = stream.buffered().len().min(usize::try_from(left).unwrap_or(usize::MAX));
                keep(&stream.buffered()[..here])?;
                stream.consume(here);
                left -= here as u64;
                if left > 0 && stream.fill(Size::Medium).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        BodyLength::Chunked => {
            let mut decoder = ChunkedDecoder::new();
            while !decoder.is_done() {
                match decoder.next(stream.buffered()) {
                    Ok(Part::Data(count)) => {
                        keep(&stream.buffered()[..count])?;
                        stream.consume(count);
                    }
                    Ok(Part::Framing(count) | Part::Trailers(count)) => stream.consume(count),
                    Ok(Part::NeedMore) if stream.fill(Size::Medium).await? > 0 => {}
                    Ok(Part::NeedMore) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(reject) => return Err(io::Error::new(io::ErrorKind::InvalidData, reject.reason())),
                }
            }
        }
    }
    Ok(())
}
