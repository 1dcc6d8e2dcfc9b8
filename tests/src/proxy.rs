//! The real binary, started with a configuration on free ports.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::client::Client;

static BINARY: OnceLock<PathBuf> = OnceLock::new();
static COUNT: AtomicUsize = AtomicUsize::new(0);

/// The `onehop` binary, built once per test process in the profile of the tests.
pub fn binary() -> &'static Path {
    BINARY.get_or_init(|| build("onehop"))
}

/// Builds a package of the workspace and returns its binary of the same name. As `cargo test --workspace` builds: the whole
/// workspace, with a test among the targets so that what only tests need is taken into account. Otherwise some of what it
/// depends on would have fewer features, and `plan` and all above it would be built a second time.
pub fn build(package: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let args = ["build", "--quiet", "--workspace", "--bin", package, "--test", "memory"];
    let status = Command::new(env!("CARGO")).current_dir(root).args(args).status();
    assert!(status.expect("cargo runs").success(), "{package} does not build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("debug").join(package)
}

/// A new folder for one test.
pub fn folder() -> PathBuf {
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let folder = std::env::temp_dir().join(format!("onehop-test-{}-{number}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn written(folder: &Path, config: &str) -> PathBuf {
    let path = folder.join("onehop.toml");
    std::fs::write(&path, config).expect("writes");
    path
}

/// A running proxy; ended when it is dropped.
pub struct Proxy {
    child: Child,
    /// What it said before it was ready.
    pub said: Vec<String>,
    /// The configuration's file.
    pub config: PathBuf,
    errors: Receiver<String>,
}

impl Proxy {
    /// Starts with a configuration; each listener's address is best `127.0.0.1:0`.
    pub fn start(config: &str) -> Proxy {
        Proxy::start_with(config, &[], None)
    }

    /// Starts with further arguments, by way of another program if one is given.
    pub fn start_with(config: &str, arguments: &[&str], launcher: Option<&Path>) -> Proxy {
        Proxy::start_file(written(&folder(), config), arguments, launcher)
    }

    /// Starts with a configuration in this folder, beside the files that it names.
    pub fn start_in(folder: &Path, config: &str) -> Proxy {
        Proxy::start_file(written(folder, config), &[], None)
    }

    /// Starts with a file that is there. `ONEHOP_TEST_LAUNCHER` names a program to start every proxy by.
    pub fn start_file(config: PathBuf, arguments: &[&str], launcher: Option<&Path>) -> Proxy {
        let everywhere = std::env::var_os("ONEHOP_TEST_LAUNCHER").map(PathBuf::from);
        let launcher = launcher.or(everywhere.as_deref());
        let mut command = match launcher {
            Some(launcher) => {
                let mut command = Command::new(launcher);
                command.arg(binary());
                command
            }
            None => Command::new(binary()),
        };
        let workers = ["--workers", "2"];
        command.arg("gateway").arg("--config").arg(&config).args(["--admin", "127.0.0.1:0"]);
        if !arguments.contains(&"--workers") {
            command.args(workers);
        }
        let mut child = command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let (sender, errors) = channel();
        let stderr = child.stderr.take().expect("piped");
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut said = Vec::new();
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        for line in lines.by_ref().map_while(Result::ok) {
            if line == "ready" {
                break;
            }
            said.push(line);
        }
        if said.is_empty() {
            let errors: Vec<String> = errors.iter().collect();
            panic!("it did not start: {}", errors.join("\n"));
        }
        // Whatever it says later (access records) must not fill the pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Proxy { child, said, config, errors }
    }

    fn find(&self, prefix: &str) -> SocketAddr {
        let line = self.said.iter().find_map(|line| line.strip_prefix(prefix));
        let line = line.unwrap_or_else(|| panic!("no line {prefix:?} in {:?}", self.said));
        line.rsplit([' ', '/']).next().and_then(|word| word.parse().ok()).expect("an address")
    }

    /// Where a listener listens.
    pub fn address(&self, listener: &str) -> SocketAddr {
        self.find(&format!("listening {listener} "))
    }

    /// A connection to a listener.
    pub fn connect(&self, listener: &str) -> Client {
        Client::connect(self.address(listener))
    }

    /// An answer of the admin endpoint: status and body.
    pub fn admin(&self, path: &str) -> (u16, String) {
        let mut client = Client::connect(self.find("admin "));
        let response = client.get(path);
        (response.status, response.text())
    }

    /// The same to a POST without a body.
    pub fn admin_post(&self, path: &str) -> (u16, String) {
        let mut client = Client::connect(self.find("admin "));
        let response = client.ask(format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n"));
        (response.status, response.text())
    }

    /// The sum of a metric's samples whose labels contain the text.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let (_, text) = self.admin("/metrics");
        let samples = text.lines().filter(|line| line.split(['{', ' ']).next() == Some(name) && line.contains(labels));
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The downstream connections that it lists. Those of a core that a busy machine lets wait for too long are missing at
    /// first, and the core is named as stuck.
    pub fn connections(&self) -> usize {
        let mut count = None;
        crate::eventually("every core tells its connections", || {
            let value: serde_json::Value = serde_json::from_str(&self.admin("/connections").1).expect("JSON");
            count = value["count"].as_u64();
            value["stuck_cores"] == 0
        });
        usize::try_from(count.expect("a count")).expect("fits")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// A figure of its memory by the kernel's name (`VmRSS`, `VmHWM`), in KiB.
    pub fn memory_kib(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = text.lines().find(|line| line.starts_with(name)).expect("a figure");
        line.split_whitespace().nth(1).and_then(|word| word.parse().ok()).expect("a number")
    }

    /// Descriptors that it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        crate::signal(self.pid(), name);
    }

    /// Waits for a line on standard error that contains the text, and returns it.
    pub fn wait_for_error(&self, text: &str) -> String {
        loop {
            let line =
                self.errors.recv_timeout(Duration::from_secs(30)).unwrap_or_else(|_| panic!("never said {text:?}"));
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Panics of its tasks that it has told of so far, and that nobody has waited past.
    pub fn panics(&self) -> Vec<String> {
        self.errors.try_iter().filter(|line| line.contains("panicked: ")).collect()
    }

    /// Waits until it has ended by itself; its exit code.
    pub fn wait(&mut self) -> i32 {
        self.child.wait().expect("a child").code().unwrap_or(-1)
    }

    /// Runs the binary to its end: exit code, standard output and error.
    pub fn run(arguments: &[&str]) -> (i32, String, String) {
        let mut child = Command::new(binary())
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        let (mut out, mut error) = (String::new(), String::new());
        child.stdout.take().expect("piped").read_to_string(&mut out).expect("text");
        child.stderr.take().expect("piped").read_to_string(&mut error).expect("text");
        (child.wait().expect("a child").code().unwrap_or(-1), out, error)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
