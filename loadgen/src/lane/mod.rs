//! A lane carries one request at a time to the target and its answer back. The enum is the seam between pacing and
//! protocols: a protocol whose connections carry several requests at once makes each of its streams a lane.

mod echo;
mod http1;
mod http2;

use std::rc::Rc;

use onehop_net::clock::{self, Nanos};
use onehop_net::deadline::Ends;
use onehop_net::{Address, Size, Stream};

use crate::failure::{Code, Failure};
use crate::plan::{Plan, Protocol};
use crate::request::Prepared;

/// After an answer that ends its connection, the peer's close is waited for at most so long, outside the latency: who
/// closes first keeps the port blocked for a minute.
const CLOSE_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// When what happened to one request, in the clock's nanoseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Times {
    /// The first byte was about to be written; with a new connection per request, the connection was begun.
    pub sent: Nanos,
    /// The last byte of the answer was here.
    pub done: Nanos,
    /// What connecting took, if a connection was made.
    pub connect_ns: Option<u64>,
    /// What the TLS handshake took, if there was one.
    pub handshake_ns: Option<u64>,
    /// It resumed a session.
    pub resumed: bool,
    /// It waited for a place among the streams that the target allows.
    pub waited: bool,
    /// What the target said beside the status.
    pub code: Code,
}

/// A good answer.
#[derive(Clone, Copy, Debug)]
pub struct Answer {
    /// Its status; zero where the protocol has none.
    pub status: u16,
    /// Payload bytes.
    pub bytes: u64,
    /// Messages of gRPC.
    pub messages: u64,
}

/// One lane.
pub enum Lane {
    /// A connection of HTTP/1.1.
    Http1(http1::Connection),
    /// A stream of a connection of HTTP/2.
    Http2(http2::Lane),
    /// A connection whose peer sends back what it gets.
    Echo(echo::Connection),
}

impl Lane {
    /// A thread's lanes, unconnected: as many as its connections have streams. Neighbours are on different connections.
    pub fn all(plan: &Plan, connections: usize) -> Vec<Lane> {
        let groups: Vec<Rc<http2::Group>> = match plan.protocol {
            Protocol::Http2 => (0..connections).map(|_| Rc::default()).collect(),
            _ => Vec::new(),
        };
        let lane = |index: usize| match plan.protocol {
            Protocol::Http1 => Lane::Http1(http1::Connection::default()),
            Protocol::Http2 => Lane::Http2(http2::Lane::new(groups[index % connections].clone(), index / connections)),
            Protocol::Echo => Lane::Echo(echo::Connection::default()),
        };
        (0..connections * plan.http2.streams).map(lane).collect()
    }

    /// Whether it connects before the run begins: of lanes that share a connection, one does.
    pub fn connects(&self) -> bool {
        match self {
            Lane::Http2(lane) => lane.connects(),
            Lane::Http1(_) | Lane::Echo(_) => true,
        }
    }

    /// Connects, unless it is connected.
    pub async fn connect(&mut self, plan: &Plan, times: &mut Times) -> Result<(), Failure> {
        match self {
            Lane::Http1(connection) => connection.connect(plan, times).await,
            Lane::Http2(lane) => lane.connect(plan, times).await,
            Lane::Echo(connection) => connection.connect(plan, times).await,
        }
    }

    /// Sends what goes at once of a request on a connection that is there, in the caller's own turn: how many bytes.
    /// `None` where the lane must do it itself, in [`Lane::exchange`].
    pub fn begin(&mut self, plan: &Plan, request: &Prepared, times: &mut Times) -> Option<usize> {
        let stream = match self {
            Lane::Http1(connection) => connection.stream()?,
            Lane::Http2(lane) => return lane.begin(plan, request, times).then_some(0),
            Lane::Echo(connection) => connection.stream()?,
        };
        times.sent = clock::now();
        arm(stream, plan, times.sent);
        // What kept it from being sent shows again when the lane sends the rest.
        Some(stream.try_write_parts(&request.head, &request.body).unwrap_or(0))
    }

    /// Sends a request, of which `begun` bytes are on their way, and takes its answer, connecting first where that is
    /// needed. `times.sent` is stamped unless it is set.
    pub async fn exchange(
        &mut self,
        plan: &Plan,
        request: &Prepared,
        times: &mut Times,
        begun: Option<usize>,
    ) -> Result<Answer, (Failure, u16)> {
        match self {
            Lane::Http1(connection) => connection.exchange(plan, request, times, begun).await,
            Lane::Http2(lane) => lane.exchange(plan, request, times, begun.is_some()).await,
            Lane::Echo(connection) => {
                connection.exchange(plan, request, times, begun).await.map_err(|failure| (failure, 0))
            }
        }
    }

    /// Whether its connection stands for the next request.
    pub fn is_kept(&self) -> bool {
        match self {
            Lane::Http1(connection) => connection.stream().is_some(),
            Lane::Http2(lane) => lane.is_kept(),
            Lane::Echo(connection) => connection.stream().is_some(),
        }
    }
}

/// Opens a stream to the target, with TLS where the plan has it.
async fn open(plan: &Plan, times: &mut Times) -> Result<Stream, Failure> {
    let begun = clock::now();
    let address = Address::Tcp(plan.address);
    let stream = Stream::connect(&address, clock::after(begun, plan.timeout)).await;
    let stream = stream.map_err(|error| Failure::of_connect(&error))?;
    let connected = clock::now();
    times.connect_ns = Some(connected - begun);
    let Some(tls) = &plan.tls else { return Ok(stream) };
    let mut stream = stream;
    let shaken = stream.connect_tls(&tls.connect(), clock::after(begun, plan.timeout)).await;
    shaken.map_err(|error| Failure::of_handshake(&error))?;
    times.handshake_ns = Some(clock::now() - connected);
    times.resumed = stream.tls().is_some_and(|info| info.resumed);
    Ok(stream)
}

/// Begins the time that a request may take.
fn arm(stream: &Stream, plan: &Plan, now: Nanos) {
    stream.deadline().arm(clock::after(now, plan.timeout), Ends::Both);
}

/// What the end of a stream within an exchange means.
fn ended(stream: &Stream, otherwise: Failure) -> Failure {
    if stream.timed_out() {
        Failure::Timeout
    } else if stream.failed() {
        Failure::Reset
    } else {
        otherwise
    }
}

/// What an error while writing means.
fn unwritten(stream: &Stream) -> Failure {
    if stream.timed_out() { Failure::Timeout } else { Failure::Reset }
}

/// Lets the peer close first.
async fn finish(mut stream: Stream) {
    stream.deadline().arm(clock::after(clock::now(), CLOSE_WAIT), Ends::Both);
    while let Ok(1..) = stream.fill(Size::Medium).await {
        let count = stream.buffered().len();
        stream.consume(count);
    }
}
