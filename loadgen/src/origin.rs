//! An origin on the proxy's own runtime: it answers every request with the same bytes, at once or after a delay.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use onehop_net::deadline::{Ends, sleep_until};
use onehop_net::listener::Listener;
use onehop_net::runtime::{self, Options};
use onehop_net::{Size, Stream, clock};
use onehop_wire::http1::{BodyLength, ChunkedDecoder, HeadScanner, Limits, Method, Part, RequestHead};

/// A client that sends nothing for so long is let go.
const IDLE: Duration = Duration::from_secs(600);
/// Pause after the descriptors ran out.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);

/// What the origin answers, and where.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Bytes of each response body.
    pub size: usize,
    /// Waits so long before each answer; a wheel of 8 ms rounds it up.
    pub delay: Duration,
    /// Sends the body in chunks of 16 KiB instead of with a length.
    pub chunked: bool,
    /// How long a core polls before it sleeps.
    pub busy_poll: Duration,
}

/// A bound origin.
pub struct Bound {
    origin: Origin,
    sockets: Vec<OwnedFd>,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Origin {
    /// Binds one socket per thread.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(self, threads: usize) -> io::Result<Bound> {
        let first = onehop_net::bind(&self.listen, true)?;
        let address = std::net::TcpListener::from(first.try_clone()?).local_addr()?;
        let mut sockets = vec![first];
        for _ in 1..threads.max(1) {
            sockets.push(onehop_net::bind(&address, true)?);
        }
        Ok(Bound { origin: self, sockets, address })
    }
}

impl Bound {
    /// Serves until the process ends.
    ///
    /// # Errors
    /// When a core cannot be built.
    pub fn serve(self) -> io::Result<()> {
        let answers = [answer(&self.origin, true), answer(&self.origin, false)];
        let threads: Vec<_> = self
            .sockets
            .into_iter()
            .map(|socket| {
                let (origin, answers) = (self.origin.clone(), answers.clone());
                std::thread::spawn(move || {
                    let options = Options { busy_poll: origin.busy_poll, ..Options::default() };
                    runtime::run(&options, |_| {}, |_| accept(socket, origin.delay, answers))?
                })
            })
            .collect();
        for thread in threads {
            thread.join().map_err(|_| io::Error::other("a core panicked"))??;
        }
        Ok(())
    }
}

/// The whole response, with its body or, for HEAD, without it.
fn answer(origin: &Origin, body: bool) -> Vec<u8> {
    let mut out = b"HTTP/1.1 200 OK\r\nServer: onehop-load\r\nContent-Type: text/plain\r\n".to_vec();
    let bytes = vec![b'x'; origin.size];
    if origin.chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        for chunk in bytes.chunks(16 * 1024).filter(|_| body) {
            out.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            out.extend_from_slice(chunk);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(if body { b"0\r\n\r\n" } else { b"" });
    } else {
        out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", bytes.len()).as_bytes());
        out.extend_from_slice(if body { &bytes } else { b"" });
    }
    out
}

async fn accept(socket: OwnedFd, delay: Duration, answers: [Vec<u8>; 2]) -> io::Result<()> {
    let listener = Listener::new(socket)?;
    let answers = Rc::new(answers);
    loop {
        listener.ready().await?;
        loop {
            match listener.accept() {
                Ok((client, _)) => {
                    let answers = answers.clone();
                    runtime::spawn(async move {
                        // A connection that breaks is at its end: the client knows.
                        let _ = serve(client, delay, &answers).await;
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                // Descriptors ran out, or the client left: the queue waits.
                Err(_) => {
                    sleep_until(clock::after(clock::now(), EXHAUSTED_PAUSE)).await;
                    break;
                }
            }
        }
    }
}

async fn serve(client: OwnedFd, delay: Duration, answers: &[Vec<u8>; 2]) -> io::Result<()> {
    let mut stream = Stream::new(client)?;
    stream.set_nodelay();
    let mut head = RequestHead::default();
    loop {
        stream.deadline().arm(clock::after(clock::now(), IDLE), Ends::Both);
        let Some(bytes) = read_head(&mut stream).await? else {
            return Ok(());
        };
        if let Err(reject) = head.parse(&bytes, &Limits::default()) {
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, reject.reason()));
        }
        discard(&mut stream, head.body).await?;
        if !delay.is_zero() {
            sleep_until(clock::after(clock::now(), delay)).await;
        }
        stream.write_all(&answers[usize::from(head.method == Method::Head)]).await?;
        if !head.keep_alive {
            return Ok(());
        }
    }
}

async fn read_head(stream: &mut Stream) -> io::Result<Option<Vec<u8>>> {
    let mut scanner = HeadScanner::default();
    loop {
        if let Some(end) = scanner.find_end(stream.buffered()) {
            let bytes = stream.buffered()[..end].to_vec();
            stream.consume(end);
            return Ok(Some(bytes));
        }
        if stream.buffered().len() > Limits::default().head_bytes {
            return Err(io::ErrorKind::InvalidData.into());
        }
        if stream.fill(Size::Medium).await? == 0 {
            return Ok(None);
        }
    }
}

async fn discard(stream: &mut Stream, body: BodyLength) -> io::Result<()> {
    match body {
        BodyLength::None | BodyLength::UntilClose => {}
        BodyLength::Length(mut left) => {
            while left > 0 {
                let here = stream.buffered().len().min(usize::try_from(left).unwrap_or(usize::MAX));
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
                    Ok(Part::Framing(count) | Part::Data(count) | Part::Trailers(count)) => stream.consume(count),
                    Ok(Part::NeedMore) if stream.fill(Size::Medium).await? > 0 => {}
                    Ok(Part::NeedMore) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Err(reject) => return Err(io::Error::new(io::ErrorKind::InvalidData, reject.reason())),
                }
            }
        }
    }
    Ok(())
}
