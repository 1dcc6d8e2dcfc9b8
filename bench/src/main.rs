//! The `onehop-bench` binary.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use onehop_bench::hop::runner::{self, Place};
use onehop_bench::hop::{Measured, Scenario, scenario};
use onehop_bench::lateness;
use onehop_bench::peers::{self, Layer};
use onehop_bench::report::analysis::{Analysis, analyse};
use onehop_bench::report::{agreement, html, markdown, readme, setup};
use onehop_bench::selftest::{self, SelfTest};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What the extra hop costs: Onehop, a relay that parses nothing, and other proxies, in interleaved blocks.
#[derive(Parser)]
#[command(name = "onehop-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs the comparison and writes its report; scenario by scenario into one folder if asked so.
    ///
    /// Exit code: 0 when all was measured and can be trusted; 3 when a peer is missing, a self-test failed or a
    /// scenario is void (the report says which); 1 when nothing could be measured.
    Hop(HopCommand),
    /// Runs the instrument's self-tests alone.
    SelfTest(Where),
    /// Measures how late the generator sends, beside a bare loop on the same CPU.
    ///
    /// Exit code: 3 when the target is missed.
    Lateness(Pins),
    /// Writes a folder's report anew from its raw results.
    Report {
        /// The folder.
        folder: PathBuf,
    },
    /// Says whether two runs agree: whether the confidence intervals of their figures overlap.
    ///
    /// Exit code: 3 when they do not.
    Agree {
        /// The first run's folder.
        first: PathBuf,
        /// The second run's.
        second: PathBuf,
    },
    /// Puts a run's headline (table and picture) into the README, between its marks.
    Headline {
        /// The run's folder, as the README's folder reaches it.
        folder: PathBuf,
        /// The README.
        #[arg(long, default_value = "README.md")]
        readme: PathBuf,
    },
    /// Says which proxies are installed.
    Peers,
}

#[derive(Args)]
struct HopCommand {
    /// Scenarios to run: names of built-in ones, or files; may be repeated. The usual built-in ones by default.
    #[arg(long, value_name = "NAME|FILE")]
    scenario: Vec<String>,
    /// Runs all built-in scenarios.
    #[arg(long, conflicts_with = "scenario")]
    all: bool,
    /// Takes over the rates of an earlier run, so that both can be compared (`agree`).
    #[arg(long, value_name = "FOLDER")]
    rates_of: Option<PathBuf>,
    /// Runs no self-tests (those of the folder, from an earlier call, stay).
    #[arg(long)]
    no_self_test: bool,
    /// A rehearsal: two lives and blocks of 300 ms. It shows that all of it runs here; its figures say little.
    #[arg(long)]
    short: bool,
    #[command(flatten)]
    place: Where,
}

#[derive(Args)]
struct Where {
    /// The folder for results; by default results/DATE-COMMIT-MACHINE. Earlier scenarios in it stay.
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
    #[command(flatten)]
    pins: Pins,
}

#[derive(Args)]
struct Pins {
    /// CPU of the generator and the origin.
    #[arg(long, default_value_t = 0)]
    generator_cpu: usize,
    /// CPU of the candidates.
    #[arg(long, default_value_t = 1)]
    proxy_cpu: usize,
}

/// Measured, and not all of it as wanted.
const UNWELL: u8 = 3;

fn main() -> ExitCode {
    // Fewer connections fit where it fails.
    let _ = onehop_net::raise_open_files();
    let result = match Cli::parse().command {
        Command::Hop(hop) => hop_command(&hop),
        Command::SelfTest(place) => self_test(&place),
        Command::Lateness(pins) => late(&pins),
        Command::Report { folder } => report(&folder, None),
        Command::Agree { first, second } => agree(&first, &second),
        Command::Headline { folder, readme } => headline(&folder, &readme),
        Command::Peers => {
            list_peers();
            Ok(true)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(UNWELL),
        Err(message) => {
            eprintln!("onehop-bench: {message}");
            ExitCode::FAILURE
        }
    }
}

fn list_peers() {
    for peer in peers::all() {
        println!("{:<12} {}", peer.name(), peer.description());
        for (layer, name) in Layer::ALL {
            match peer.version(layer) {
                Ok(version) => println!("{:<12}   {name}: {version}", ""),
                Err(why) => println!("{:<12}   {name}: missing: {why}", ""),
            }
        }
    }
}

fn pinned(pins: &Pins, folder: PathBuf) -> Result<Place, String> {
    let usable = onehop_net::usable_cpus();
    let (generator_cpu, proxy_cpu) = (pins.generator_cpu, pins.proxy_cpu);
    for cpu in [generator_cpu, proxy_cpu] {
        if !usable.contains(&cpu) {
            return Err(format!(
                "CPU {cpu} cannot be pinned to: this process may use {usable:?} (--generator-cpu, --proxy-cpu)"
            ));
        }
    }
    if generator_cpu == proxy_cpu {
        return Err("generator and candidates need a CPU each: on one they would measure each other".to_owned());
    }
    if cfg!(debug_assertions) {
        eprintln!("onehop-bench: this is a debug build: its figures say nothing (cargo build --release --workspace)");
    }
    Ok(Place { generator_cpu, proxy_cpu, folder })
}

fn late(pins: &Pins) -> Result<bool, String> {
    let (text, met) = lateness::table(&pinned(pins, PathBuf::new())?)?;
    println!("{text}");
    Ok(met)
}

fn place(arguments: &Where) -> Result<Place, String> {
    let name = || format!("results/{}-{}-{}", setup::date(), setup::commit(), setup::machine());
    let folder = arguments.into.clone().unwrap_or_else(|| PathBuf::from(name()));
    let place = pinned(&arguments.pins, folder)?;
    std::fs::create_dir_all(&place.folder).map_err(|error| format!("{}: {error}", place.folder.display()))?;
    Ok(place)
}

fn scenarios(wanted: &[String]) -> Result<Vec<Scenario>, String> {
    if wanted.is_empty() {
        return Ok(scenario::usual());
    }
    let mut found = Vec::new();
    for name in wanted {
        match scenario::builtin().into_iter().find(|scenario| scenario.name == *name) {
            Some(scenario) => found.push(scenario),
            None if Path::new(name).exists() => found.extend(scenario::load(Path::new(name))?),
            None => {
                let names: Vec<String> = scenario::builtin().into_iter().map(|scenario| scenario.name).collect();
                return Err(format!("\"{name}\" is neither a scenario ({}) nor a file", names.join(", ")));
            }
        }
    }
    Ok(found)
}

fn hop_command(arguments: &HopCommand) -> Result<bool, String> {
    let mut scenarios = if arguments.all { scenario::builtin() } else { scenarios(&arguments.scenario)? };
    if let Some(folder) = &arguments.rates_of {
        for (measured, _) in read(folder)? {
            for scenario in scenarios.iter_mut().filter(|scenario| scenario.name == measured.scenario.name) {
                scenario.rate = format!("{}", measured.rate);
            }
        }
    }
    if arguments.short {
        scenarios = scenarios.into_iter().map(Scenario::rehearsed).collect();
    }
    let place = place(&arguments.place)?;
    let begun = Instant::now();
    let mut say = |line: &str| eprintln!("[{:>4} s] {line}", begun.elapsed().as_secs());
    let names: Vec<&str> = scenarios.iter().map(|scenario| scenario.name.as_str()).collect();
    let tests = if arguments.no_self_test { Duration::ZERO } else { selftest::TAKES };
    let minutes = scenarios.iter().map(runner::estimate).fold(tests, |sum, one| sum + one).as_secs_f64() / 60.0;
    let before = if arguments.no_self_test { "" } else { "self-tests, " };
    say(&format!("{before}{}: about {minutes:.0} minutes, into {}", names.join(", "), place.folder.display()));
    if !arguments.no_self_test {
        save_self_test(&selftest::run(&place, &mut say)?, &place.folder)?;
    }
    let mut well = true;
    for scenario in &scenarios {
        let keep = |measured: &Measured| runner::save(measured, &place.folder);
        if let Err(why) = runner::measure(scenario, &place, &mut say, &mut { keep }) {
            // What the other scenarios gave is worth having.
            eprintln!("onehop-bench: {}: {why}", scenario.name);
            well = false;
        }
    }
    Ok(report(&place.folder, Some(&place))? && well)
}

fn self_test(arguments: &Where) -> Result<bool, String> {
    let place = place(arguments)?;
    let result = selftest::run(&place, &mut |line| eprintln!("{line}"))?;
    save_self_test(&result, &place.folder)?;
    Ok(result.passed())
}

fn save_self_test(result: &SelfTest, folder: &Path) -> Result<(), String> {
    let text = serde_json::to_string_pretty(result).map_err(|error| error.to_string())?;
    put(&folder.join("self-test.json"), &(text + "\n"))
}

fn put(path: &Path, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// Writes a folder's reports from its raw results; whether all is well with them.
fn report(folder: &Path, place: Option<&Place>) -> Result<bool, String> {
    let results = read(folder)?;
    if results.is_empty() {
        return Err(format!("{} holds no results (scenarios/*.json)", folder.display()));
    }
    let text = std::fs::read_to_string(folder.join("self-test.json")).ok();
    let selftest: Option<SelfTest> = text.and_then(|text| serde_json::from_str(&text).ok());
    let setup_path = folder.join("SETUP.md");
    let measured: Vec<Measured> = results.iter().map(|(measured, _)| measured.clone()).collect();
    let setup_text = match place {
        Some(place) => setup::markdown(&measured, place),
        // Written anew elsewhere, the report must not speak of that machine.
        None => std::fs::read_to_string(&setup_path).unwrap_or_default(),
    };
    put(&setup_path, &setup_text)?;
    let summary = markdown::summary(&results, selftest.as_ref());
    put(&folder.join("summary.md"), &summary)?;
    put(&folder.join("headline.md"), &markdown::headline(&results))?;
    put(&folder.join("report.html"), &html::report(&results, selftest.as_ref(), &setup_text))?;
    if let Some(picture) = html::picture(&results) {
        put(&folder.join("headline.svg"), &picture)?;
    }
    // A closed pipe is no failure of the run.
    let _ = writeln!(std::io::stdout(), "{summary}\nreport: {}", folder.join("report.html").display());
    let tested = selftest.is_some_and(|selftest| selftest.passed());
    let trusted = |(measured, analysis): &(Measured, Analysis)| {
        analysis.void.is_none() && measured.missing.is_empty() && measured.notes.is_empty()
    };
    Ok(tested && results.iter().all(trusted))
}

fn agree(first: &Path, second: &Path) -> Result<bool, String> {
    let (one, two) = (read(first)?, read(second)?);
    if one.is_empty() || two.is_empty() {
        return Err(format!("{} and {} do not both hold results", first.display(), second.display()));
    }
    let (text, well) = agreement::compare(&one, &two);
    println!("{text}");
    Ok(well)
}

fn headline(folder: &Path, path: &Path) -> Result<bool, String> {
    let root = path.parent().unwrap_or(Path::new("."));
    let results = read(&root.join(folder))?;
    if results.is_empty() {
        return Err(format!("{} holds no results (scenarios/*.json)", root.join(folder).display()));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    let new = readme::with_headline(&text, &markdown::headline(&results), folder, &setup::machine_in_words())
        .map_err(|what| format!("{}: {what}", path.display()))?;
    put(path, &new)?;
    Ok(true)
}

/// A folder's raw results, in the order of the built-in scenarios, others behind.
fn read(folder: &Path) -> Result<Vec<(Measured, Analysis)>, String> {
    let mut results = Vec::new();
    for entry in std::fs::read_dir(folder.join("scenarios")).into_iter().flatten().flatten() {
        let path = entry.path();
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let measured: Measured = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let analysis = analyse(&measured).map_err(|what| format!("{}: {what}", path.display()))?;
        results.push((measured, analysis));
    }
    let order: Vec<String> = scenario::builtin().into_iter().map(|scenario| scenario.name).collect();
    let place = |name: &str| order.iter().position(|other| other == name).unwrap_or(order.len());
    results.sort_by_key(|(measured, _)| (place(&measured.scenario.name), measured.scenario.name.clone()));
    Ok(results)
}
