//! Who may do what: by identity and by what is asked for, for requests and for relayed connections.

use std::path::Path;

use onehop_tests::pki::{Authority, Leaf, files, put};
use onehop_tests::{Client, Origin, Proxy, Tls, eventually, folder};

const HEAD: &str = "[identity]\ncertificate = \"api.pem\"\nkey = \"api.key\"\nbundle = \"bundle.pem\"\n[sidecar]\noutbound = []\ninbound = []\n";

fn setting(folder: &Path, origin: &Origin, protocol: &str, rules: &str) -> (Proxy, Authority) {
    let authority = Authority::new("mesh");
    put(&folder.join("bundle.pem"), authority.pem());
    files(folder, "api", &authority, &Leaf::svid("spiffe://mesh.test/ns/shop/sa/api"));
    let text = format!(
        "{HEAD}[[sidecar.port]]\nlisten = \"127.0.0.1:0\"\nport = 80\nprotocol = \"{protocol}\"\napp = \"{}\"\n{rules}",
        origin.address()
    );
    let path = folder.join("authorization.toml");
    std::fs::write(&path, text).expect("writes");
    (Proxy::start_file(path, &[], None), authority)
}

fn client(folder: &Path, authority: &Authority, account: &str) -> Tls {
    let leaf = Leaf {
        dns: vec![format!("{account}.test")],
        ..Leaf::svid(&format!("spiffe://mesh.test/ns/shop/sa/{account}"))
    };
    let (certificate, key) = files(folder, account, authority, &leaf);
    Tls::new(Some((&certificate, &key)))
}

#[test]
fn requests_are_allowed_and_denied_by_rule() {
    let (folder, origin) = (folder(), Origin::echo());
    let rules = "[[authorization]]\naction = \"allow\"\nidentities = [\"spiffe://mesh.test/ns/shop/sa/web\"]\n\
                 [[authorization]]\naction = \"deny\"\npaths = [\"/admin\", \"/admin/*\"]\n\
                 [[authorization]]\nname = \"trial\"\naction = \"deny\"\ndry_run = true\npaths = [\"/soon\"]\n";
    let (proxy, authority) = setting(&folder, &origin, "http", rules);
    let address = proxy.address("inbound-80");
    let web = client(&folder, &authority, "web");
    let ask = |tls: &Tls, path: &str| tls.get(address, "api.test", path).map(|(_, status, body)| (status, body));
    assert_eq!(ask(&web, "/ok"), Ok((200, "/ok".to_owned())));
    for path in ["/admin", "/admin/x", "//admin", "/x/../admin", "/%61dmin"] {
        let (status, body) = ask(&web, path).expect("an answer");
        assert!(status == 403 && body.contains("access-denied"), "{path}: {status} {body}");
    }
    assert_eq!(ask(&web, "/soon").expect("an answer").0, 200);
    eventually("the trial is counted", || proxy.metric("onehop_listener_would_deny_total", "") == 1.0);
    let other = client(&folder, &authority, "other");
    assert_eq!(ask(&other, "/ok").expect("an answer").0, 403);
    // The connection goes on after a refusal.
    let mut one = other.connect(address, "api.test").expect("shakes hands");
    assert_eq!(
        (one.get("api.test", "/a").expect("an answer").0, one.get("api.test", "/b").expect("an answer").0),
        (403, 403)
    );
    eventually("every refusal is counted", || proxy.metric("onehop_listener_faults_total", "access-denied") >= 8.0);
}

#[test]
fn relayed_connections_are_judged_by_what_is_known() {
    let (folder, origin) = (folder(), Origin::start(|connection| connection.send("hello\n")));
    let rules = "[[authorization]]\naction = \"allow\"\nservice_accounts = [\"web\"]\n";
    let (proxy, authority) = setting(&folder, &origin, "tcp", rules);
    let address = proxy.address("inbound-80");
    let greet = |account: &str| {
        let mut client = client(&folder, &authority, account).connect(address, "api.test").expect("shakes hands");
        client.line()
    };
    assert_eq!(greet("web").as_deref(), Ok("hello\n"));
    assert!(greet("other").is_err(), "closed without a word");
    eventually("it is counted", || proxy.metric("onehop_listener_faults_total", "access-denied") >= 1.0);
}

#[test]
fn the_client_certificate_field_is_envoys_and_never_the_clients() {
    let (folder, origin) = (folder(), Origin::mirror());
    let (proxy, authority) = setting(&folder, &origin, "http", "");
    let web = client(&folder, &authority, "web");
    let (_, _, head) = web.get(proxy.address("inbound-80"), "api.test", "/").expect("an answer");
    let line = head
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("x-forwarded-client-cert"))
        .expect("it is there");
    let value = line.split_once(": ").expect("a value").1;
    assert!(value.starts_with("By=spiffe://mesh.test/ns/shop/sa/api;Hash="), "{value}");
    assert!(value.ends_with(";Subject=\"\";URI=spiffe://mesh.test/ns/shop/sa/web;DNS=web.test"), "{value}");
    // At the edge a client can claim nothing.
    let edge = Proxy::start(&origin.config("", "", ""));
    let claimed = Client::connect(edge.address("edge"))
        .ask("GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-Client-Cert: URI=spiffe://mesh.test/admin\r\n\r\n");
    assert!(!claimed.text().to_ascii_lowercase().contains("x-forwarded-client-cert"), "{}", claimed.text());
}
