//! What a reader must know to judge the figures: the machine, the pinning, the versions, the command.

use std::fmt::Write;
use std::process::Command;

use crate::hop::Measured;
use crate::hop::runner::Place;

fn file(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The CPU's name.
pub fn cpu() -> String {
    let text = file("/proc/cpuinfo");
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    line.and_then(|line| line.split_once(':'))
        .map_or_else(|| "unknown CPU".to_owned(), |(_, name)| name.trim().to_owned())
}

/// A short name of the machine for a folder's name: CPU and its number, not the host.
pub fn machine() -> String {
    let word = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let name: String = cpu().chars().map(word).collect();
    let short: Vec<&str> = name.split('-').filter(|word| !word.is_empty() && *word != "processor").take(3).collect();
    format!("{}-{}cpu", short.join("-"), onehop_net::usable_cpus().len())
}

/// The machine in a few words.
pub fn machine_in_words() -> String {
    let kind = if file("/proc/cpuinfo").contains("hypervisor") { " virtual" } else { "" };
    format!("{}, {}{kind} CPUs", cpu(), onehop_net::usable_cpus().len())
}

/// The commit that the binaries were built from, as far as the working tree tells.
pub fn commit() -> String {
    let commit = said("git", &["rev-parse", "--short", "HEAD"]);
    if commit.is_empty() { "unknown".to_owned() } else { commit }
}

/// Today, as 2026-11-24.
pub fn date() -> String {
    let days = (onehop_load::generator::unix_time() / 86400.0) as i64;
    // Days since 0000-03-01, in the proleptic Gregorian calendar (Hinnant's civil_from_days).
    let z = days + 719_468;
    let (era, day) = (z.div_euclid(146_097), z.rem_euclid(146_097));
    let year_of_era = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_of_year = day - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let (month, date) =
        (if shifted < 10 { shifted + 3 } else { shifted - 9 }, day_of_year - (153 * shifted + 2) / 5 + 1);
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{date:02}")
}

/// SETUP.md.
pub fn markdown(measured: &[Measured], place: &Place) -> String {
    let mut text = "# Setup\n\n".to_owned();
    let memory = file("/proc/meminfo")
        .lines()
        .next()
        .unwrap_or("")
        .split_whitespace()
        .nth(1)
        .and_then(|kib| kib.parse::<u64>().ok());
    let _ = write!(
        text,
        "- date: {}; commit: {}\n- kernel: {}\n- CPU: {}, {} usable; memory: {} MiB{}\n",
        date(),
        commit(),
        file("/proc/sys/kernel/osrelease").trim(),
        cpu(),
        onehop_net::usable_cpus().len(),
        memory.unwrap_or(0) / 1024,
        if file("/proc/cpuinfo").contains("hypervisor") { "; a virtual machine" } else { "" },
    );
    let _ = write!(
        text,
        "- pinning: generator and origin share one thread and one ring on CPU {}, which never sleeps; each candidate has \
         one worker on CPU {}; only one is loaded at a time, the others wait\n- network: loopback\n- command: `{}`\n",
        place.generator_cpu,
        place.proxy_cpu,
        std::env::args().map(|word| word.rsplit('/').next().unwrap_or(&word).to_owned()).collect::<Vec<_>>().join(" "),
    );
    text += "\n| candidate | version | what it is |\n|---|---|---|\n";
    let mut seen = Vec::new();
    for candidate in measured.iter().flat_map(|measured| &measured.candidates) {
        if !seen.contains(&candidate.name) {
            let _ = writeln!(text, "| {} | {} | {} |", candidate.name, candidate.version, candidate.description);
            seen.push(candidate.name.clone());
        }
    }
    for (name, why) in measured.iter().flat_map(|measured| &measured.missing) {
        if !seen.contains(name) {
            let _ = writeln!(text, "| {name} | not measured | {why} |");
            seen.push(name.clone());
        }
    }
    text += "\nThe configuration of each candidate in each scenario is in `configs/`.\n\n";
    text += "| scenario | connections | rate | blocks |\n|---|---|---|---|\n";
    for measured in measured {
        let scenario = &measured.scenario;
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} a second ({}) | {} lives x {} rounds x {} |",
            scenario.title,
            scenario.connections,
            measured.rate,
            scenario.rate,
            scenario.restarts,
            scenario.rounds,
            scenario.block
        );
    }
    text
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_date_is_one_and_the_machine_has_a_short_name() {
        let date = super::date();
        assert!(date.len() == 10 && date.starts_with("20"), "{date}");
        let machine = super::machine();
        assert!(machine.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{machine}");
    }
}
