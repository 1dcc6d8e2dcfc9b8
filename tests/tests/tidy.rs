//! The house rules that a program can check.

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("readable").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() && !matches!(name.as_str(), "target" | "fuzz" | ".git") {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

/// A file's lines without its trailing test module.
fn code(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("readable");
    text.lines().take_while(|line| !line.starts_with("#[cfg(test)]")).map(str::to_owned).collect()
}

fn all() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["proxy", "loadgen", "bench", "tests/src"] {
        sources(&root().join(folder), &mut found);
    }
    assert!(found.len() > 50);
    found
}

#[test]
fn files_and_functions_stay_small() {
    for path in all() {
        let lines = code(&path);
        assert!(lines.len() <= 500, "{} has {} lines", path.display(), lines.len());
        let mut start = None;
        for (at, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let opens = line.trim_start();
            let is_function = ["fn ", "pub fn ", "async fn ", "pub async fn ", "pub(crate) fn ", "pub(super) fn "]
                .iter()
                .any(|word| opens.starts_with(word));
            if is_function && !line.trim_end().ends_with(';') && start.is_none() {
                start = Some((at, indent));
            }
            if let Some((from, depth)) = start
                && indent == depth
                && line.trim() == "}"
            {
                assert!(at - from < 75, "{}:{} is a function of {} lines", path.display(), from + 1, at - from + 1);
                start = None;
            }
        }
    }
}

#[test]
fn unsafe_stays_behind_its_wall_and_names_mean_something() {
    for path in all() {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        assert!(
            !["utils", "util", "common", "manager", "helpers", "misc"].contains(&name.as_str()),
            "{}",
            path.display()
        );
        let shown = path.display().to_string();
        if shown.contains("net/src/sys/") {
            continue;
        }
        for line in code(&path) {
            let line = line.split("//").next().unwrap_or("");
            assert!(
                !line.contains("unsafe {") && !line.contains("unsafe fn") && !line.contains("unsafe impl"),
                "{shown}: {line}"
            );
            assert!(!line.contains(".unwrap()"), "{shown}: {line}");
        }
    }
}

#[test]
fn every_module_says_what_it_is() {
    for path in all() {
        let text = std::fs::read_to_string(&path).expect("readable");
        assert!(text.starts_with("//!"), "{} has no head", path.display());
    }
}

#[test]
fn crates_import_only_lower_floors() {
    let floors = [("wire", 0), ("meter", 0), ("net", 1), ("plan", 1), ("config", 2), ("worker", 2), ("agent", 3)];
    for (name, floor) in floors {
        let manifest = std::fs::read_to_string(root().join("proxy").join(name).join("Cargo.toml")).expect("readable");
        let dependencies = manifest.split("[dev-dependencies]").next().unwrap_or("");
        for (other, height) in floors {
            let imports = dependencies.lines().any(|line| line.starts_with(&format!("onehop-{other}.")));
            assert!(!imports || height < floor, "{name} imports {other}");
        }
        assert!(!(name == "agent" && dependencies.contains("onehop-worker")), "the agent imports the worker");
    }
}
