//! What the commands do.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::Duration;

use onehop_load::generator::Generator;
use onehop_load::origin::{Bound, Origin};
use onehop_load::outcome::Outcome;
use onehop_load::plan::{Loop, Plan};
use onehop_load::report::{hdr, html, json, progress::Progress, text};
use onehop_load::request::{Content, Expect, Mix, Prepared};
use onehop_load::saturation::{self, Search};
use onehop_load::target::{Scheme, Target};
use onehop_load::tls::{Tls, Wanted};

use crate::arguments::{OriginCommand, Run};

/// Something went wrong in the run, and its report is there.
const UNWELL: u8 = 3;

/// `onehop-load origin`.
pub fn origin(arguments: &OriginCommand) -> Result<ExitCode, String> {
    let origin = Origin {
        listen: arguments.listen,
        behaviour: arguments.options.behaviour(),
        busy_poll: Duration::from_micros(arguments.busy_poll_us),
    };
    let bound = bind(origin, arguments.threads)?;
    println!("origin {}://{}", if arguments.options.echo { "tcp" } else { "http" }, bound.address);
    bound.serve(&arguments.cpus).map_err(|error| format!("the origin ended: {error}"))?;
    Ok(ExitCode::SUCCESS)
}

fn bind(origin: Origin, threads: usize) -> Result<Bound, String> {
    let listen = origin.listen;
    origin.bind(threads).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("the origin cannot listen on {listen}: the port is in use; choose another, or 0 for a free one")
        }
        _ => format!("the origin cannot listen on {listen}: {error}"),
    })
}

/// `onehop-load run`.
pub fn run(arguments: &Run) -> Result<ExitCode, String> {
    let plan = plan(arguments)?;
    for path in [&arguments.json, &arguments.html, &arguments.interval_log].into_iter().flatten() {
        // Said now, not after the run.
        std::fs::write(path, "").map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    }
    let generator = start(arguments)?;
    let stopper = generator.stopper();
    let mut signalled = false;
    // Without the handler a signal ends the run without a report, and nothing else is lost.
    let _ = ctrlc::set_handler(move || {
        if std::mem::replace(&mut signalled, true) {
            std::process::exit(130);
        }
        stopper.store(true, Ordering::Relaxed);
    });
    if !arguments.quiet {
        eprintln!("{}", text::title(&plan, arguments.threads));
    }
    if arguments.find_saturation {
        return saturation(arguments, &plan, &generator);
    }
    let mut progress = Progress::new(arguments.quiet);
    let watched = plan.clone();
    let outcome = generator.run(plan.clone(), &mut |outcome, slice| progress.slice(&watched, outcome, slice))?;
    progress.end();
    write(arguments, &plan, &outcome)?;
    show(&text::summary(&plan, &outcome));
    let well = outcome.total.counts.failed() == 0
        && outcome.reached(&plan)
        && outcome.notes.is_empty()
        && outcome.total.counts.ok > 0;
    Ok(if well { ExitCode::SUCCESS } else { ExitCode::from(UNWELL) })
}

fn start(arguments: &Run) -> Result<Generator, String> {
    if arguments.threads == 0 || arguments.threads > 1024 {
        return Err("--threads is 1 to 1024".to_owned());
    }
    let origins = match arguments.with_origin {
        Some(listen) => {
            let behaviour = arguments.origin.behaviour();
            vec![bind(Origin { listen, behaviour, busy_poll: Duration::ZERO }, arguments.threads)?]
        }
        None => Vec::new(),
    };
    let usable = onehop_net::usable_cpus();
    if let Some(cpu) = arguments.cpus.iter().find(|cpu| !usable.contains(cpu)) {
        return Err(format!("--cpus {cpu}: this process may not run there; it may use {usable:?}"));
    }
    Generator::start(arguments.threads, &arguments.cpus, origins)
        .map_err(|error| format!("the generator's cores cannot be started: {error}"))
}

/// Prints to whoever still reads: a closed pipe (`| head`) is no failure of the run.
fn show(text: &str) {
    let _ = writeln!(std::io::stdout(), "{}", text.trim_end());
}

fn saturation(arguments: &Run, plan: &Plan, generator: &Generator) -> Result<ExitCode, String> {
    let search = Search {
        probe: arguments.probe,
        p99_limit: arguments.p99_limit,
        confirmations: arguments.confirmations,
        arrivals: arguments.arrivals,
    };
    let quiet = arguments.quiet;
    let found = saturation::find(generator, plan, &search, &mut |probe| {
        if !quiet {
            let verdict = probe.against.as_deref().unwrap_or("borne");
            eprintln!("{:>9.0} offered  {:>9.0} answered  {verdict}", probe.offered, probe.achieved);
        }
    })?;
    let put = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    if let Some(path) = &arguments.json {
        put(path, format!("{:#}\n", found.json()))?;
    }
    if let Some(path) = &arguments.html {
        put(path, found.html(&format!("Saturation of {}", plan.mix.target())))?;
    }
    show(&found.text());
    Ok(if found.rate.is_some() { ExitCode::SUCCESS } else { ExitCode::from(UNWELL) })
}

fn write(arguments: &Run, plan: &Plan, outcome: &Outcome) -> Result<(), String> {
    let put = |path: &Path, text: String| {
        std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
    };
    if let Some(path) = &arguments.json {
        put(path, format!("{:#}\n", json::run(plan, outcome)))?;
    }
    if let Some(path) = &arguments.html {
        put(path, html::run(plan, outcome))?;
    }
    if let Some(path) = &arguments.interval_log {
        put(path, hdr::interval_log(outcome, env!("CARGO_PKG_VERSION")))?;
    }
    Ok(())
}

/// What is sent beside the URL.
fn content(arguments: &Run) -> Result<Content, String> {
    let mut content = Content {
        method: arguments.method.clone(),
        headers: arguments.header.clone(),
        body: arguments.body.clone().unwrap_or_default().into_bytes(),
        close: arguments.new_connections,
        is_call: arguments.http2.grpc.is_some(),
    };
    if let Some(path) = &arguments.body_file {
        content.body = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    if content.is_call {
        // Whatever the body: a call is a POST.
        content.method = content.method.or(Some("POST".to_owned()));
    }
    if let Some(size) = arguments.body_size {
        content.body = vec![b'x'; size];
    }
    Ok(content)
}

fn plan(arguments: &Run) -> Result<Plan, String> {
    let mut content = content(arguments)?;
    let mix = match (&arguments.urls, &arguments.url) {
        (Some(path), _) => {
            let lines = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
            Mix::read(&lines, &content, &|target| arguments.http2.aim(target))
                .map_err(|what| format!("{}: {what}", path.display()))?
        }
        (None, Some(url)) => {
            let target = arguments.http2.aim(Target::parse(url)?)?;
            if target.scheme == Scheme::Echo && content.body.is_empty() {
                content.body = vec![b'x'; 128];
            }
            Mix::single(Prepared::new(target, &content)?)
        }
        (None, None) => return Err("a URL is needed".to_owned()),
    };
    if arguments.connections < arguments.threads || arguments.connections > 1_000_000 {
        return Err("--connections is at least --threads and at most a million".to_owned());
    }
    if arguments.duration.is_zero() || arguments.timeout.is_zero() {
        return Err("--duration and --timeout are above zero".to_owned());
    }
    let pacing = match arguments.rate {
        Some(rate) => Loop::Open { rate, arrivals: arguments.arrivals },
        None => Loop::Closed,
    };
    let wanted = Wanted {
        ca: arguments.ca.clone(),
        certificate: arguments.cert.clone(),
        key: arguments.key.clone(),
        server_name: arguments.server_name.clone(),
        insecure: arguments.insecure,
        no_resumption: arguments.no_resumption,
        one_choice: false,
        http2: arguments.http2.is_wanted(),
    };
    let is_tls = mix.target().scheme == Scheme::Https;
    let tls = is_tls.then(|| Tls::new(&wanted, &mix.target().host)).transpose()?;
    Ok(Plan {
        address: mix.target().resolve()?,
        tls,
        protocol: arguments.http2.protocol(mix.target().scheme)?,
        http2: arguments.http2.plan(arguments.connections, arguments.new_connections)?,
        mix,
        expect: Expect {
            statuses: arguments.expect_status.clone(),
            length: arguments.expect_length.map(|length| length as u64),
            checksum: arguments.expect_crc32,
        },
        pacing,
        connections: arguments.connections,
        new_connections: arguments.new_connections,
        timeout: arguments.timeout,
        duration: arguments.duration,
        warm_up: arguments.warm_up,
        seed: arguments.seed,
        spin: arguments.spin,
        slice: Duration::from_secs(1).min(arguments.duration),
        omit: arguments.omit_on_purpose,
    })
}
