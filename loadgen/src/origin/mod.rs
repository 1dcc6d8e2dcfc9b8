//! An origin on the proxy's own runtime: it answers as it is told to, and is meant never to be the bottleneck.

pub mod behaviour;
mod body;
mod echo;
mod http;
mod http2;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use onehop_net::deadline::{Ends, sleep_until};
use onehop_net::listener::Listener;
use onehop_net::runtime::{self, Options};
use onehop_net::{Stream, clock};

use crate::http2::PREFACE;
pub use behaviour::{Behaviour, Http2Behaviour, Service, Size};

/// Pause after the descriptors ran out.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);

/// An origin to be.
#[derive(Clone, Debug)]
pub struct Origin {
    /// Where it listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// What it answers.
    pub behaviour: Behaviour,
    /// How long a core polls before it sleeps.
    pub busy_poll: Duration,
}

/// A bound origin.
pub struct Bound {
    pub(crate) origin: Origin,
    pub(crate) sockets: Vec<OwnedFd>,
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
            sockets.push(onehop_net::bind(&address, false)?);
        }
        Ok(Bound { origin: self, sockets, address })
    }
}

impl Bound {
    /// Serves on threads of its own until the process ends, each pinned where `cpus` says so.
    ///
    /// # Errors
    /// When a core cannot be built or pinned.
    pub fn serve(self, cpus: &[usize]) -> io::Result<()> {
        let threads: Vec<_> = self
            .sockets
            .into_iter()
            .enumerate()
            .map(|(number, socket)| {
                let origin = self.origin.clone();
                let cpu = if cpus.is_empty() { None } else { Some(cpus[number % cpus.len()]) };
                std::thread::spawn(move || {
                    let options = Options { cpu, busy_poll: origin.busy_poll, ..Options::default() };
                    runtime::run(
                        &options,
                        |_| {},
                        |_| async move {
                            let served = Rc::new(behaviour::Served::new(origin.behaviour, number)?);
                            accept(socket, served).await
                        },
                    )?
                })
            })
            .collect();
        for thread in threads {
            thread.join().map_err(|_| io::Error::other("a core panicked"))??;
        }
        Ok(())
    }
}

/// Serves on the calling core, beside whatever else runs there.
///
/// # Errors
/// When no descriptor is left.
pub fn spawn(socket: OwnedFd, origin: &Origin, number: usize) -> io::Result<()> {
    let served = Rc::new(behaviour::Served::new(origin.behaviour.clone(), number)?);
    runtime::spawn(async move {
        if let Err(error) = accept(socket, served).await {
            eprintln!("onehop-load: the origin ended: {error}");
        }
    });
    Ok(())
}

async fn accept(socket: OwnedFd, served: Rc<behaviour::Served>) -> io::Result<()> {
    let listener = Listener::new(socket)?;
    loop {
        listener.ready().await?;
        loop {
            match listener.accept() {
                Ok((client, _)) => {
                    let served = served.clone();
                    runtime::spawn(async move {
                        // A connection that breaks is at its end: the client knows.
                        let _ = connection(client, served).await;
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

async fn connection(client: OwnedFd, served: Rc<behaviour::Served>) -> io::Result<()> {
    let mut stream = Stream::accepted(client)?;
    if served.behaviour.echo {
        return echo::serve(&mut stream).await;
    }
    if begins_http2(&mut stream).await? {
        return http2::serve(stream, served).await;
    }
    http::serve(&mut stream, &served).await
}

/// Whether a client begins with the preface of HTTP/2, which no request of HTTP/1 begins with.
async fn begins_http2(stream: &mut Stream) -> io::Result<bool> {
    stream.deadline().arm(clock::after(clock::now(), echo::IDLE), Ends::Both);
    loop {
        let begun = stream.buffered();
        let compared = begun.len().min(PREFACE.len());
        if begun[..compared] != PREFACE[..compared] {
            return Ok(false);
        }
        if compared == PREFACE.len() {
            stream.consume(PREFACE.len());
            return Ok(true);
        }
        if stream.fill(onehop_net::Size::Medium).await? == 0 {
            return Ok(false);
        }
    }
}
