//! The load generator and its origin speak gRPC: all four kinds of calls, judged by status, type and messages.

use onehop_tests::{Load, LoadOrigin};

fn run(origin: &str, more: &[&str]) -> Load {
    let base = ["-d", "300ms", "--warm-up", "0s", "--spin", "0us", "-c", "2", "--streams", "4"];
    Load::run(&[&base[..], more, &[origin]].concat())
}

#[test]
fn calls_of_all_kinds_are_answered() {
    let origin = LoadOrigin::start(&["--size", "500", "--grpc-messages", "7"]);
    for (kind, messages) in [("unary", 1.0), ("client", 1.0), ("server", 7.0), ("bidi", 7.0)] {
        for pace in [&["--closed"][..], &["--rate", "300"]] {
            let grpc = format!("--grpc={kind}");
            let more = [&grpc, "--messages", "7", "--body-size", "3000", "--expect-length", "500"];
            let load = run(&origin.url, &[&more[..], pace].concat());
            // On a busy machine the last arrival may come too late; what was sent is answered.
            assert_eq!(load.number("/counts/failed"), 0.0, "{kind}: {}{}", load.out, load.error);
            let calls = load.number("/counts/ok");
            assert!(calls > 20.0);
            assert_eq!(load.number("/counts/messages"), messages * calls, "{kind}");
            assert_eq!(load.number("/counts/grpc_statuses/0"), calls);
            assert!(load.out.contains("messages ("), "{}", load.out);
            assert!(load.error.contains(&format!("gRPC ({kind}, 7 messages a call), 4 streams")), "{}", load.error);
        }
    }
}

#[test]
fn a_conversation_takes_turns() {
    let origin = LoadOrigin::start(&["--echo-body"]);
    let more = ["--grpc=bidi", "--messages", "50", "--body-size", "100KiB", "--expect-length", "100KiB", "--closed"];
    let load = run(&origin.url, &more);
    assert!(load.succeeded(), "{}{}", load.out, load.error);
    let load = run(&origin.url, &["--grpc", "--body-size", "30000", "--expect-length", "30000", "--closed"]);
    assert!(load.succeeded(), "{}{}", load.out, load.error);
}

#[test]
fn what_is_wrong_with_a_call_is_told_apart() {
    let origin = LoadOrigin::start(&["--size", "500", "--grpc-messages", "7"]);
    let all = |more: &[&str], failure: &str| {
        let load = run(&origin.url, &[more, &["--closed"]].concat());
        assert_eq!(load.code, 3, "{more:?}: {}", load.out);
        let sent = load.number("/counts/sent");
        assert_eq!(load.number(&format!("/counts/failures/{failure}")), sent, "{more:?}: {}", load.out);
        assert_eq!(load.number("/latency/count"), 0.0);
    };
    all(&["--grpc=server", "--messages", "8"], "messages");
    all(&["--grpc", "--grpc-method", "/a.B/ServerStream"], "messages");
    all(&["--grpc", "--expect-length", "499"], "length");
    all(&["--grpc", "-H", "Content-Type: text/plain"], "content-type");
    let faulty = LoadOrigin::start(&["--errors", "1"]);
    let load = run(&faulty.url, &["--grpc", "--closed"]);
    assert_eq!(load.number("/counts/failures/grpc-status"), load.number("/counts/sent"), "{}", load.out);
    assert_eq!(load.number("/counts/grpc_statuses/14"), load.number("/counts/sent"));
    assert!(load.out.contains("grpc-status 14"), "{}", load.out);
}
