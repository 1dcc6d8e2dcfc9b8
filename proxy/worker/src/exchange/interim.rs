//! Interim responses (1xx) on their way to the client.

use onehop_meter::names::Reason;
use onehop_net::clock;
use onehop_net::deadline::Ends;
use onehop_wire::http1::{Version, encode_response};

use super::attempt::{Attempt, Failure};
use super::body::Framing;
use super::leg::Leg;
use super::response::Response;
use super::tape::Tape;
use crate::fault::{Fault, Side, Step};
use crate::http1::forward;
use crate::http2::message;
use crate::upstream::Lease;

impl Attempt<'_> {
    /// Passes an interim response on to clients that know them.
    pub(super) async fn pass_interim(
        &self,
        client: &mut Leg<'_>,
        lease: &mut Lease,
        response: &mut Response,
    ) -> Result<(), Failure> {
        response.continued |= response.head.status == 100;
        // HTTP/1.0 knows no interim responses (RFC 9110 15.2); 100 goes only to who asked for it.
        let expected = self.request.head.expect_continue && !self.tape().is_some_and(Tape::has_begun);
        let wanted = response.head.status != 100 || expected;
        let (head, bytes) = (&response.head, &response.bytes);
        let framed = forward::Framed { close: false, framing: Framing::Verbatim };
        let left = |_| Failure::new(Fault::new(Side::Downstream, Step::Wait, Reason::ClientLeft));
        match client {
            Leg::Http1(stream) if wanted && self.request.head.version != Version::Http10 => {
                let mut out = self.shard.take_head();
                forward::response(self.request.head, head, bytes, &framed, Default::default(), |edits| {
                    encode_response(&mut out, head, bytes, edits);
                });
                stream.deadline().arm(clock::after(clock::now(), self.body_timeout()), Ends::Both);
                let written = stream.write_all(&out).await;
                stream.deadline().disarm();
                self.shard.give_head(out);
                written.map_err(|_| left(()))?;
            }
            Leg::Http2(channel) if wanted => {
                let interim = forward::response(self.request.head, head, bytes, &framed, Default::default(), |edits| {
                    message::to_client(head, bytes, edits)
                });
                channel.send_interim(interim).ok_or_else(|| left(()))?;
            }
            _ => {}
        }
        lease.conn.leg().consume(response.end);
        response.next();
        Ok(())
    }
}
