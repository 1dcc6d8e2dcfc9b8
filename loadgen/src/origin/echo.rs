//! Sends back what it gets, byte for byte, until the client ends.

use std::io;
use std::time::Duration;

use onehop_net::deadline::Ends;
use onehop_net::{Size, Stream, clock};

/// A client that sends nothing for so long is let go.
pub(super) const IDLE: Duration = Duration::from_secs(600);

pub(super) async fn serve(stream: &mut Stream) -> io::Result<()> {
    let mut size = Size::Medium;
    loop {
        stream.deadline().arm(clock::after(clock::now(), IDLE), Ends::Both);
        let count = stream.fill(size).await?;
        if count == 0 {
            return stream.shutdown_write();
        }
        if count >= Size::Medium.bytes() {
            size = Size::Large;
        }
        crate::pace::look();
        stream.write_all(stream.buffered()).await?;
        crate::pace::look();
        stream.consume(stream.buffered().len());
        stream.release();
    }
}
