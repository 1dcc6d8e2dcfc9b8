//! Two network namespaces joined by a wire, for what cannot be tried on loopback.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::proxy::binary;

/// The mark of the sidecars' own connections.
pub const MARK: &str = "119";

/// A child that ends with the test.
pub struct Running(pub Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two namespaces joined by a veth pair; gone with the test.
pub struct Net {
    /// Their names.
    pub names: [String; 2],
    /// Their IPv4 addresses.
    pub four: [String; 2],
    /// The second one's end of the wire.
    pub wire: String,
    /// Their IPv6 addresses.
    pub six: [String; 2],
}

/// Runs a program to its end: what it said on both outputs, in the error where it failed.
///
/// # Errors
/// When it cannot be run or fails.
pub fn run(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(arguments[0]).args(&arguments[1..]).output().map_err(|error| error.to_string())?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(text) } else { Err(text) }
}

impl Net {
    /// Makes them; the number tells those of one process apart.
    ///
    /// # Errors
    /// Why they cannot be made here.
    pub fn new(number: u8) -> Result<Net, String> {
        for tool in [&["ip", "-V"][..], &["nft", "--version"], &["curl", "--version"], &["python3", "--version"]] {
            run(tool).map_err(|error| format!("{}: {error}", tool[0]))?;
        }
        let id = format!("{}{number}", std::process::id() % 10_000);
        let (va, vb) = (format!("va{id}"), format!("vb{id}"));
        let net = Net {
            wire: vb.clone(),
            names: [format!("oh-a{id}"), format!("oh-b{id}")],
            four: [format!("10.77.{number}.1"), format!("10.77.{number}.2")],
            six: [format!("fd77:{number}::1"), format!("fd77:{number}::2")],
        };
        let [a, b] = &net.names;
        run(&["ip", "netns", "add", a])?;
        run(&["ip", "netns", "add", b])?;
        run(&["ip", "link", "add", &va, "netns", a, "type", "veth", "peer", "name", &vb, "netns", b])?;
        for (at, (name, link)) in [(a, &va), (b, &vb)].into_iter().enumerate() {
            run(&["ip", "-n", name, "addr", "add", &format!("{}/24", net.four[at]), "dev", link])?;
            run(&["ip", "-n", name, "addr", "add", &format!("{}/64", net.six[at]), "dev", link, "nodad"])?;
            run(&["ip", "-n", name, "link", "set", link, "up"])?;
            run(&["ip", "-n", name, "link", "set", "lo", "up"])?;
        }
        Ok(net)
    }

    /// Runs a program in one of them, to its end.
    ///
    /// # Errors
    /// As [`run`].
    pub fn exec(&self, side: usize, arguments: &[&str]) -> Result<String, String> {
        let mut all = vec!["ip", "netns", "exec", &self.names[side]];
        all.extend(arguments);
        run(&all)
    }

    /// Starts a program in one of them.
    pub fn spawn(&self, side: usize, arguments: &[&str]) -> Child {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.names[side]]).args(arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("starts")
    }

    /// A sidecar, once it is ready.
    pub fn sidecar(&self, side: usize, config: &Path) -> Running {
        self.proxy(side, "sidecar", config)
    }

    /// A gateway, once it is ready.
    pub fn gateway(&self, side: usize, config: &Path) -> Running {
        self.proxy(side, "gateway", config)
    }

    fn proxy(&self, side: usize, role: &str, config: &Path) -> Running {
        let binary = binary().to_str().expect("text");
        let mut child = self.spawn(side, &[binary, role, "--config", config.to_str().expect("text")]);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let ready = lines.by_ref().map_while(Result::ok).any(|line| line == "ready");
        assert!(ready, "the {role} does not start");
        std::thread::spawn(move || lines.for_each(drop));
        Running(child)
    }

    /// `onehop redirect` in one of them.
    pub fn redirect(&self, side: usize, arguments: &[&str]) -> String {
        let mut all = vec![binary().to_str().expect("text"), "redirect"];
        all.extend(arguments);
        self.exec(side, &all).unwrap_or_else(|error| panic!("redirect {arguments:?}: {error}"))
    }

    /// A GET from the first.
    ///
    /// # Errors
    /// What curl says.
    pub fn curl(&self, url: &str) -> Result<String, String> {
        self.exec(0, &["curl", "-sS", "-g", "--max-time", "5", url])
    }

    /// The metrics of the sidecar in one of them.
    pub fn metrics(&self, side: usize) -> String {
        self.exec(side, &["curl", "-sS", "--max-time", "5", "http://127.0.0.1:9901/metrics"]).unwrap_or_default()
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = run(&["ip", "netns", "del", name]);
        }
    }
}

/// What passes on the wire meanwhile, as tcpdump writes it; none where it does not run.
pub fn capture(net: &Net, file: &Path, during: impl FnOnce()) -> Option<Vec<u8>> {
    let child = Command::new("ip")
        .args([
            "netns",
            "exec",
            &net.names[1],
            "tcpdump",
            "-U",
            "--immediate-mode",
            "-i",
            &net.wire,
            "-w",
            file.to_str().expect("text"),
            "tcp",
        ])
        .stderr(Stdio::piped())
        .spawn()
        .ok()?;
    // It ends with a test that fails, too.
    let mut child = Running(child);
    let mut lines = BufReader::new(child.0.stderr.take().expect("piped")).lines();
    if !lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening on")) {
        eprintln!("SKIPPED: the capture, since tcpdump does not run here");
        during();
        return None;
    }
    std::thread::spawn(move || lines.for_each(drop));
    during();
    crate::eventually("packets are captured", || std::fs::metadata(file).is_ok_and(|file| file.len() > 1000));
    let _ = run(&["kill", "-INT", &child.0.id().to_string()]);
    child.0.wait().expect("ends");
    std::fs::read(file).ok()
}

/// Whether bytes contain a text.
pub fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
