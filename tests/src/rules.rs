//! Clients that break HTTP/2, by a table: what each is told, and whether its connection goes on.

use crate::frames::{Frames, GET, Verdict};
use crate::{Client, Origin, Proxy};

/// What breaks a rule, how, and what is said to it.
pub type Case = (&'static str, fn(&mut Frames), Verdict);

/// Plays each on a connection of its own, while another one is served; panics with all that went otherwise.
pub fn judge(cases: &[Case]) {
    let origin = Origin::echo();
    let proxy = Proxy::start_with(&origin.config("", "connect = true", ""), &["--workers", "1"], None);
    let mut beside = Client::connect(proxy.address("edge"));
    let mut wrong = Vec::new();
    for (name, send, wanted) in cases {
        let mut client = Frames::connect(proxy.address("edge"));
        send(&mut client);
        let got = client.verdict();
        if got != *wanted {
            wrong.push(format!("{name}: {got:?}, not {wanted:?}"));
        } else if let Verdict::Stream(stream, _) = got {
            // The connection goes on.
            client.headers(stream + 2, &GET, true);
            let next = client.verdict();
            if next != Verdict::Answered(stream + 2) {
                wrong.push(format!("after {name}: {next:?}"));
            }
        }
        assert_eq!(beside.get("/beside").status, 200, "beside {name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
