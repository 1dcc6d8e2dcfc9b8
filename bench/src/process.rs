//! Processes under test: started pinned, watched through /proc, ended when dropped.

use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// A process that is not ready by then does not start.
const READY: Duration = Duration::from_secs(15);
/// What a process that is asked to end may take.
const END: Duration = Duration::from_secs(3);

/// CPU time and context switches of a process with its children, since they began.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    /// On a CPU, in nanoseconds, as the scheduler counts it.
    pub cpu_ns: u64,
    /// In user mode, in ticks of 10 ms.
    pub user_ticks: u64,
    /// In the kernel, in ticks of 10 ms.
    pub system_ticks: u64,
    /// It gave the CPU up: it slept.
    pub voluntary: u64,
    /// The CPU was taken from it.
    pub involuntary: u64,
}

impl Usage {
    /// What has passed since.
    #[must_use]
    pub fn since(&self, before: &Usage) -> Usage {
        Usage {
            cpu_ns: self.cpu_ns.saturating_sub(before.cpu_ns),
            user_ticks: self.user_ticks.saturating_sub(before.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(before.system_ticks),
            voluntary: self.voluntary.saturating_sub(before.voluntary),
            involuntary: self.involuntary.saturating_sub(before.involuntary),
        }
    }

    /// Adds another's.
    pub fn add(&mut self, other: &Usage) {
        self.cpu_ns += other.cpu_ns;
        self.user_ticks += other.user_ticks;
        self.system_ticks += other.system_ticks;
        self.voluntary += other.voluntary;
        self.involuntary += other.involuntary;
    }
}

/// A running process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

/// A free port of the loopback interface. Somebody else may take it before its user does; starting tells.
///
/// # Errors
/// When there is none.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind("127.0.0.1:0")?.local_addr()
}

/// Starts a command on one CPU, with its output in a log file, and waits until it accepts.
///
/// # Errors
/// What kept it from starting, with the end of its log.
pub fn start(mut command: Command, cpu: usize, address: SocketAddr, log: &Path) -> Result<Process, String> {
    let name =
        Path::new(command.get_program()).file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    let file = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let second = file.try_clone().map_err(|error| format!("{}: {error}", log.display()))?;
    command.stdin(Stdio::null()).stdout(file).stderr(second);
    // The child takes over the affinity of the thread that starts it.
    let starter = std::thread::spawn(move || {
        onehop_net::pin_to_cpu(cpu).map_err(|error| format!("cannot pin to CPU {cpu}: {error}"))?;
        command.spawn().map_err(|error| format!("cannot be started: {error}"))
    });
    let child =
        starter.join().map_err(|_| "its starter panicked".to_owned())?.map_err(|what| format!("{name} {what}"))?;
    let mut process = Process { child, address };
    let until = Instant::now() + READY;
    loop {
        if TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok() {
            return Ok(process);
        }
        if let Ok(Some(status)) = process.child.try_wait() {
            return Err(format!("{name} ended at once ({status}): {}", tail(log)));
        }
        if Instant::now() > until {
            return Err(format!("{name} does not listen on {address} within {} s: {}", READY.as_secs(), tail(log)));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(4).collect();
    lines.into_iter().rev().collect::<Vec<_>>().join(" | ")
}

impl Process {
    /// Its own id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its id and its children's.
    pub fn tree(&self) -> Vec<u32> {
        let mut tree = vec![self.pid()];
        let mut at = 0;
        while at < tree.len() {
            let children =
                std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", tree[at])).unwrap_or_default();
            tree.extend(children.split_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
            at += 1;
        }
        tree
    }

    /// What it and its children have used.
    pub fn usage(&self) -> Usage {
        let mut sum = Usage::default();
        for pid in self.tree() {
            for entry in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
                sum.add(&thread_usage(&entry.path()));
            }
        }
        sum
    }

    /// Its share of resident memory, in KiB: pages that it shares with others count in part.
    pub fn memory_kib(&self) -> u64 {
        let pss = |pid: &u32| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
            let line = text.lines().find_map(|line| line.strip_prefix("Pss:").map(str::to_owned));
            line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0)
        };
        self.tree().iter().map(pss).sum()
    }

    /// Sends a signal by name, to it and its children.
    pub fn signal(&self, name: &str) {
        let pids: Vec<String> = self.tree().iter().map(u32::to_string).collect();
        // One that has ended needs none.
        let _ = Command::new("kill").arg(format!("-{name}")).args(pids).stderr(Stdio::null()).status();
    }

    /// Whether it runs still.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

fn thread_usage(folder: &Path) -> Usage {
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    let first = |text: String| text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0);
    let stat = read("stat");
    let stat: Vec<u64> = stat
        .rsplit(')')
        .next()
        .unwrap_or("")
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|w| w.parse().ok())
        .collect();
    let status = read("status");
    let counted =
        |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |rest| first(rest.to_owned()));
    Usage {
        cpu_ns: first(read("schedstat")),
        user_ticks: stat.first().copied().unwrap_or(0),
        system_ticks: stat.get(1).copied().unwrap_or(0),
        voluntary: counted("voluntary_ctxt_switches:"),
        involuntary: counted("nonvoluntary_ctxt_switches:"),
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal("CONT");
        let _ = Command::new("kill").arg(self.pid().to_string()).stderr(Stdio::null()).status();
        let until = Instant::now() + END;
        while self.is_running() {
            if Instant::now() > until {
                for pid in self.tree().iter().skip(1) {
                    let _ = Command::new("kill").args(["-KILL", &pid.to_string()]).stderr(Stdio::null()).status();
                }
                let _ = self.child.kill();
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_and_what_does_not_start_says_why() {
        let address = free_address().expect("a port");
        let log = std::env::temp_dir().join(format!("onehop-bench-test-{}", std::process::id()));
        let mut command = Command::new("sh");
        command.args(["-c", "echo it is broken; exit 3"]);
        let error = start(command, 0, address, &log).expect_err("it ended");
        assert!(error.contains("it is broken") && error.contains("ended at once"), "{error}");
        let error = start(Command::new("/no/such/program"), 0, address, &log).expect_err("it is not there");
        assert!(error.contains("cannot be started"), "{error}");
        let error = start(Command::new("sh"), 4000, address, &log).expect_err("no such CPU");
        assert!(error.contains("cannot pin"), "{error}");
        let own = thread_usage(Path::new("/proc/self/task").join(std::process::id().to_string()).as_path());
        assert!(own.cpu_ns > 0);
    }
}
