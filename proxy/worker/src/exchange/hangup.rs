//! A client that leaves where no read shows it: while its upload stands still, since nobody reads what it sends, and while
//! its answer comes, since nothing is due from it.

use std::task::{Context, Poll};

use onehop_net::deadline::Alarm;
use onehop_net::{Size, clock};

use super::leg::Leg;

/// One that has ended its side may still read its answer: so long the upstream may be silent then.
pub(super) const SILENT_NS: u64 = 1_000_000_000;
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

/// Whether a client has left that is being answered; pending and true: it has ended its side, and may yet read. The next
/// request's read of an HTTP/1 client is posted for it, as it was while the answer's head was waited for.
pub(super) fn poll_answered(cx: &mut Context<'_>, client: &mut Leg<'_>) -> (Poll<()>, bool) {
    let stream = match client {
        Leg::Http1(stream) => stream,
        Leg::Http2(channel) => return (channel.poll_left(cx), false),
        Leg::Nobody => return (Poll::Pending, false),
    };
    if stream.buffered().is_empty() && stream.poll_fill(cx, Size::Small).is_pending() {
        return (Poll::Pending, false);
    }
    if stream.failed() { (Poll::Ready(()), false) } else { (Poll::Pending, stream.ended()) }
}
