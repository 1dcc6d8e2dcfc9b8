//! The load generator and its origin, run as their users run them.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

static BINARY: OnceLock<PathBuf> = OnceLock::new();

fn binary() -> &'static Path {
    BINARY.get_or_init(|| crate::build("onehop-load"))
}

/// What a run of the generator gave.
pub struct Load {
    /// Its exit code.
    pub code: i32,
    /// Its standard output.
    pub out: String,
    /// Its standard error.
    pub error: String,
    /// Its JSON report; null where it wrote none.
    pub json: Value,
    /// Where its files are.
    pub folder: PathBuf,
}

impl Load {
    /// Runs `onehop-load run` to its end.
    pub fn run(arguments: &[&str]) -> Load {
        Load::finish(Load::start(arguments))
    }

    /// Starts it; standard error is piped.
    pub fn start(arguments: &[&str]) -> (Child, PathBuf) {
        let folder = crate::folder();
        let child = Command::new(binary())
            .arg("run")
            .arg("--json")
            .arg(folder.join("run.json"))
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("starts");
        (child, folder)
    }

    /// Waits for its end.
    pub fn finish((child, folder): (Child, PathBuf)) -> Load {
        let output = child.wait_with_output().expect("a child");
        let text = std::fs::read_to_string(folder.join("run.json")).unwrap_or_default();
        Load {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            error: String::from_utf8_lossy(&output.stderr).into_owned(),
            json: serde_json::from_str(&text).unwrap_or(Value::Null),
            folder,
        }
    }

    /// Whether nothing failed. That arrivals were left unsent at the end, which is the exit code's business too, only
    /// shows that the machine stood still for a moment.
    pub fn succeeded(&self) -> bool {
        let stood_still = || self.number("/unsent") > 0.0 && self.number("/counts/failed") == 0.0;
        self.code == 0 || (self.code == 3 && stood_still())
    }

    /// A number of the report, by its path.
    pub fn number(&self, pointer: &str) -> f64 {
        let value = self.json.pointer(pointer).and_then(Value::as_f64);
        value.unwrap_or_else(|| panic!("no {pointer} in {:#}\n{}", self.json, self.error))
    }
}

/// A running origin; ended when it is dropped.
pub struct LoadOrigin {
    child: Child,
    /// Where it listens, as a URL.
    pub url: String,
}

impl LoadOrigin {
    /// Starts one on a free port.
    pub fn start(arguments: &[&str]) -> LoadOrigin {
        let mut child = Command::new(binary())
            .args(["origin", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("origin ").unwrap_or_else(|| panic!("it said {line:?}")).to_owned();
        LoadOrigin { child, url }
    }

    /// Its address, without the scheme.
    pub fn address(&self) -> &str {
        self.url.rsplit('/').next().unwrap_or_default()
    }

    /// Sends a signal by name.
    pub fn signal(&self, name: &str) {
        crate::signal(self.child.id(), name);
    }
}

impl Drop for LoadOrigin {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
