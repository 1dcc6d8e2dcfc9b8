//! The same behaviours where the kernel refuses io_uring, as it does under containers' default seccomp profiles.

use std::path::Path;
use std::process::Command;

use onehop_tests::{Origin, Proxy};

fn launcher() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("without-io-uring")
}

fn is_missing() -> bool {
    let missing = !Command::new(launcher()).arg("true").status().is_ok_and(|status| status.success());
    if missing {
        eprintln!("skipped: no seccomp filter can be installed here (it takes Python and a kernel that allows it)");
    }
    missing
}

#[test]
fn a_refused_ring_is_said_and_replaced_by_epoll() {
    if is_missing() {
        return;
    }
    let origin = Origin::echo();
    let proxy = Proxy::start_with(&origin.config("", "", ""), &[], Some(&launcher()));
    assert!(proxy.said[0].contains("on epoll"), "{:?}", proxy.said);
    assert_eq!(proxy.connect("edge").get("/here").text(), "/here");
    assert!(proxy.admin("/metrics").1.contains("rung=\"epoll\""));
}

#[test]
fn the_behaviours_hold_without_the_ring() {
    if is_missing() {
        return;
    }
    let files = ["requests", "headers", "smuggling", "upstream_faults", "client_faults", "tcp", "lifecycle"];
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["test", "--quiet", "--workspace"]);
    for file in files {
        command.args(["--test", file]);
    }
    let output = command.env("ONEHOP_TEST_LAUNCHER", launcher()).output().expect("cargo runs");
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert_eq!(said.matches("test result: ok").count(), files.len(), "{said}");
}
