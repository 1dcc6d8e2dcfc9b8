//! The language: what is read, and what each mistake is told.

use onehop_config::{Failure, load, parse, schema};
use onehop_meter::Registry;
use onehop_plan::compile;

const GOOD: &str = r#"
[[listener]]
name = "edge"
address = "127.0.0.1:8080"

[[route]]
cluster = "web"

[[cluster]]
name = "web"
endpoints = ["127.0.0.1:9000"]
"#;

/// Everything that is wrong with a text, as the user reads it.
fn errors(text: &str) -> String {
    match parse(&[("x.toml".to_owned(), text.to_owned())]) {
        Err(Failure::Wrong(wrong)) => wrong.iter().map(|wrong| format!("{wrong}\n")).collect(),
        Err(other) => other.to_string(),
        Ok(loaded) => match compile(&loaded.model, &Registry::new(1), None) {
            Ok(snapshot) => snapshot.warnings.iter().map(|warning| format!("{}\n", loaded.explain(warning))).collect(),
            Err(problems) => problems.iter().map(|problem| format!("{}\n", loaded.explain(problem))).collect(),
        },
    }
}

#[test]
fn a_good_text_compiles() {
    assert_eq!(errors(GOOD), "");
}

#[test]
fn each_mistake_is_placed_and_explained() {
    let cases = [
        ("[[listner]]\n", "x.toml:1:3: unknown key \"listner\"", "did you mean \"listener\"?"),
        ("[runtime]\ndrain = 5\n", "x.toml:2:9: drain: \"5\" has no unit", "did you mean \"5ms\" or \"5s\"?"),
        ("[runtime]\nadmin = \":9901\"\n", "x.toml:2:9: admin \":9901\" is no address", "\"0.0.0.0:9901\""),
        ("[runtime]\nworkers = -1\n", "x.toml:2:11: workers is out of range", ""),
        ("[runtime]\nworkers = \"two\"\n", "x.toml:2:11: workers must be a number, not a text", ""),
        ("x = \n", "x.toml:1:", ""),
        ("[[cluster]]\nname = \"c\"\nendpoints = [\"http://a:80/\"]\n", "x.toml:3:14: endpoint", "\"a:80\""),
        (
            "[[cluster]]\nname = \"c\"\nbalance = \"round-robbin\"\nendpoints = [\"a:1\"]\n",
            "x.toml:3:11: balance cannot be",
            "did you mean \"round-robin\"?",
        ),
    ];
    for (text, message, hint) in cases {
        let errors = errors(text);
        assert!(errors.contains(message), "{text:?} gave\n{errors}");
        assert!(errors.contains(hint), "{text:?} gave\n{errors}");
    }
}

#[test]
fn each_contradiction_is_placed_and_explained() {
    let with = |more: &str| format!("{GOOD}{more}");
    let cases = [
        (
            GOOD.replace("cluster = \"web\"", "cluster = \"wed\""),
            "x.toml:7:11: there is no cluster \"wed\"",
            "did you mean \"web\"?",
        ),
        (
            with("[[listener]]\nname = \"b\"\naddress = \"0.0.0.0:8080\"\n"),
            "overlaps with that of listener \"edge\"",
            "",
        ),
        (with("[[cluster]]\nname = \"web\"\nendpoints = [\"a:1\"]\n"), "two clusters named \"web\"", ""),
        (with("[[cluster]]\nname = \"none\"\n"), "cluster \"none\" has no endpoints", ""),
        (
            with("[[route]]\nname = \"twin\"\ncluster = \"web\"\n"),
            "x.toml:12:1: route \"twin\" is never used on listener \"edge\": \"route-1\" takes all of its requests",
            "the other stands at x.toml:6:1",
        ),
        (
            with("[[route]]\npath = { prefix = \"api\" }\ncluster = \"web\"\n"),
            "does not begin with a slash",
            "\"/api\"",
        ),
        (with("[[route]]\nhost = \"http://a\"\ncluster = \"web\"\n"), "more than a name", ""),
        (
            with("[[route]]\npath = { exact = \"/x\" }\nsplit = [{ cluster = \"web\", weight = 0 }]\n"),
            "every weight is zero",
            "",
        ),
        (
            with("[[route]]\npath = { exact = \"/x\" }\ncluster = \"web\"\nupgrade = [\"h2c\"]\n"),
            "h2c is never forwarded",
            "",
        ),
        (
            with("[[route]]\npath = { exact = \"/x\" }\ncluster = \"web\"\nheaders = { a = \"1\", A = \"2\" }\n"),
            "is asked to be two things at once",
            "",
        ),
        (
            with("[[route]]\npath = { exact = \"/x\" }\ncluster = \"web\"\nrate_limits = [{ requests = 0 }]\n"),
            "x.toml:15:15: a rate limit of zero would refuse everything",
            "respond",
        ),
        (
            with("[[route]]\npath = { exact = \"/x\" }\ncluster = \"web\"\nrate_limits = [{ per = \"1s\" }]\n"),
            "a rate limit needs a number of requests",
            "requests = 100",
        ),
        (
            with("[[route]]\npath = { exact = \"/x\" }\ncluster = \"web\"\npriority = \"hihg\"\n"),
            "priority cannot be \"hihg\"",
            "did you mean \"high\"?",
        ),
        (format!("{GOOD}health = {{ http = \"/\", grpc = \"x\" }}\n"), "by http, by grpc or by tcp", ""),
        (format!("{GOOD}health = {{ http = \"/\", expect = [\"99\"] }}\n"), "\"99\" is no status", "300-399"),
        (format!("{GOOD}sticky = {{ ttl = \"1h\" }}\n"), "a sticky cookie needs a name", "cookie = \"srv\""),
        (format!("{GOOD}sticky = {{ cookie = \"a;b\" }}\n"), "is no cookie's name", ""),
        (format!("{GOOD}adaptive = {{ min = 9, max = 3 }}\n"), "min is at least 1 and at most max", ""),
        (format!("{GOOD}limits = {{ endpoint_requests = 0 }}\n"), "a limit of zero would refuse everything", ""),
        (format!("{GOOD}subset_fallback = \"default\"\n"), "default goes with a default_subset", ""),
        (
            with("[[listener]]\nname = \"t\"\naddress = \"127.0.0.1:1\"\nlayer = \"tcp\"\n"),
            "a TCP listener needs a cluster",
            "",
        ),
    ];
    for (text, message, hint) in cases {
        let errors = errors(&text);
        assert!(errors.contains(message), "{text}\ngave\n{errors}");
        assert!(errors.contains(hint), "{text}\ngave\n{errors}");
    }
}

#[test]
fn what_nobody_reaches_is_placed_and_explained() {
    let with = |more: &str| format!("{GOOD}{more}");
    let cases = [
        (
            with(
                "[[route]]\nname = \"old\"\npath = { regex = \"/api/v[0-9]+\" }\ncluster = \"web\"\n[[route]]\npath = { prefix = \"/api\" }\ncluster = \"web\"\n",
            ),
            "x.toml:12:1: route \"old\" is never used on listener \"edge\": \"route-3\" takes all of its requests",
            "the other stands at x.toml:16:1",
        ),
        (
            with("[[route]]\npath = { exact = \"/a//b\" }\ncluster = \"web\"\n"),
            "x.toml:13:8: route \"route-2\" is never used on listener \"edge\": no path is \"/a//b\" once it is in normal form",
            "\"/a/b\"",
        ),
        (
            with("[[route]]\nlisteners = [\"edge\"]\nsni = [\"a.example\"]\ncluster = \"web\"\n"),
            "x.toml:14:7: route \"route-2\" is never used on listener \"edge\": it has no TLS",
            "",
        ),
        (
            with(
                "balance = \"maglev\"\nhash_on = { cookie = \"a\" }\n[[listener]]\nname = \"t\"\naddress = \"127.0.0.1:1\"\nlayer = \"tcp\"\ncluster = \"web\"\n",
            ),
            "x.toml:18:11: cluster \"web\" chooses by a value that TCP connections do not have",
            "hash_on = { source = true }",
        ),
    ];
    for (text, message, hint) in cases {
        let errors = errors(&text);
        assert!(errors.contains(message), "{text}\ngave\n{errors}");
        assert!(errors.contains(hint), "{text}\ngave\n{errors}");
    }
}

#[test]
fn what_is_said_of_failures_is_checked() {
    let cases = [
        ("retry = { on = [\"gateway-errors\"] }", "on cannot be \"gateway-errors\"", "did you mean \"gateway-error\"?"),
        ("retry = { attempts = 11 }", "more than 10 attempts", "when it hurts most"),
        ("retry = { statuses = [99] }", "99 is no status", "final response"),
        ("retry = { backoff = \"2s\" }", "backoff is longer than max_backoff", "max_backoff = \"1s\""),
        ("retry = { per_try_timeout = \"0s\" }", "per_try_timeout of zero", "fail every attempt"),
        ("retry = { max_body = \"1GiB\" }", "kept in memory for each request", "at most 16MiB"),
        ("retry = { headers = { x-y = { regex = \"(\" } } }", "x.toml:8:", "\"x-y\""),
        ("hedge = {}", "a hedge needs to know when", "quantile = 0.95"),
        ("hedge = { quantile = 0.1 }", "between 0.5 and 1", "not to be sent twice"),
        ("hedge = { after = \"1ms\", budget = 90 }", "a budget above 50 percent", "most requests twice"),
        ("mirror = { percent = 10 }", "a mirror needs a cluster", "{ cluster = \"shadow\" }"),
        ("mirror = { cluster = \"web\" }", "the mirror is a cluster that the route sends to", "every request twice"),
        ("mirror = { cluster = \"wep\" }", "there is no cluster \"wep\"", "did you mean \"web\"?"),
        ("mirror = { cluster = \"web\", percent = 101 }", "a percentage is between 0 and 100", "x.toml:8:"),
        ("faults = [{ percent = 1 }]", "a fault is one of delay, abort, reset and slow_body", "abort = 503"),
        ("faults = [{ delay = \"1s\", abort = 500 }]", "a fault is one of", "delay"),
        ("faults = [{ abort = 99 }]", "abort = 99 is no status", "final response"),
        ("faults = [{ reset = true, percent = 1000 }]", "a percentage is between 0 and 100", "x.toml:8:"),
    ];
    for (line, message, hint) in cases {
        let text = GOOD.replacen("cluster = \"web\"\n", &format!("cluster = \"web\"\n{line}\n"), 1);
        let told = errors(&text);
        assert!(told.contains(message) && told.contains(hint), "{line} is told:\n{told}");
    }
}

#[test]
fn auto_is_decided_by_tls() {
    let text = GOOD.replacen("name = \"web\"\n", "name = \"web\"\nprotocol = \"auto\"\n", 1);
    let told = errors(&text);
    assert!(
        told.contains("x.toml:11:") && told.contains("decided by TLS (ALPN)") && told.contains("add tls = {}"),
        "{told}"
    );
    let with = |tls: &str| errors(&text.replacen("protocol", &format!("tls = {tls}\nprotocol"), 1));
    assert_eq!(with("{ verify = false }"), "");
    assert_eq!(with("{ verify = false, alpn = [\"h2\", \"http/1.1\"] }"), "");
    let told = with("{ verify = false, alpn = [\"http/1.1\"] }");
    assert!(told.contains("alpn offers another HTTP version"), "{told}");
}

#[test]
fn the_time_of_a_header_block_is_read_and_checked() {
    let read = |text: &str| match parse(&[("x.toml".to_owned(), format!("{GOOD}{text}"))]) {
        Ok(loaded) => loaded.model.clusters[0].http2.header_timeout.as_millis(),
        Err(other) => panic!("{other:?}"),
    };
    assert_eq!(read(""), 10_000);
    assert_eq!(read("http2 = { header_timeout = \"1500ms\" }\n"), 1500);
    let zero = errors(&format!("{GOOD}http2 = {{ header_timeout = \"0s\" }}\n"));
    assert!(zero.contains("a time of http2 is zero"), "{zero}");
    // A listener has its own, for either version.
    let listener = errors(&GOOD.replace(":8080\"", ":8080\"\nhttp2 = { header_timeout = \"1s\" }"));
    assert!(listener.contains("unknown key \"header_timeout\""), "{listener}");
}

#[test]
fn the_schema_names_every_table() {
    let schema = schema();
    for table in ["runtime", "access_log", "listener", "route", "cluster"] {
        assert!(schema["properties"][table].is_object(), "{table}");
    }
    assert!(schema["properties"]["listener"]["items"]["properties"]["header_timeout"].is_object());
}

/// Puts certificates in the place of the files that `onehop certs` would make.
fn certify(model: &mut onehop_plan::model::Model) {
    use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    params.subject_alt_names = vec![SanType::URI("spiffe://example.org/x".try_into().expect("ASCII"))];
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    for (path, content) in &mut model.files.0 {
        let text = if path.ends_with("key.pem") { key.serialize_pem() } else { certificate.clone() };
        *content = Ok(std::sync::Arc::new(text.into_bytes()));
    }
}

#[test]
fn every_example_compiles() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).expect("the folder is there") {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            let mut loaded = load(&path).unwrap_or_else(|failure| panic!("{failure}"));
            certify(&mut loaded.model);
            if let Err(problems) = compile(&loaded.model, &Registry::new(2), None) {
                panic!("{}: {:?}", path.display(), problems);
            }
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} examples");
}

#[test]
fn the_typical_policy_that_is_measured_is_what_it_says() {
    use onehop_plan::model::{BalanceKind, PathMatch};
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/policy/typical.toml");
    let model = load(std::path::Path::new(file)).unwrap_or_else(|failure| panic!("{failure}")).model;
    let snapshot = compile(&model, &Registry::new(1), None).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert!(snapshot.warnings.is_empty(), "{:?}", snapshot.warnings);
    assert_eq!(model.routes.len(), 1000);
    assert_eq!(model.routes.iter().filter(|route| matches!(route.path, PathMatch::Regex(_))).count(), 1);
    // The route that is measured.
    let shop = &model.routes[0];
    let (request, response) = (&shop.filters.request, &shop.filters.response);
    let rules = |edits: &onehop_plan::model::FieldEdits| edits.set.len() + edits.add.len() + edits.remove.len();
    assert_eq!(rules(request) + rules(response), 3);
    assert_eq!((shop.rate_limits.len(), shop.resilience.retry.attempts), (1, 2));
    let origin = &model.clusters[0];
    assert_eq!((origin.balance, origin.endpoints.len()), (BalanceKind::LeastRequest, 10));
    assert!(origin.policy.outlier.is_some());
}
