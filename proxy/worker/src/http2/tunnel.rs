//! A tunnel between an HTTP/2 stream and a connection: WebSocket by extended CONNECT (RFC 8441), and CONNECT.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use onehop_net::deadline::Ends;
use onehop_net::{Stream, clock};
use onehop_wire::http1::{BodyLength, Limits};

use super::Channel;
use crate::exchange::Leg;
use crate::exchange::body::{Body, Framing};
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
pub async fn relay(channel: &mut Channel, upstream: &mut Stream, limits: Limits, idle: Duration) -> (u64, u64) {
    let mut up = Body::of_frames(Reader::http2(false, limits), Framing::Verbatim, Vec::new(), limits, None);
    let mut down = Pour::new(Reader::http1(BodyLength::UntilClose, limits), false, limits, None);
    let (mut up_open, mut down_open) = (true, true);
    let mut moved = u64::MAX;
    let broken = poll_fn(|cx| {
        if up_open {
            match up.poll(cx, &mut Leg::Http2(channel), upstream) {
                Poll::Ready(Ok(())) => {
                    up_open = false;
                    // One that is gone shows on the way down.
                    let _ = upstream.shutdown_write();
                }
                Poll::Ready(Err(_)) => return Poll::Ready(true),
                Poll::Pending => {}
            }
        }
        if down_open {
            match down.poll(cx, &mut Leg::Http1(upstream), channel) {
                Poll::Ready(Ok(())) => down_open = false,
                Poll::Ready(Err(_)) => return Poll::Ready(true),
                Poll::Pending if channel.poll_left(cx).is_ready() => return Poll::Ready(true),
                Poll::Pending => {}
            }
        }
        if !up_open && !down_open {
            return Poll::Ready(false);
        }
        let bytes = up.bytes() + down.bytes();
        if moved != bytes {
            moved = bytes;
            let due = clock::after(clock::now(), idle);
            upstream.deadline().arm(due, Ends::Both);
        }
        Poll::Pending
    })
    .await;
    upstream.deadline().disarm();
    if broken {
        upstream.reset_on_close();
        channel.reset(h2::Reason::CONNECT_ERROR);
    }
    (up.bytes(), down.bytes())
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
