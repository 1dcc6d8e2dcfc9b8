//! What a reload must not forget: how much of a rate is used up, who was drained by hand or ejected, and where clients
//! stick. In the changed file the endpoints stand in another order and have other weights.

use std::sync::atomic::{AtomicUsize, Ordering};

use onehop_tests::{Origin, Proxy, eventually};

/// Answers with its name, or with a failure.
fn named(name: &'static str, status: &'static str) -> Origin {
    Origin::start(move |connection| {
        while connection.head().is_some() {
            connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{name}", name.len()));
        }
    })
}

struct Shop {
    origins: [Origin; 4],
    reloads: AtomicUsize,
}

impl Shop {
    /// Each version has other weights, another order, and a route more than the one before.
    fn text(&self) -> String {
        let version = self.reloads.load(Ordering::SeqCst);
        let mut endpoints: Vec<String> = self
            .origins
            .iter()
            .enumerate()
            .map(|(at, origin)| {
                format!("{{ address = \"{}\", weight = {} }}", origin.address(), 1 + (at + version) % 3)
            })
            .collect();
        endpoints.rotate_left(version % 4);
        let routes: String = (0..version)
            .map(|at| format!("[[route]]\npath = {{ exact = \"/new-{at}\" }}\ncluster = \"c\"\n"))
            .collect();
        format!(
            "[[listener]]\nname = \"edge\"\naddress = \"127.0.0.1:0\"\n\
             [[route]]\nname = \"limited\"\npath = {{ prefix = \"/limited\" }}\nrespond = {{ text = \"ok\" }}\nrate_limits = [{{ requests = 3, per = \"1h\", by = {{ header = \"x-key\" }} }}]\n\
             [[route]]\nname = \"shop\"\ncluster = \"c\"\n{routes}\
             [[cluster]]\nname = \"c\"\nbalance = \"round-robin\"\nendpoints = [{}]\n\
             sticky = {{ cookie = \"srv\", secret = \"0123456789abcdef\" }}\n\
             outlier = {{ consecutive_5xx = 1, ejection = \"600s\", max_ejected = 50 }}\n",
            endpoints.join(", ")
        )
    }

    fn reload(&self, proxy: &Proxy) {
        self.reloads.fetch_add(1, Ordering::SeqCst);
        std::fs::write(&proxy.config, self.text()).expect("writes");
        proxy.wait_for_error("is in force");
    }
}

fn states(proxy: &Proxy) -> Vec<(String, String, String)> {
    let clusters: serde_json::Value = serde_json::from_str(&proxy.admin("/clusters").1).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let endpoints = clusters[0]["endpoints"].as_array().expect("endpoints");
    let mut all: Vec<_> =
        endpoints.iter().map(|it| (text(&it["address"]), text(&it["state"]), text(&it["reason"]))).collect();
    all.sort();
    all
}

#[test]
fn a_reload_forgets_nothing_that_was_learnt() {
    let shop = Shop {
        origins: [named("one", "200 OK"), named("two", "200 OK"), named("drained", "200 OK"), named("bad", "500 Bad")],
        reloads: AtomicUsize::new(0),
    };
    let proxy = Proxy::start(&shop.text());
    let limited = |key: &str| {
        let request = format!("GET /limited HTTP/1.1\r\nHost: a\r\nX-Key: {key}\r\n\r\n");
        proxy.connect("edge").ask(request).status
    };
    // One client has used up all, another one a part.
    assert_eq!([(); 4].map(|()| limited("all")), [200, 200, 200, 429]);
    assert_eq!([(); 2].map(|()| limited("part")), [200, 200]);
    let drained = shop.origins[2].address();
    assert_eq!(proxy.admin_post(&format!("/clusters/drain?cluster=c&endpoint={drained}")).0, 200);
    let plain = || proxy.connect("edge").get("/");
    eventually("it is ejected", || plain().status == 500);
    let first = plain();
    let cookie = first.field("set-cookie").and_then(|set| set.split(';').next()).expect("a cookie").to_owned();
    let stuck = || proxy.connect("edge").ask(format!("GET / HTTP/1.1\r\nHost: a\r\nCookie: {cookie}\r\n\r\n"));
    let before = states(&proxy);
    let count = |state: &str| before.iter().filter(|(_, known, _)| known == state).count();
    assert_eq!((count("drained"), count("ejected"), count("healthy")), (1, 1, 2), "{before:?}");
    for _ in 0..5 {
        shop.reload(&proxy);
        assert_eq!(states(&proxy), before);
        assert_eq!(limited("all"), 429);
        for _ in 0..6 {
            let again = stuck();
            assert_eq!((again.text(), again.field("set-cookie")), (first.text(), None));
            let name = plain().text();
            assert!(name == "one" || name == "two", "{name} was asked");
        }
    }
    assert_eq!([limited("part"), limited("part")], [200, 429]);
    // What is undone by hand stays undone.
    assert_eq!(proxy.admin_post(&format!("/clusters/restore?cluster=c&endpoint={drained}")).0, 200);
    shop.reload(&proxy);
    eventually("it serves again", || plain().text() == "drained");
}
