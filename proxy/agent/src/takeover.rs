//! Handing the listening sockets to a successor. The sockets stay open throughout, so nothing that waits in their
//! queues is lost; the old process drains once the new one says that it serves.

use std::io::{self, Read, Write};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The successor serves: the old process may drain.
const READY: u8 = b'R';
/// The old process has let go of the admin address and of the takeover path.
const GONE: u8 = b'G';
/// Each step of the exchange.
const STEP: Duration = Duration::from_secs(30);

/// What a predecessor passed on.
pub struct Inherited {
    /// Listening sockets with the names of their listeners.
    pub sockets: Vec<(String, OwnedFd)>,
    predecessor: UnixStream,
}

/// Asks the running instance for its sockets.
///
/// # Errors
/// When nobody answers at that path, or not in time.
pub fn inherit(path: &Path) -> io::Result<Inherited> {
    let predecessor = UnixStream::connect(path)?;
    predecessor.set_read_timeout(Some(STEP))?;
    predecessor.set_write_timeout(Some(STEP))?;
    let sockets = onehop_net::receive_descriptors(&predecessor)?;
    Ok(Inherited { sockets, predecessor })
}

impl Inherited {
    /// Tells the predecessor that this process serves, and waits until it has let go.
    ///
    /// # Errors
    /// When it is gone already.
    pub fn serving(mut self) -> io::Result<()> {
        self.predecessor.write_all(&[READY])?;
        let mut answer = [0];
        self.predecessor.read_exact(&mut answer)?;
        if answer == [GONE] { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }
}

/// Passes the sockets to a successor and waits until it serves. The answer is sent by [`gone`].
///
/// # Errors
/// When the successor leaves before it serves: then nothing has changed.
pub fn hand_over(successor: &UnixStream, sockets: &[(String, RawFd)]) -> io::Result<()> {
    successor.set_nonblocking(false)?;
    successor.set_read_timeout(Some(STEP))?;
    successor.set_write_timeout(Some(STEP))?;
    onehop_net::send_descriptors(successor, sockets)?;
    let mut word = [0];
    (&mut &*successor).read_exact(&mut word)?;
    if word == [READY] { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Tells the successor that this process has let go.
pub fn gone(successor: &UnixStream) {
    // A successor that has left meanwhile needs no answer.
    let _ = (&mut &*successor).write_all(&[GONE]);
}
