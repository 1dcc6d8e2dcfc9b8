//! Scenarios as TOML: what is asked, how often, through what.

use std::path::Path;
use std::time::Duration;

use onehop_load::origin::Size;
use onehop_load::schedule::Arrivals;
use onehop_load::units;
use serde::{Deserialize, Serialize};

pub use super::protocol::Protocol;
use super::session::Session;

/// What lies between the generator and the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Nothing, whatever the candidates: only direct runs.
    Direct,
    /// One hop.
    Gateway,
    /// Two hops one behind the other, as two sidecars are.
    Mesh,
}

/// One scenario, as it is written.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its short name: a file's name.
    pub name: String,
    /// What readers see.
    pub title: String,
    /// What lies between.
    pub kind: Kind,
    /// What is spoken.
    pub protocol: Protocol,
    /// Bytes of each answer; with tcp, of what is sent and comes back.
    pub size: String,
    /// Connections of the generator.
    pub connections: usize,
    /// Streams at once on each of them, with HTTP/2.
    #[serde(default = "once")]
    pub streams: usize,
    /// Requests a second, or a percentage of what the slowest candidate bears (such as "40%"). All candidates get the
    /// same rate.
    pub rate: String,
    /// How arrivals are spread.
    #[serde(default = "poisson")]
    pub arrivals: String,
    /// A new connection for each request.
    #[serde(default)]
    pub new_connections: bool,
    /// Between the two hops of a mesh: mutual TLS.
    #[serde(default)]
    pub mutual_tls: bool,
    /// The generator speaks mutual TLS with a single hop, which forwards in plain text: with handshakes of this kind.
    #[serde(default)]
    pub session: Option<Session>,
    /// Memory of the connections, one request each, is what this is about: quantiles are not compared.
    #[serde(default)]
    pub idle: bool,
    /// Candidates, by name; all of them where it is not given.
    #[serde(default)]
    pub candidates: Vec<String>,
    /// How often all processes are started anew.
    #[serde(default = "six")]
    pub restarts: usize,
    /// Blocks of each candidate in each life of the processes.
    #[serde(default = "once")]
    pub rounds: usize,
    /// Length of a block.
    #[serde(default = "second")]
    pub block: String,
    /// Seed of the blocks' order, the arrivals and the bootstrap.
    #[serde(default = "one")]
    pub seed: u64,
}

fn poisson() -> String {
    "poisson".to_owned()
}
fn six() -> usize {
    6
}
fn once() -> usize {
    1
}
fn one() -> u64 {
    1
}
fn second() -> String {
    "1s".to_owned()
}

/// How the rate is chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// So many requests a second.
    Absolute(f64),
    /// So much (0 to 1) of what the slowest candidate bears.
    OfSlowest(f64),
}

impl Scenario {
    /// Reads one.
    ///
    /// # Errors
    /// Where it is wrong, and how.
    pub fn parse(text: &str) -> Result<Scenario, String> {
        let scenario: Scenario = toml::from_str(text).map_err(|error| error.to_string())?;
        scenario.check()?;
        Ok(scenario)
    }

    fn check(&self) -> Result<(), String> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || !self.name.chars().all(plain) {
            return Err(format!("name = \"{}\": lower-case letters, digits and dashes", self.name));
        }
        if self.session.is_some() && (self.kind != Kind::Gateway || self.mutual_tls || self.protocol != Protocol::Http)
        {
            return Err(
                "session: it is for the kind \"gateway\" with http, where the generator shakes hands".to_owned()
            );
        }
        self.check_protocol()?;
        self.bytes().map_err(|what| format!("size = {what}"))?;
        self.rate().map_err(|what| format!("rate = {what}"))?;
        Arrivals::named(&self.arrivals).map_err(|what| format!("arrivals = {what}"))?;
        let block = self.block().map_err(|what| format!("block = {what}"))?;
        if !(Duration::from_millis(100)..=Duration::from_secs(60)).contains(&block) {
            return Err("block: between 100ms and 60s".to_owned());
        }
        for (name, value, most) in
            [("connections", self.connections, 50_000), ("restarts", self.restarts, 100), ("rounds", self.rounds, 1000)]
        {
            if value == 0 || value > most {
                return Err(format!("{name} = {value}: between 1 and {most}"));
            }
        }
        for candidate in self.candidates.iter().filter(|name| *name != "direct") {
            crate::peers::named(candidate).map_err(|what| format!("candidates: {what}"))?;
        }
        Ok(())
    }

    /// Whether its candidates need the certificates of a mesh.
    pub fn certificates_needed(&self) -> bool {
        self.mutual_tls || self.session.is_some()
    }

    /// Bytes of an answer.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn bytes(&self) -> Result<usize, String> {
        match Size::parse(&self.size)? {
            Size::Fixed(bytes) if bytes > 0 || self.protocol.is_http() => Ok(bytes),
            _ => Err(format!("\"{}\": a fixed size, so that blocks are alike", self.size)),
        }
    }

    /// How the rate is chosen.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn rate(&self) -> Result<Rate, String> {
        let Some(percent) = self.rate.strip_suffix('%') else {
            return units::rate(&self.rate).map(Rate::Absolute);
        };
        match percent.trim().parse::<f64>() {
            Ok(percent) if percent > 0.0 && percent <= 95.0 => Ok(Rate::OfSlowest(percent / 100.0)),
            _ => Err(format!("\"{}\": above 0 and at most 95 %, since at saturation latency is a queue", self.rate)),
        }
    }

    /// The same as a rehearsal: everything once or twice, briefly.
    #[must_use]
    pub fn rehearsed(self) -> Scenario {
        Scenario { restarts: 2, rounds: 1, block: "300ms".to_owned(), ..self }
    }

    /// Length of a block.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn block(&self) -> Result<Duration, String> {
        units::duration(&self.block)
    }
}

/// Reads scenarios: files of that path, or one file.
///
/// # Errors
/// The file, and what is wrong with it.
pub fn load(path: &Path) -> Result<Vec<Scenario>, String> {
    let mut files = vec![path.to_owned()];
    if path.is_dir() {
        let entries = std::fs::read_dir(path).map_err(|error| format!("{}: {error}", path.display()))?;
        files = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|p| p.extension().is_some_and(|e| e == "toml"))
            .collect();
        files.sort();
    }
    if files.is_empty() {
        return Err(format!("{} holds no scenario (*.toml)", path.display()));
    }
    let one = |file: &std::path::PathBuf| {
        let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        Scenario::parse(&text).map_err(|what| format!("{}: {what}", file.display()))
    };
    files.iter().map(one).collect()
}

/// The scenarios that come with the program, in the order of reports.
pub fn builtin() -> Vec<Scenario> {
    [
        include_str!("../../scenarios/http-small.toml"),
        include_str!("../../scenarios/low-load.toml"),
        include_str!("../../scenarios/http-medium.toml"),
        include_str!("../../scenarios/http-large.toml"),
        include_str!("../../scenarios/new-connection.toml"),
        include_str!("../../scenarios/h2-h2-100.toml"),
        include_str!("../../scenarios/h2-h2-512.toml"),
        include_str!("../../scenarios/h2-h1-100.toml"),
        include_str!("../../scenarios/h2-h1-512.toml"),
        include_str!("../../scenarios/grpc.toml"),
        include_str!("../../scenarios/tcp.toml"),
        include_str!("../../scenarios/mesh-plain.toml"),
        include_str!("../../scenarios/mesh-small.toml"),
        include_str!("../../scenarios/mesh-large.toml"),
        include_str!("../../scenarios/handshake-full.toml"),
        include_str!("../../scenarios/handshake-resumed.toml"),
        include_str!("../../scenarios/tls-bulk.toml"),
        include_str!("../../scenarios/idle.toml"),
    ]
    .into_iter()
    .map(|text| Scenario::parse(text).expect("a test reads them all"))
    .collect()
}

/// What runs unless scenarios are named: together with the self-tests within ten minutes.
const USUAL: [&str; 8] =
    ["http-small", "low-load", "http-medium", "http-large", "new-connection", "tcp", "mesh-small", "idle"];

/// The scenarios that run unless others are named.
pub fn usual() -> Vec<Scenario> {
    builtin().into_iter().filter(|scenario| USUAL.contains(&scenario.name.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_that_come_along_are_good_and_their_names_differ() {
        let mut names: Vec<String> = builtin().into_iter().map(|scenario| scenario.name).collect();
        assert_eq!(names.len(), 18);
        names.sort();
        names.dedup();
        assert_eq!(usual().len(), USUAL.len());
        assert_eq!(names.len(), 18);
    }

    #[test]
    fn malformed_ones_say_what_is_wrong() {
        let good = include_str!("../../scenarios/http-small.toml");
        for (from, to, part) in [
            ("size = \"128\"", "size = \"much\"", "size"),
            ("rate = \"", "rate = \"200%\"\n#", "at most 95"),
            ("kind = \"gateway\"", "kind = \"tunnel\"", "tunnel"),
            ("kind = \"gateway\"", "knid = \"gateway\"", "knid"),
            ("connections = ", "connections = 0 #", "connections"),
            ("kind = \"gateway\"", "kind = \"mesh\"\nsession = \"full\"", "session"),
            ("connections = ", "streams = 2\nconnections = ", "streams = 2"),
            ("protocol = \"http\"", "protocol = \"h2-h1\"\nmutual_tls = true", "plain and kept"),
            ("protocol = \"http\"", "protocol = \"h3\"", "h3"),
            ("name = \"http-small\"", "name = \"../x\"", "lower-case"),
            ("name = \"http-small\"", "name = \"x\"\ncandidates = [\"caddy\"]", "no candidate"),
        ] {
            assert!(good.contains(from), "{from}");
            let error = Scenario::parse(&good.replacen(from, to, 1)).expect_err(to);
            assert!(error.contains(part), "{to}: {error}");
        }
    }
}
