//! The proxies that are compared. A peer is one file here and a line in [`all`]: it says which version is installed,
//! and how it is started as one hop. The rules are the same for all: one worker on one CPU, connections kept on both
//! sides without a bound that is reached, no access log, no retry, no compression, X-Forwarded-For where the proxy
//! offers it, and timeouts that nothing here reaches. With HTTP/2: 1024 streams at once on a connection and a window of
//! 64 KiB on each, on both sides; whoever can shares connections to the upstream among streams.

mod envoy;
mod haproxy;
mod nginx;
mod onehop;
mod raw;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is proxied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// HTTP/1.1 on both sides.
    Http,
    /// HTTP/2 with clients, HTTP/1.1 with the upstream.
    Http2ToHttp1,
    /// HTTP/2 on both sides.
    Http2,
    /// The same, for calls of gRPC.
    Grpc,
    /// Bytes.
    Tcp,
}

impl Layer {
    /// All of them, with their names in lists.
    pub const ALL: [(Layer, &str); 5] = [
        (Layer::Http, "http"),
        (Layer::Http2ToHttp1, "h2-h1"),
        (Layer::Http2, "h2-h2"),
        (Layer::Grpc, "grpc"),
        (Layer::Tcp, "tcp"),
    ];

    /// Whether clients speak HTTP/2: without TLS, by prior knowledge.
    pub fn is_http2(self) -> bool {
        matches!(self, Layer::Http2ToHttp1 | Layer::Http2 | Layer::Grpc)
    }

    /// Whether the upstream is spoken to in HTTP/2.
    pub fn is_http2_upstream(self) -> bool {
        matches!(self, Layer::Http2 | Layer::Grpc)
    }
}

/// Streams at once on a connection of HTTP/2, on both sides, for all: more than any scenario has on one.
const STREAMS: usize = 1024;
/// The window of a stream in bytes, likewise: the default of HTTP/2, nearly.
const WINDOW: usize = 65_536;

/// One hop to be.
#[derive(Clone, Debug)]
pub struct Hop<'a> {
    /// Where it is to listen.
    pub listen: SocketAddr,
    /// Where it is to forward to.
    pub upstream: SocketAddr,
    /// What is proxied.
    pub layer: Layer,
    /// A folder of its own, for its configuration, logs and state.
    pub folder: &'a Path,
    /// Connections, or streams of all connections, that it must bear at once.
    pub connections: usize,
    /// Mutual TLS on one side: it is one of two sidecars.
    pub mutual: Option<Mutual<'a>>,
}

/// Mutual TLS between two sidecars: TLS 1.3, certificates on P-256 and, where a product lets one choose,
/// TLS_AES_128_GCM_SHA256 over X25519, the same for all.
#[derive(Clone, Copy, Debug)]
pub struct Mutual<'a> {
    /// Towards the upstream; else with clients.
    pub outbound: bool,
    /// Where `onehop certs` has put `web` (outbound), `api` (inbound) and `bundle.pem`.
    pub certificates: &'a Path,
}

impl Mutual<'_> {
    /// The certificate chain that this side shows.
    pub fn certificate(&self) -> PathBuf {
        self.own("cert.pem")
    }

    /// Its key.
    pub fn key(&self) -> PathBuf {
        self.own("key.pem")
    }

    fn own(&self, file: &str) -> PathBuf {
        self.certificates.join(if self.outbound { "web" } else { "api" }).join(file)
    }

    /// The roots that both sides believe.
    pub fn bundle(&self) -> PathBuf {
        self.certificates.join("bundle.pem")
    }
}

/// The name in the inbound side's certificate, beside its SPIFFE ID.
pub const INBOUND_NAME: &str = "api.mesh.test";

/// Makes the certificates of a mesh, outside the results, where keys have no business.
///
/// # Errors
/// When `onehop certs` cannot be run.
pub fn certificates() -> Result<PathBuf, String> {
    let program = own("onehop").ok_or("onehop is not built: cargo build --release -p onehop")?;
    let folder = std::env::temp_dir().join(format!("onehop-bench-{}", std::process::id()));
    let arguments = ["--trust-domain", "mesh.test", "--service", "web", "--service", "api", "--dns", INBOUND_NAME];
    let output = Command::new(program).arg("certs").arg(&folder).args(arguments).output();
    let output = output.map_err(|error| format!("onehop certs: {error}"))?;
    if !output.status.success() {
        return Err(format!("onehop certs: {}", String::from_utf8_lossy(&output.stderr)));
    }
    folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))
}

/// How it is started.
#[derive(Debug)]
pub struct Launch {
    /// The command; it stays in the foreground.
    pub command: Command,
    /// Where its figures are scraped, if it tells about its own hop.
    pub metrics: Option<SocketAddr>,
}

/// A proxy that can be compared.
pub trait Peer: Sync {
    /// Its short name.
    fn name(&self) -> &'static str;
    /// What it is, in a sentence.
    fn description(&self) -> &'static str;
    /// The version that is installed.
    ///
    /// # Errors
    /// Why it cannot be used here, and what to do.
    fn version(&self, layer: Layer) -> Result<String, String>;
    /// Whether it can be one of two sidecars with mutual TLS.
    fn speaks_tls(&self) -> bool {
        true
    }
    /// Whether it is measured where no candidates are named.
    fn by_default(&self) -> bool {
        true
    }
    /// Whether it takes its CPU also when it has nothing to do: it stands still while others are measured.
    fn never_sleeps(&self) -> bool {
        false
    }
    /// Writes its configuration and says how it is started.
    ///
    /// # Errors
    /// When the configuration cannot be written.
    fn launch(&self, hop: &Hop<'_>) -> Result<Launch, String>;
}

/// All of them, the floor first.
pub fn all() -> Vec<&'static dyn Peer> {
    vec![
        &raw::RawRelay,
        &onehop::SLEEPING,
        &onehop::POLLING,
        &nginx::Nginx,
        &haproxy::SLEEPING,
        &haproxy::POLLING,
        &envoy::Envoy,
    ]
}

/// The one of that name.
///
/// # Errors
/// The names that there are.
pub fn named(name: &str) -> Result<&'static dyn Peer, String> {
    let names: Vec<&str> = all().iter().map(|peer| peer.name()).collect();
    all()
        .into_iter()
        .find(|peer| peer.name() == name)
        .ok_or_else(|| format!("\"{name}\" is no candidate: they are direct, {}", names.join(", ")))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// A program on the PATH, or where Debian keeps those of the administrator.
fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/sbin"), PathBuf::from("/usr/local/sbin")])
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
}

/// A binary of this workspace: beside the running one.
fn own(program: &str) -> Option<PathBuf> {
    let beside = std::env::current_exe().ok()?.parent()?.join(program);
    if beside.is_file() { Some(beside) } else { find(program) }
}

/// What a program says of its version: the first line that holds a digit, without the folder that it was started from,
/// which is of no use on another machine.
fn ask(program: &Path, argument: &str) -> Result<String, String> {
    let output =
        Command::new(program).arg(argument).output().map_err(|error| format!("{}: {error}", program.display()))?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().find(|line| line.chars().any(|c| c.is_ascii_digit()));
    let folder = program.parent().map(|folder| format!("{}/", folder.display())).unwrap_or_default();
    let plain = |line: &str| if folder.len() > 1 { line.replace(&folder, "") } else { line.to_owned() };
    line.map(|line| plain(line.trim())).ok_or_else(|| format!("{} does not say its version", program.display()))
}
