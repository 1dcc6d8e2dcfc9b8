//! The command line.

mod http2;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use onehop_load::origin::{Behaviour, Http2Behaviour, Service, Size};
use onehop_load::schedule::Arrivals;
use onehop_load::units;

use http2::Http2Options;

/// Onehop's load generator, and a fast origin to aim at.
#[derive(Parser)]
#[command(name = "onehop-load", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Sends requests on a schedule and measures from the moments at which they were meant to be sent.
    ///
    /// Exit code: 0 when all went well; 3 when requests failed, the rate was not reached, or the run ended early (the
    /// report is written all the same); 1 when nothing could be measured; 2 for a wrong command line.
    Run(Box<Run>),
    /// Answers requests, fast or as told: HTTP/1.1 and, to clients that begin with its preface, HTTP/2 and gRPC, on one port.
    ///
    /// A gRPC method whose name ends in ClientStream, ServerStream or BidiStream is answered as a stream, every other as
    /// unary; messages have --size bytes, or are the request's own with --echo-body.
    Origin(Box<OriginCommand>),
}

#[derive(Args)]
pub struct Run {
    /// What to aim at: http://HOST[:PORT][/PATH], https:// likewise, or tcp://HOST:PORT for an echo.
    #[arg(required_unless_present = "urls", conflicts_with = "urls")]
    pub url: Option<String>,
    /// A file with a line for each URL: [WEIGHT [METHOD]] URL.
    #[arg(long, value_name = "FILE")]
    pub urls: Option<PathBuf>,
    #[command(flatten)]
    pub http2: Http2Options,
    /// Requests a second of the open loop, such as 5000 or 20k.
    #[arg(long, value_parser = units::rate, required_unless_present_any = ["closed", "find_saturation"])]
    pub rate: Option<f64>,
    /// Closed loop: each connection (of HTTP/2, each stream) sends when its last request was answered. Shows what the target bears, not what
    /// its users would see.
    #[arg(long, conflicts_with = "rate")]
    pub closed: bool,
    /// Searches for the highest rate at which 99.9 % of what is offered is answered, without an error and with a p99
    /// below --p99-limit.
    #[arg(long, conflicts_with_all = ["rate", "closed"])]
    pub find_saturation: bool,
    /// The p99 that --find-saturation still takes for borne.
    #[arg(long, default_value = "10ms", value_parser = units::duration)]
    pub p99_limit: Duration,
    /// How long --find-saturation tries each rate.
    #[arg(long, default_value = "2s", value_parser = units::duration)]
    pub probe: Duration,
    /// How often --find-saturation's result must hold again.
    #[arg(long, default_value_t = 3)]
    pub confirmations: u32,
    /// How arrivals are spread: constant, poisson or uniform.
    #[arg(long, default_value = "poisson", value_parser = Arrivals::named)]
    pub arrivals: Arrivals,
    /// Connections of all threads together.
    #[arg(long, short = 'c', default_value_t = 64)]
    pub connections: usize,
    /// Threads, each with a ring of its own.
    #[arg(long, short = 't', default_value_t = 1)]
    pub threads: usize,
    /// Measured time.
    #[arg(long, short = 'd', default_value = "10s", value_parser = units::duration)]
    pub duration: Duration,
    /// Time before it whose requests are not counted.
    #[arg(long, default_value = "1s", value_parser = units::duration)]
    pub warm_up: Duration,
    /// What one request may take.
    #[arg(long, default_value = "5s", value_parser = units::duration)]
    pub timeout: Duration,
    /// The method; by default GET, or POST with a body.
    #[arg(long, short = 'X')]
    pub method: Option<String>,
    /// https: PEM file of the roots that the target's certificate leads to; the system's without it.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// https: PEM file of the certificate chain to show.
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// https: PEM file of its key.
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// https: the name to ask for and to find in the certificate; the URL's host without it.
    #[arg(long, value_name = "NAME")]
    pub server_name: Option<String>,
    /// https: the target is not verified.
    #[arg(long)]
    pub insecure: bool,
    /// https: every handshake is a full one.
    #[arg(long)]
    pub no_resumption: bool,
    /// A further field, NAME: VALUE; may be repeated.
    #[arg(long, short = 'H')]
    pub header: Vec<String>,
    /// The request's body.
    #[arg(long)]
    pub body: Option<String>,
    /// A file with the request's body.
    #[arg(long, value_name = "FILE", conflicts_with = "body")]
    pub body_file: Option<PathBuf>,
    /// A body of so many bytes; for tcp:// what is sent to be echoed (128 by default).
    #[arg(long, value_parser = units::size, conflicts_with_all = ["body", "body_file"])]
    pub body_size: Option<usize>,
    /// A new connection for each request.
    #[arg(long)]
    pub new_connections: bool,
    /// A status that is good; may be repeated. By default 200 to 399.
    #[arg(long, value_parser = clap::value_parser!(u16).range(100..600))]
    pub expect_status: Vec<u16>,
    /// The length that each body must have.
    #[arg(long, value_parser = units::size)]
    pub expect_length: Option<usize>,
    /// The CRC-32 that each body must have, in hexadecimal.
    #[arg(long, value_parser = crc)]
    pub expect_crc32: Option<u32>,
    /// Seed of schedule and mix.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// CPUs to pin the threads to, such as 0 or 0,2.
    #[arg(long, value_delimiter = ',')]
    pub cpus: Vec<usize>,
    /// How long before each send a core stops sleeping; "always": it never sleeps.
    #[arg(long, default_value = "100us", value_parser = spin)]
    pub spin: Duration,
    /// Also runs an origin at this address, on the generator's own cores and rings, so that the two never compete for
    /// a core; the origin's options apply.
    #[arg(long, value_name = "ADDRESS")]
    pub with_origin: Option<SocketAddr>,
    #[command(flatten)]
    pub origin: OriginOptions,
    /// Writes the whole result as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Writes the result as a page that needs nothing else.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Writes the latencies by second as an HdrHistogram interval log.
    #[arg(long, value_name = "FILE")]
    pub interval_log: Option<PathBuf>,
    /// Shows no progress.
    #[arg(long, short)]
    pub quiet: bool,
    /// Counts latency from the sending, as generators with coordinated omission do; for showing what that hides.
    #[arg(long, hide = true)]
    pub omit_on_purpose: bool,
}

#[derive(Args)]
pub struct OriginCommand {
    /// Where to listen; port 0 takes a free one, which is printed.
    #[arg(long, default_value = "127.0.0.1:9000")]
    pub listen: SocketAddr,
    /// Threads, each with a ring of its own.
    #[arg(long, default_value_t = 1)]
    pub threads: usize,
    /// CPUs to pin the threads to.
    #[arg(long, value_delimiter = ',')]
    pub cpus: Vec<usize>,
    /// Poll for so many microseconds after the last completion before sleeping.
    #[arg(long, default_value_t = 0)]
    pub busy_poll_us: u64,
    #[command(flatten)]
    pub options: OriginOptions,
}

/// What the origin answers.
#[derive(Args)]
pub struct OriginOptions {
    /// Bytes of each body: 128, 1KiB-64KiB (uniform), or exp:8KiB.
    #[arg(long, default_value = "128", value_parser = Size::parse)]
    pub size: Size,
    /// Time before each answer: 250us, exp:2ms, or trace:FILE with a duration in each line.
    #[arg(long, default_value = "0us", value_parser = Service::parse)]
    pub service: Service,
    /// Sends bodies in chunks.
    #[arg(long)]
    pub chunked: bool,
    /// Share of requests that are answered with 503, such as 0.01.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub errors: f64,
    /// Share of requests whose connection (HTTP/2: whose stream) is reset instead.
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub resets: f64,
    /// HTTP/2: share of requests whose stream is refused (REFUSED_STREAM).
    #[arg(long, default_value_t = 0.0, value_parser = share)]
    pub refusals: f64,
    /// HTTP/2: GOAWAY after so many requests on a connection; 0: never.
    #[arg(long, value_name = "REQUESTS", default_value_t = 0)]
    pub goaway_after: u64,
    /// HTTP/2: streams at once that a connection allows.
    #[arg(long, value_name = "NUMBER", default_value_t = 1000)]
    pub max_streams: u32,
    /// HTTP/2: what a client may send on a stream before it is given more credit.
    #[arg(long, value_name = "SIZE", default_value = "1MiB", value_parser = units::size)]
    pub origin_window: usize,
    /// HTTP/2: gives no credit beyond --origin-window, as an origin does that has stopped reading.
    #[arg(long)]
    pub stalled: bool,
    /// gRPC: messages of an answer to a method whose name ends in ServerStream; each has --size bytes.
    #[arg(long, value_name = "NUMBER", default_value_t = 10)]
    pub grpc_messages: u64,
    /// Sends bodies slowly: so many bytes at a time, with --body-pause after each.
    #[arg(long, value_parser = units::size)]
    pub body_piece: Option<usize>,
    /// See --body-piece; rounded up to 8 ms.
    #[arg(long, default_value = "10ms", value_parser = units::duration)]
    pub body_pause: Duration,
    /// Answers with the request's own body.
    #[arg(long)]
    pub echo_body: bool,
    /// Knows no HTTP: sends back what it gets.
    #[arg(long)]
    pub echo: bool,
    /// Seed of the origin's chance.
    #[arg(long, default_value_t = 1)]
    pub origin_seed: u64,
}

impl OriginOptions {
    /// As the origin takes it.
    pub fn behaviour(&self) -> Behaviour {
        Behaviour {
            size: self.size,
            service: self.service.clone(),
            chunked: self.chunked,
            errors: self.errors,
            resets: self.resets,
            http2: Http2Behaviour {
                refusals: self.refusals,
                goaway_after: self.goaway_after,
                max_streams: self.max_streams,
                window: u32::try_from(self.origin_window).unwrap_or(u32::MAX),
                stalled: self.stalled,
                messages: self.grpc_messages,
            },
            slow: self.body_piece.map(|piece| (piece, self.body_pause)),
            echo_body: self.echo_body,
            echo: self.echo,
            seed: self.origin_seed,
        }
    }
}

fn spin(text: &str) -> Result<Duration, String> {
    if text == "always" { Ok(Duration::MAX) } else { units::duration(text) }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("\"{text}\" is no share: write a number from 0 to 1"))
}

fn crc(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text.trim_start_matches("0x"), 16)
        .map_err(|_| format!("\"{text}\" is no CRC-32: write up to eight hexadecimal digits"))
}
