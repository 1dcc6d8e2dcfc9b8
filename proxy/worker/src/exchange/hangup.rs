//! A client that leaves while its upload stands still: nobody reads what it sends, so that no read shows its leaving.

use std::task::{Context, Poll};

use onehop_net::clock;
use onehop_net::deadline::Alarm;

use super::leg::Leg;

/// How often it is looked for.
const LOOK_NS: u64 = 1_000_000_000;

/// Whether an HTTP/1 client has left of whose body so much is to come, where that is known. `alarm` is of no other use any
/// more. (The engine cannot wait for a hang-up alone: what is buffered would end each wait at once.)
pub(super) fn poll(
    cx: &mut Context<'_>,
    alarm: &mut Option<Alarm>,
    client: &Leg<'_>,
    to_come: Option<u64>,
) -> Poll<()> {
    let Leg::Http1(stream) = client else { return Poll::Pending };
    let alarm = alarm.get_or_insert_with(|| Alarm::at(clock::now() + LOOK_NS));
    while alarm.poll(cx).is_ready() {
        if stream.has_left(to_come) {
            return Poll::Ready(());
        }
        alarm.arm(clock::now() + LOOK_NS);
    }
    Poll::Pending
}
