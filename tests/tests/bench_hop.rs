//! The hop comparison as its users run it: what it writes, what it merges, and what it says of what is missing or wrong.
//! No figure decides anything here: debug builds on a busy machine are measured.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

use onehop_tests::{binary, build, folder};
use serde_json::Value;

static BENCH: OnceLock<PathBuf> = OnceLock::new();

fn bench(arguments: &[&str], path: Option<&str>) -> Output {
    let program = BENCH.get_or_init(|| {
        binary();
        build("raw-relay");
        build("onehop-bench")
    });
    let mut command = Command::new(program);
    if let Some(path) = path {
        command.env("PATH", path);
    }
    command.args(arguments).output().expect("runs")
}

fn scenario(name: &str, more: &str) -> PathBuf {
    let path = folder().join(format!("{name}.toml"));
    let text = format!(
        "name = \"{name}\"\ntitle = \"A test\"\nprotocol = \"http\"\nsize = \"100\"\nconnections = 4\nrate = \"200\"\n\
         restarts = 1\nrounds = 2\nblock = \"200ms\"\n{more}\n"
    );
    std::fs::write(&path, text).expect("writes");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

fn has_two_cpus() -> bool {
    let two = onehop_net::usable_cpus().starts_with(&[0, 1]);
    if !two {
        println!("skipped: it needs the CPUs 0 and 1");
    }
    two
}

#[test]
fn a_comparison_is_written_and_scenarios_are_merged() {
    if !has_two_cpus() {
        return;
    }
    let into = folder();
    let gateway = scenario("one-hop", "kind = \"gateway\"\ncandidates = [\"raw-relay\", \"onehop\", \"onehop-poll\"]");
    let mesh = scenario("two-hops", "kind = \"mesh\"\ncandidates = [\"onehop\"]");
    for (file, more) in [(&gateway, &[][..]), (&mesh, &["--short"])] {
        let arguments = ["hop", "--no-self-test", "--scenario", text(file), "--into", text(&into)];
        let output = bench(&[&arguments, more].concat(), None);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(error.lines().any(|line| line.contains(": about 0 minutes, into")), "{error}");
        // Without self-tests nothing can be trusted: three.
        assert_eq!(output.status.code(), Some(3), "{error}");
    }
    let summary = std::fs::read_to_string(into.join("summary.md")).expect("a summary");
    for part in
        ["added p99.9, us", "raw-relay", "onehop-poll", "unexplained rest", "two plain hops", "self-tests have not"]
    {
        assert!(summary.contains(part), "{part}: {summary}");
    }
    let html = std::fs::read_to_string(into.join("report.html")).expect("a page");
    assert!(html.contains("</svg>") && !html.contains("src=") && !html.contains("NaN us"));
    assert!(std::fs::read_to_string(into.join("SETUP.md")).expect("a setup").contains("kernel"));
    assert!(into.join("headline.svg").is_file() && into.join("headline.md").is_file());
    assert!(into.join("configs/one-hop/onehop/onehop.toml").is_file());
    let rehearsed = std::fs::read_to_string(into.join("scenarios/two-hops.json")).expect("raw results");
    let rehearsed: Value = serde_json::from_str(&rehearsed).expect("JSON");
    assert_eq!((&rehearsed["scenario"]["block"], &rehearsed["scenario"]["restarts"]), (&"300ms".into(), &2.into()));
    let raw = std::fs::read_to_string(into.join("scenarios/one-hop.json")).expect("raw results");
    let raw: Value = serde_json::from_str(&raw).expect("JSON");
    let blocks = raw["blocks"].as_array().expect("blocks");
    // Four candidates: one closed block each, and two rounds.
    assert_eq!(blocks.len(), 4 * 3);
    for block in blocks.iter().filter(|block| block["candidate"] == "onehop") {
        assert!(block["usage"]["cpu_ns"].as_u64().expect("a number") > 0 && block["failed"] == 0, "{block}");
        let (ledger, requests) = (block["ledger"]["requests"].as_f64(), block["requests"].as_f64());
        assert!(ledger.zip(requests).is_some_and(|(ledger, requests)| ledger >= requests), "{block}");
    }
    let again = bench(&["report", text(&into)], None);
    assert!(String::from_utf8_lossy(&again.stdout).contains("A test"));
    runs_are_compared(&raw);
    let readme = folder().join("README.md");
    std::fs::write(&readme, "# A\n<!-- headline -->\nold\n<!-- /headline -->\nrest\n").expect("writes");
    let output = bench(&["headline", text(&into), "--readme", text(&readme)], None);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let new = std::fs::read_to_string(&readme).expect("a README");
    assert!(new.contains("| A test") && new.ends_with("rest\n") && !new.contains("old"), "{new}");
}

/// A run agrees with itself; where a candidate takes ten times the CPU it does not.
fn runs_are_compared(raw: &Value) {
    let other = folder();
    std::fs::create_dir_all(other.join("scenarios")).expect("a folder");
    let mut raw = raw.clone();
    for block in raw["blocks"].as_array_mut().expect("blocks") {
        assert!(block["usage"]["cpu_ns"].is_u64());
        // What is measured on a busy machine spreads so widely that its interval could reach anything.
        block["usage"]["cpu_ns"] = Value::from(block["requests"].as_u64().expect("a number") * 1_000_000);
        // A busy machine would make both runs void.
        (block["foreign"], block["stolen"]) = (Value::from(0.0), Value::from(0.0));
        block["lateness"] = serde_json::json!([0, 0, 0, 0]);
    }
    std::fs::write(other.join("scenarios/one-hop.json"), raw.to_string()).expect("writes");
    let quiet = folder();
    std::fs::create_dir_all(quiet.join("scenarios")).expect("a folder");
    for block in raw["blocks"].as_array_mut().expect("blocks") {
        block["usage"]["cpu_ns"] = Value::from(block["requests"].as_u64().expect("a number") * 100_000);
    }
    std::fs::write(quiet.join("scenarios/one-hop.json"), raw.to_string()).expect("writes");
    let output = bench(&["agree", text(&quiet), text(&quiet)], None);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains("say the same"), "{said}");
    let output = bench(&["agree", text(&quiet), text(&other)], None);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.code() == Some(3) && said.contains("do NOT say the same"), "{said}");
}

#[test]
fn peers_that_are_not_installed_are_named() {
    if !has_two_cpus() {
        return;
    }
    let into = folder();
    let file = scenario("missing", "kind = \"gateway\"\ncandidates = [\"raw-relay\", \"envoy\"]");
    let arguments = ["hop", "--no-self-test", "--scenario", text(&file), "--into", text(&into)];
    let output = bench(&arguments, Some("/nowhere"));
    assert_eq!(output.status.code(), Some(3));
    let summary = std::fs::read_to_string(into.join("summary.md")).expect("what could be measured is kept");
    assert!(summary.contains("envoy was not measured: envoy is not installed"), "{summary}");
    assert!(std::fs::read_to_string(into.join("SETUP.md")).expect("a setup").contains("| envoy | not measured |"));
    let peers = bench(&["peers"], Some("/nowhere"));
    assert!(String::from_utf8_lossy(&peers.stdout).contains("missing: envoy is not installed"));
}

#[test]
fn what_is_wrong_is_said() {
    let into = folder();
    let bad = scenario("bad", "kind = \"tunnel\"");
    let good = scenario("good", "kind = \"gateway\"");
    let cases: [(&[&str], &str); 6] = [
        (&["--scenario", text(&bad)], "unknown variant `tunnel`"),
        (&["--scenario", "no-such-scenario"], "neither a scenario"),
        (&["--scenario", text(&good), "--proxy-cpu", "4000"], "CPU 4000 cannot be pinned to"),
        (&["--scenario", text(&good), "--proxy-cpu", "0"], "need a CPU each"),
        (&["--scenario", text(&good), "--into", "/proc/nowhere"], "/proc/nowhere"),
        (&["--frobnicate"], "--frobnicate"),
    ];
    for (arguments, part) in cases {
        let mut all = vec!["hop", "--no-self-test"];
        if !arguments.contains(&"--into") {
            all.extend(["--into", text(&into)]);
        }
        all.extend(arguments);
        let output = bench(&all, None);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && error.contains(part), "{arguments:?}: {error}");
    }
    let output = bench(&["report", text(&into)], None);
    assert!(String::from_utf8_lossy(&output.stderr).contains("holds no results"));
}

#[test]
fn http2_and_grpc_are_compared() {
    if !has_two_cpus() {
        return;
    }
    let into = folder();
    for (name, protocol) in [("translated", "h2-h1"), ("kept", "h2-h2"), ("called", "grpc")] {
        let file = scenario(name, "kind = \"gateway\"\nstreams = 3");
        let text_of = std::fs::read_to_string(&file).expect("written");
        let text_of = text_of.replace("protocol = \"http\"", &format!("protocol = \"{protocol}\""));
        std::fs::write(&file, text_of.replace("rounds = 2", "rounds = 1")).expect("writes");
        let output = bench(&["hop", "--no-self-test", "--scenario", text(&file), "--into", text(&into)], None);
        assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
        let raw = std::fs::read_to_string(into.join(format!("scenarios/{name}.json"))).expect("raw results");
        let raw: Value = serde_json::from_str(&raw).expect("JSON");
        let blocks = raw["blocks"].as_array().expect("blocks");
        // Whoever is installed answers as it should, in every version that it speaks.
        for candidate in ["direct", "raw-relay", "onehop", "onehop-poll", "nginx", "haproxy", "envoy"] {
            let own: Vec<&Value> = blocks.iter().filter(|block| block["candidate"] == candidate).collect();
            let missing = raw["missing"].as_array().expect("a list").iter().find(|entry| entry[0] == candidate);
            match missing {
                Some(entry) => println!("{protocol}: {candidate} was not measured: {}", entry[1]),
                None => assert_eq!(own.len(), 2, "{protocol}: {candidate}: {}", raw["notes"]),
            }
            assert!(own.iter().all(|block| block["failed"] == 0 && block["ok"].as_u64() > Some(0)), "{}", raw["notes"]);
        }
        let nginx = raw["missing"].to_string().contains("speaks HTTP/1.1 to upstreams");
        assert_eq!(nginx, protocol == "h2-h2" && !raw["missing"].to_string().contains("not installed"));
    }
}
