//! Access records, written by a thread of their own: a full disk is counted and told, and stops nothing.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossbeam_queue::ArrayQueue;
use onehop_meter::Registry;
use onehop_meter::record::AccessRecord;
use onehop_plan::{AccessLog, LogFormat};
use serde_json::json;

/// How often the queues are emptied.
const EVERY: Duration = Duration::from_millis(20);
/// How often they are looked at where nothing is to be written: a core shares its CPU with this thread.
const SELDOM: Duration = Duration::from_secs(1);
/// How often a failure is told.
const TELL: Duration = Duration::from_secs(10);

type Queues = Vec<Arc<ArrayQueue<AccessRecord>>>;

#[derive(Default)]
struct Shared {
    wanted: Mutex<Option<AccessLog>>,
    changed: AtomicBool,
    stop: AtomicBool,
}

/// The log's thread.
pub struct Log {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Log {
    /// Starts it over the queues of all cores.
    ///
    /// # Errors
    /// When no thread can be started.
    pub fn start(queues: Queues, registry: Arc<Registry>) -> io::Result<Log> {
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let thread = std::thread::Builder::new()
            .name("onehop-log".to_owned())
            .spawn(move || run(&theirs, &queues, &registry))?;
        Ok(Log { shared, thread: Some(thread) })
    }

    /// Writes there from now on; opens the file anew, also after a rotation.
    pub fn open(&self, wanted: Option<AccessLog>) {
        *self.shared.wanted.lock().unwrap_or_else(PoisonError::into_inner) = wanted;
        self.shared.changed.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        if let Some(thread) = &self.thread {
            thread.thread().unpark();
        }
    }

    /// Writes what is left and ends.
    pub fn finish(mut self) {
        self.shared.stop.store(true, Ordering::Release);
        self.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

enum Sink {
    Nowhere,
    Output(io::Stdout),
    File(File),
}

struct Writer {
    sink: Sink,
    format: LogFormat,
    told: Option<Instant>,
}

impl Writer {
    fn open(&mut self, wanted: Option<AccessLog>, registry: &Registry) {
        let Some(wanted) = wanted else {
            self.sink = Sink::Nowhere;
            return;
        };
        self.format = wanted.format;
        self.sink = match wanted.path {
            None => Sink::Output(io::stdout()),
            Some(path) => match OpenOptions::new().append(true).create(true).open(&path) {
                Ok(file) => Sink::File(file),
                Err(error) => {
                    self.fail(1, &format!("{} cannot be opened: {error}", path.display()), registry);
                    Sink::Nowhere
                }
            },
        };
    }

    fn write(&mut self, batch: &[AccessRecord], registry: &Registry) {
        let mut text = String::new();
        for record in batch {
            match &self.format {
                LogFormat::Json => json_line(&mut text, record),
                LogFormat::Template(template) => template_line(&mut text, template, record),
            }
            text.push('\n');
        }
        let written = match &mut self.sink {
            Sink::Nowhere => return,
            Sink::Output(output) => output.lock().write_all(text.as_bytes()).and_then(|()| output.flush()),
            Sink::File(file) => file.write_all(text.as_bytes()),
        };
        if let Err(error) = written {
            self.fail(batch.len(), &error.to_string(), registry);
        }
    }

    fn fail(&mut self, records: usize, why: &str, registry: &Registry) {
        registry.add("onehop_access_records_failed_total", "Access records that could not be written.", records as f64);
        if self.told.is_none_or(|told| told.elapsed() >= TELL) {
            self.told = Some(Instant::now());
            eprintln!("onehop: access records are lost: {why}");
        }
    }
}

fn run(shared: &Shared, queues: &Queues, registry: &Registry) {
    let mut writer = Writer { sink: Sink::Nowhere, format: LogFormat::Json, told: None };
    let mut batch = Vec::new();
    loop {
        let stopping = shared.stop.load(Ordering::Acquire);
        if shared.changed.swap(false, Ordering::AcqRel) {
            let wanted = shared.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
            writer.open(wanted, registry);
        }
        for queue in queues {
            // Bounded, so that a busy core cannot keep the others waiting.
            for _ in 0..queue.capacity() {
                let Some(record) = queue.pop() else { break };
                batch.push(record);
            }
        }
        if batch.is_empty() {
            if stopping {
                return;
            }
            std::thread::park_timeout(if matches!(writer.sink, Sink::Nowhere) { SELDOM } else { EVERY });
        } else {
            writer.write(&batch, registry);
            batch.clear();
        }
    }
}

/// RFC 3339 in UTC with milliseconds, from the civil calendar (Howard Hinnant's days algorithm).
pub fn timestamp(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let (days, seconds) = ((since.as_secs() / 86_400) as i64, since.as_secs() % 86_400);
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", since.subsec_millis())
}

fn json_line(out: &mut String, record: &AccessRecord) {
    let line = json!({
        "time": timestamp(record.time),
        "listener": &*record.listener,
        "route": record.route.as_deref(),
        "cluster": record.cluster.as_deref(),
        "endpoint": record.endpoint,
        "peer": record.peer.map(|peer| peer.to_string()),
        "method": record.method,
        "host": record.host,
        "path": record.path,
        "status": record.status,
        "reason": record.reason,
        "bytes_in": record.bytes_in,
        "bytes_out": record.bytes_out,
        "attempts": record.attempts,
        "retry_denied": record.retry_denied,
        "injected": record.injected,
        "total_ns": record.account.total_ns,
        "hop_ns": record.account.hop_ns,
        "client_wait_ns": record.account.client_wait_ns,
        "upstream_wait_ns": record.account.upstream_wait_ns,
        "request_id": record.request_id,
    });
    let _ = write!(out, "{line}");
}

fn template_line(out: &mut String, template: &str, record: &AccessRecord) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        out.push_str(before);
        let Some((name, after)) = after.split_once('}') else {
            out.push('{');
            rest = after;
            continue;
        };
        field(out, name, record);
        rest = after;
    }
    out.push_str(rest);
}

/// One field of a template. What a client wrote is escaped, so that it cannot forge a line.
fn field(out: &mut String, name: &str, record: &AccessRecord) {
    let text = |text: Option<&str>| text.filter(|text| !text.is_empty()).unwrap_or("-").escape_default().to_string();
    let value = match name {
        "time" => timestamp(record.time),
        "listener" => record.listener.to_string(),
        "route" => text(record.route.as_deref()),
        "cluster" => text(record.cluster.as_deref()),
        "endpoint" => text(record.endpoint.as_deref()),
        "peer" => record.peer.map_or_else(|| "-".to_owned(), |peer| peer.to_string()),
        "method" => text(Some(&record.method)),
        "host" => text(Some(&record.host)),
        "path" => text(Some(&record.path)),
        "status" => record.status.to_string(),
        "reason" => text(record.reason),
        "bytes_in" => record.bytes_in.to_string(),
        "bytes_out" => record.bytes_out.to_string(),
        "attempts" => record.attempts.to_string(),
        "retry_denied" => text(record.retry_denied),
        "injected" => text(record.injected),
        "total_ns" => record.account.total_ns.to_string(),
        "hop_ns" => record.account.hop_ns.to_string(),
        "client_wait_ns" => record.account.client_wait_ns.to_string(),
        "upstream_wait_ns" => record.account.upstream_wait_ns.to_string(),
        "request_id" => text(Some(&record.request_id)),
        other => format!("{{{other}}}"),
    };
    out.push_str(&value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> AccessRecord {
        AccessRecord {
            time: UNIX_EPOCH + Duration::from_millis(1_709_210_096_789),
            listener: Arc::from("edge"),
            route: None,
            cluster: None,
            endpoint: None,
            peer: None,
            method: "GET".to_owned(),
            host: "a".to_owned(),
            path: "/x\ny\"".to_owned(),
            status: 200,
            reason: None,
            bytes_in: 0,
            bytes_out: 5,
            account: Default::default(),
            attempts: 1,
            retry_denied: None,
            injected: None,
            request_id: String::new(),
        }
    }

    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(timestamp(record().time), "2024-02-29T12:34:56.789Z");
        assert_eq!(timestamp(UNIX_EPOCH), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn lines_cannot_be_forged() {
        let mut line = String::new();
        template_line(&mut line, "{method} {path} {status} {nothing} {", &record());
        assert_eq!(line, "GET /x\\ny\\\" 200 {nothing} {");
        let mut line = String::new();
        json_line(&mut line, &record());
        assert!(!line.contains('\n'));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&line).expect("JSON")["path"], "/x\ny\"");
    }
}
