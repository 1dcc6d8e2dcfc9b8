//! The floor of HTTP/2: a relay that takes requests and answers through the `h2` crate and does nothing else with them.
//! Fields go on as the crate has them: nothing is looked up, checked, added or counted, and one connection to the origin
//! serves all. What it costs is what the crate costs on our streams; what a proxy costs beyond it is the proxy's own.
//! (Nor is credit waited for: what an origin sends faster than its client reads is kept.)
//! With `--fields` it adds those that a gateway adds to a request, so that their part can be told from the rest.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::rc::Rc;

use bytes::Bytes;
use clap::Parser;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue};
use onehop_bench::relays;
use onehop_net::h2::Io;
use onehop_net::runtime::{self, Options};
use onehop_net::{Address, Stream, clock};

#[global_allocator]
static ALLOCATOR: onehop_net::Heap = onehop_net::Heap;

/// As a gateway's listener and cluster have them.
const WINDOW: u32 = 1 << 20;
const SEND_BUFFER: usize = 64 * 1024;
const MAX_STREAMS: u32 = 256;
/// How long a peer may take nothing.
const WRITE_IDLE_NS: u64 = 60_000_000_000;
/// How long the origin may take to accept the connection.
const CONNECT_NS: u64 = 5_000_000_000;

/// Relays HTTP/2 requests on one core, without looking at them.
#[derive(Parser)]
struct Arguments {
    /// Where to listen.
    #[arg(long)]
    listen: SocketAddr,
    /// Where to connect to, by HTTP/2 with prior knowledge.
    #[arg(long)]
    to: SocketAddr,
    /// Add to each request the fields that a gateway adds: four that are the same in all, two that are not.
    #[arg(long)]
    fields: bool,
}

type Failure = Box<dyn std::error::Error>;

/// The connection to the origin, made at the first client's arrival.
struct Origin {
    address: Address,
    sender: RefCell<Option<SendRequest<Bytes>>>,
    fields: bool,
    served: Cell<u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    relays::ended("h2-relay", arguments.listen, serve(&arguments))
}

fn serve(arguments: &Arguments) -> std::io::Result<()> {
    let socket = onehop_net::bind(&arguments.listen, true)?;
    println!("{}", std::net::TcpListener::from(socket.try_clone()?).local_addr()?);
    let origin = Rc::new(Origin {
        address: Address::Tcp(arguments.to),
        sender: RefCell::new(None),
        fields: arguments.fields,
        served: Cell::new(0),
    });
    runtime::run(
        &Options::default(),
        |_| {},
        |_| {
            relays::accept("h2-relay", socket, move |client| {
                let origin = origin.clone();
                async move { connection(client, &origin).await }
            })
        },
    )?
}

async fn connection(client: std::os::fd::OwnedFd, origin: &Rc<Origin>) -> Result<(), Failure> {
    let (io, heard) = Io::new(Stream::accepted(client)?, true, WRITE_IDLE_NS);
    let mut builder = h2::server::Builder::new();
    builder.max_concurrent_streams(MAX_STREAMS).initial_window_size(WINDOW).initial_connection_window_size(4 * WINDOW);
    let mut connection = builder.max_send_buffer_size(SEND_BUFFER).handshake::<_, Bytes>(io).await?;
    let sender = origin.sender().await?;
    loop {
        let accepted = poll_fn(|cx| {
            heard.begin_turn();
            connection.poll_accept(cx)
        });
        let Some(accepted) = accepted.await else { return Ok(()) };
        let (mut request, respond) = accepted?;
        if origin.fields {
            origin.add_fields(request.headers_mut());
        }
        let sender = sender.clone();
        runtime::spawn(async move {
            // A stream that breaks is reset as its handles are dropped: the client knows.
            let _ = stream(request, respond, sender).await;
        });
    }
}

impl Origin {
    /// As a gateway adds them: made once where they can be, and what differs in each request kept out of the table.
    fn add_fields(&self, fields: &mut HeaderMap) {
        let number = self.served.replace(self.served.get() + 1);
        for (name, value) in [
            ("x-forwarded-for", "127.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "127.0.0.1"),
            ("via", "2.0 relay"),
        ] {
            fields.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        for (name, value) in [
            ("x-request-id", format!("00000000-0000-4000-8000-{number:012x}")),
            ("traceparent", format!("00-00000000000000000000{number:012x}-{number:016x}-00")),
        ] {
            if let Ok(mut value) = HeaderValue::from_maybe_shared(Bytes::from(value)) {
                // The first leaves its name in the table.
                value.set_sensitive(number > 0);
                fields.append(HeaderName::from_static(name), value);
            }
        }
    }

    async fn sender(&self) -> Result<SendRequest<Bytes>, Failure> {
        let known = self.sender.borrow().clone();
        if let Some(known) = known {
            return Ok(known);
        }
        let stream = Stream::connect(&self.address, clock::now() + CONNECT_NS).await?;
        let (io, _) = Io::new(stream, false, WRITE_IDLE_NS);
        let mut builder = h2::client::Builder::new();
        builder.enable_push(false).initial_window_size(WINDOW).initial_connection_window_size(4 * WINDOW);
        builder.max_send_buffer_size(SEND_BUFFER).initial_max_send_streams(MAX_STREAMS as usize);
        let (sender, connection) = builder.handshake::<_, Bytes>(io).await?;
        runtime::spawn(async move {
            if let Err(error) = connection.await {
                eprintln!("h2-relay: the origin: {error}");
            }
        });
        self.sender.replace(Some(sender.clone()));
        Ok(sender)
    }
}

async fn stream(
    request: http::Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    sender: SendRequest<Bytes>,
) -> Result<(), h2::Error> {
    let (head, body) = request.into_parts();
    let ends = body.is_end_stream();
    let mut sender = sender.ready().await?;
    let (answer, send) = sender.send_request(http::Request::from_parts(head, ()), ends)?;
    if !ends {
        pour(body, send).await?;
    }
    let (head, body) = answer.await?.into_parts();
    let ends = body.is_end_stream();
    let send = respond.send_response(http::Response::from_parts(head, ()), ends)?;
    if ends { Ok(()) } else { pour(body, send).await }
}

async fn pour(mut body: RecvStream, mut send: SendStream<Bytes>) -> Result<(), h2::Error> {
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        let last = body.is_end_stream();
        send.send_data(chunk, last)?;
        if last {
            return Ok(());
        }
    }
    match body.trailers().await? {
        Some(trailers) => send.send_trailers(trailers),
        None => send.send_data(Bytes::new(), true),
    }
}
