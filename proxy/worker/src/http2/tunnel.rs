//! A tunnel with an HTTP/2 stream at one end or both: WebSocket by extended CONNECT (RFC 8441), and CONNECT.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::Reason as Code;
use onehop_net::clock;
use onehop_net::deadline::Alarm;
use onehop_wire::http1::{BodyLength, Limits};

use crate::exchange::Leg;
use crate::exchange::body::{Body, Broken, Framing};
use crate::exchange::flow::Flow;
use crate::exchange::pour::Pour;
use crate::exchange::reader::Reader;

/// The `Sec-WebSocket-Key` of the handshake that stands for an extended CONNECT: sixteen bytes in base64. It is no
/// secret, only unlikely to be repeated (RFC 6455 4.1).
pub fn handshake_key(high: u64, low: u64) -> [u8; 24] {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bits = (u128::from(high) << 64) | u128::from(low);
    let mut key = [b'='; 24];
    // The last digit holds two bits, and two equals signs fill up.
    for (index, digit) in key.iter_mut().take(22).enumerate() {
        *digit = if index < 21 { DIGITS[(bits >> 122) as usize] } else { DIGITS[((bits >> 126) << 4) as usize] };
        bits <<= 6;
    }
    key
}

/// Relays both ways until both have ended, one has broken, or nothing has moved for `idle`. Returns the payload up and
/// down.
pub async fn relay(client: &mut Leg<'_>, upstream: &mut Leg<'_>, limits: Limits, idle: Duration) -> (u64, u64) {
    let mut up = direction(client, upstream, limits);
    let mut down = direction(upstream, client, limits);
    let (mut up_open, mut down_open) = (true, true);
    let mut moved = u64::MAX;
    // Of its own: a leg's deadline wakes only who waits for that leg, and here both ways may stand at the other one.
    let alarm = Alarm::new();
    let end = poll_fn(|cx| {
        if up_open {
            match up.poll(cx, client, upstream) {
                Poll::Ready(Ok(())) => {
                    up_open = false;
                    end(upstream);
                }
                Poll::Ready(Err(broken)) => return Poll::Ready(End::Broken(code_of(broken), Code::CONNECT_ERROR)),
                Poll::Pending => {}
            }
        }
        if down_open {
            match down.poll(cx, upstream, client) {
                Poll::Ready(Ok(())) => {
                    down_open = false;
                    end(client);
                }
                Poll::Ready(Err(broken)) => return Poll::Ready(End::Broken(Code::CONNECT_ERROR, code_of(broken))),
                Poll::Pending if left(cx, client) || left(cx, upstream) => {
                    return Poll::Ready(End::Broken(Code::CONNECT_ERROR, Code::CONNECT_ERROR));
                }
                Poll::Pending => {}
            }
        }
        if !up_open && !down_open {
            return Poll::Ready(End::Closed);
        }
        let bytes = up.bytes() + up.sent() + down.bytes() + down.sent();
        if moved != bytes {
            moved = bytes;
            alarm.arm(clock::after(clock::now(), idle));
        }
        alarm.poll(cx).map(|()| End::Idle)
    })
    .await;
    match end {
        End::Closed => {}
        End::Idle => {
            leave(client);
            leave(upstream);
        }
        End::Broken(of_client, of_upstream) => {
            reset(client, of_client);
            reset(upstream, of_upstream);
        }
    }
    (up.bytes(), down.bytes())
}

/// How a tunnel ended.
#[derive(Clone, Copy)]
enum End {
    Closed,
    Idle,
    /// What the client and the upstream are told.
    Broken(Code, Code),
}

fn direction(from: &Leg<'_>, to: &Leg<'_>, limits: Limits) -> Flow {
    let reader = match from {
        Leg::Http2(_) => Reader::tunnel(limits),
        _ => Reader::http1(BodyLength::UntilClose, limits),
    };
    match (from, to) {
        (_, Leg::Http2(_)) => Flow::Frames(Pour::new(reader, false, limits, None)),
        (Leg::Http2(_), _) => Flow::Wire(Body::of_frames(reader, Framing::Verbatim, Vec::new(), limits, None)),
        _ => Flow::Wire(Body::new(BodyLength::UntilClose, Framing::Verbatim, Vec::new(), limits, None)),
    }
}

/// One direction is over; on HTTP/2 its last frame has said so.
fn end(leg: &Leg<'_>) {
    if let Leg::Http1(stream) = leg {
        // One that is gone shows on the other way.
        let _ = stream.shutdown_write();
    }
}

/// Whether the peer of an HTTP/2 stream has given it up.
fn left(cx: &mut Context<'_>, leg: &mut Leg<'_>) -> bool {
    match leg {
        Leg::Http2(channel) => channel.poll_left(cx).is_ready(),
        _ => false,
    }
}

/// What the side is told from which something came that broke.
fn code_of(broken: Broken) -> Code {
    if matches!(broken, Broken::Framing(_)) { Code::PROTOCOL_ERROR } else { Code::CONNECT_ERROR }
}

/// A tunnel that nobody uses: of an HTTP/1 connection its close says enough.
fn leave(leg: &mut Leg<'_>) {
    if let Leg::Http2(channel) = leg {
        channel.reset(Code::CANCEL);
    }
}

fn reset(leg: &mut Leg<'_>, code: Code) {
    match leg {
        Leg::Http1(stream) => stream.reset_on_close(),
        Leg::Http2(channel) => channel.reset(code),
        Leg::Nobody => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sixteen_bytes_in_base64() {
        assert_eq!(&handshake_key(0, 0), b"AAAAAAAAAAAAAAAAAAAAAA==");
        assert_eq!(&handshake_key(u64::MAX, u64::MAX), b"/////////////////////w==");
    }
}
