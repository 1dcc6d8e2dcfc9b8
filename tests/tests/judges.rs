//! 388 raw messages from the suites of two public parsers go through the gateway, and two strict parsers that we did
//! not write (h11 and llhttp) read what comes out: never differently. Skipped, with the reason, where the data beside
//! the project or the Python packages are not to be had.

use std::path::Path;
use std::process::Command;

use onehop_tests::{binary, folder};

#[test]
fn what_is_forwarded_is_read_alike_by_two_strict_parsers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let cases = root.join("../shared/data/h1_parser_cases.json");
    if !cases.exists() {
        eprintln!("skipped: {} is not there", cases.display());
        return;
    }
    let environment = root.join("target/judges");
    let python = environment.join("bin/python");
    if !python.exists() {
        let made = Command::new("python3").args(["-m", "venv"]).arg(&environment).status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("skipped: python3 cannot make a virtual environment");
            return;
        }
    }
    let installed =
        Command::new(&python).args(["-m", "pip", "install", "--quiet", "h11==0.16.0", "llhttp==9.3.0.0"]).output();
    let installed = installed.is_ok_and(|output| output.status.success());
    let installed = installed
        || Command::new(&python)
            .args(["-m", "pip", "install", "--quiet", "h11", "llhttp"])
            .status()
            .is_ok_and(|status| status.success());
    if !installed {
        eprintln!("skipped: h11 and llhttp cannot be installed from PyPI");
        return;
    }
    let output = Command::new(&python)
        .arg(root.join("tests/judges/judge.py"))
        .arg(&cases)
        .arg(binary())
        .current_dir(folder())
        .output()
        .expect("runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    eprintln!("{}", said.trim());
}
