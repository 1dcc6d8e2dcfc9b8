//! HTTP/2 by the `h2` crate: clients, and origins that play a script on each stream.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::RecvStream;
use h2::client::SendRequest;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};

/// Runs a test's client side.
pub fn run<F: Future>(test: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async { tokio::time::timeout(std::time::Duration::from_secs(30), test).await.expect("in time") })
}

/// An origin; every connection and stream is a task.
pub struct Http2Origin {
    address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

/// A stream at the origin.
pub struct Incoming {
    /// The request; its body is to be read.
    pub request: Request<RecvStream>,
    /// How it is answered.
    pub respond: SendResponse<Bytes>,
    /// The number of its connection, from 0.
    pub connection: usize,
    /// The number of the stream on it, from 0.
    pub number: usize,
}

impl Http2Origin {
    /// Plays a script on each stream.
    pub fn start<F, S>(script: F) -> Http2Origin
    where
        F: Fn(Incoming) -> S + Send + Sync + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        Http2Origin::start_with(h2::server::Builder::new(), script)
    }

    /// Plays it where extended CONNECT is allowed (RFC 8441 3).
    pub fn with_tunnels<F, S>(script: F) -> Http2Origin
    where
        F: Fn(Incoming) -> S + Send + Sync + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let mut builder = h2::server::Builder::new();
        builder.enable_connect_protocol();
        Http2Origin::start_with(builder, script)
    }

    /// Plays it with other settings.
    pub fn start_with<F, S>(builder: h2::server::Builder, script: F) -> Http2Origin
    where
        F: Fn(Incoming) -> S + Send + Sync + 'static,
        S: Future<Output = ()> + Send + 'static,
    {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        listener.set_nonblocking(true).expect("a socket option");
        let address = listener.local_addr().expect("bound");
        let accepted = Arc::new(AtomicUsize::new(0));
        let (count, script) = (accepted.clone(), Arc::new(script));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::from_std(listener).expect("registers");
                while let Ok((stream, _)) = listener.accept().await {
                    let connection = count.fetch_add(1, Ordering::SeqCst);
                    let (builder, script) = (builder.clone(), script.clone());
                    tokio::spawn(async move {
                        let Ok(mut accepting) = builder.handshake::<_, Bytes>(stream).await else { return };
                        let mut number = 0;
                        while let Some(Ok((request, respond))) = accepting.accept().await {
                            tokio::spawn(script(Incoming { request, respond, connection, number }));
                            number += 1;
                        }
                    });
                }
            });
        });
        Http2Origin { address, accepted }
    }

    /// Answers with method, path, fields and the body's length; the body's last bytes are the request's trailers.
    pub fn mirror() -> Http2Origin {
        Http2Origin::start(|mut incoming| async move {
            let (parts, mut body) = incoming.request.into_parts();
            let Ok((bytes, trailers)) = read(&mut body).await else { return };
            let mut text = format!("{} {}\n", parts.method, parts.uri);
            for (name, value) in &parts.headers {
                text.push_str(&format!("{name}: {}\n", value.to_str().unwrap_or("?")));
            }
            text.push_str(&format!("body: {}\n", bytes.len()));
            for (name, value) in trailers.iter().flatten() {
                text.push_str(&format!("trailer {name}: {}\n", value.to_str().unwrap_or("?")));
            }
            let Ok(mut send) = incoming.respond.send_response(Response::new(()), false) else { return };
            let _ = send.send_data(Bytes::from(text), true);
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// A gateway's configuration that sends everything here.
    pub fn config(&self, listener: &str, route: &str, cluster: &str) -> String {
        format!(
            "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n{listener}\n[[route]]\ncluster = \"origin\"\n{route}\n[[cluster]]\nname = \"origin\"\nprotocol = \"http2\"\nendpoints = [\"{}\"]\n{cluster}\n",
            self.address
        )
    }
}

/// Reads a body to its end, giving credit.
pub async fn read(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(chunk) = body.data().await {
        let chunk = chunk?;
        body.flow_control().release_capacity(chunk.len())?;
        bytes.extend_from_slice(&chunk);
    }
    Ok((bytes, body.trailers().await?))
}

/// A connection to an HTTP/2 listener.
pub async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let stream = tokio::net::TcpStream::connect(address).await.expect("connects");
    stream.set_nodelay(true).expect("a socket option");
    // Streams that the test leaves unread must not use up the window of all.
    let mut builder = h2::client::Builder::new();
    builder.initial_connection_window_size(1 << 24);
    let (sender, connection) = builder.handshake(stream).await.expect("shakes hands");
    tokio::spawn(connection);
    sender
}

/// A request for a tunnel: CONNECT to an authority, or an extended one for a protocol (RFC 8441) to a URL.
pub fn connect_to(uri: &str, protocol: Option<&'static str>) -> Request<()> {
    let mut request = Request::builder().method("CONNECT").uri(uri).body(()).expect("well-formed");
    if let Some(protocol) = protocol {
        request.extensions_mut().insert(h2::ext::Protocol::from_static(protocol));
    }
    request
}

/// Asks for a tunnel, once the peer's SETTINGS have come: the answer, and what goes in if it is opened.
pub async fn open_tunnel(address: SocketAddr, request: Request<()>) -> (Response<RecvStream>, h2::SendStream<Bytes>) {
    let mut sender = connect(address).await.ready().await.expect("ready");
    while !sender.is_extended_connect_protocol_enabled() {
        tokio::task::yield_now().await;
    }
    let (answer, send) = sender.send_request(request, false).expect("sends");
    (answer.await.expect("answers"), send)
}

/// A whole answer.
pub struct Answer {
    /// Its head.
    pub head: http::response::Parts,
    /// Its body.
    pub body: Vec<u8>,
    /// Its trailers.
    pub trailers: HeaderMap,
}

impl Answer {
    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A field's value.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// Asks and reads the answer to its end.
pub async fn ask(sender: &SendRequest<Bytes>, request: Request<()>, body: Vec<u8>) -> Result<Answer, h2::Error> {
    ask_with(sender, request, body, None).await
}

/// [`ask`] with trailers.
pub async fn ask_with(
    sender: &SendRequest<Bytes>,
    request: Request<()>,
    body: Vec<u8>,
    trailers: Option<HeaderMap>,
) -> Result<Answer, h2::Error> {
    let mut sender = sender.clone().ready().await?;
    let ends = body.is_empty() && trailers.is_none();
    let (answer, mut send) = sender.send_request(request, ends)?;
    if !body.is_empty() {
        send.send_data(Bytes::from(body), trailers.is_none())?;
    }
    if let Some(trailers) = trailers {
        send.send_trailers(trailers)?;
    }
    let (head, mut recv) = answer.await?.into_parts();
    let (body, trailers) = read(&mut recv).await?;
    Ok(Answer { head, body, trailers: trailers.unwrap_or_default() })
}

/// A GET.
pub fn get(path: &str) -> Request<()> {
    Request::get(format!("http://test{path}")).body(()).expect("well-formed")
}

/// A POST.
pub fn post(path: &str) -> Request<()> {
    Request::post(format!("http://test{path}")).body(()).expect("well-formed")
}
