//! The table against the plain reading of the precedence, and rule by rule.

use std::sync::Arc;

use onehop_meter::Registry;
use onehop_plan::compile;
use onehop_plan::model::{self, FieldMatch, Model, PathMatch, Route, ValueMatch};
use onehop_plan::route::{Conditions, Facts, Parts, Pattern, Scratch, Verdict, explain};

fn model(routes: Vec<Route>) -> Model {
    let cluster = model::Cluster {
        name: "c".to_owned(),
        endpoints: vec![model::Endpoint {
            target: model::EndpointTarget::Address(model::Address::Tcp(([127, 0, 0, 1], 9).into())),
            weight: 1,
            placement: model::Placement::default(),
        }],
        ..model::Cluster::default()
    };
    let listener = model::Listener {
        name: "edge".to_owned(),
        address: ([127, 0, 0, 1], 8080).into(),
        ..model::Listener::default()
    };
    let mut model = Model { listeners: vec![listener], ..Model::default() };
    model.clusters.push(cluster);
    model.routes = routes;
    for (at, route) in model.routes.iter_mut().enumerate() {
        if route.name.is_empty() {
            route.name = format!("r{at}");
        }
        route.targets = vec![model::Target::new("c")];
    }
    model
}

struct Ask {
    host: &'static str,
    path: String,
    query: &'static str,
    method: &'static str,
    headers: Vec<(&'static str, &'static str)>,
}

impl Ask {
    fn with<R>(&self, use_it: impl FnOnce(&Facts<'_>) -> R) -> R {
        let header = |name: &str| {
            let found = self.headers.iter().find(|(known, _)| *known == name);
            found.map(|(_, value)| std::borrow::Cow::Borrowed(value.as_bytes()))
        };
        use_it(&Facts {
            host: self.host.as_bytes(),
            path: self.path.as_bytes(),
            query: self.query.as_bytes(),
            method: self.method.as_bytes(),
            header: &header,
            source: [192, 0, 2, 7].into(),
            sni: None,
        })
    }
}

fn parts(routes: &[Route]) -> Vec<Parts> {
    let one = |route: &Route| {
        let conditions = Conditions::new(route).expect("conditions");
        Parts {
            conditions: (!conditions.is_empty()).then(|| Arc::new(conditions)),
            pattern: Arc::new(Pattern::new(&route.path).expect("a pattern")),
        }
    };
    routes.iter().map(one).collect()
}

/// A small generator: the same every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())].clone()
    }
}

const HOSTS: &[&str] = &["", "a.example", "*.example", "*.b.example", "x.b.example"];
const SEGMENTS: &[&str] = &["a", "b", "c"];

fn path(random: &mut Random, segments: &[&str]) -> String {
    let count = random.below(4);
    let path: String = (0..count).map(|_| format!("/{}", random.pick(segments))).collect();
    if path.is_empty() { "/".to_owned() } else { path }
}

fn route(random: &mut Random) -> Route {
    let mut route = Route::default();
    let host = random.pick(HOSTS);
    if !host.is_empty() {
        route.hosts.push(host.to_owned());
    }
    route.path = match random.below(5) {
        0 => PathMatch::Exact(path(random, SEGMENTS)),
        1 => {
            let text = path(random, &["a", "b", "{x}", "{y}"]);
            let tail = if random.below(3) == 0 && text != "/" { "/{*rest}" } else { "" };
            match Pattern::new(&PathMatch::Template(format!("{text}{tail}"))) {
                Ok(_) => PathMatch::Template(format!("{text}{tail}")),
                Err(_) => PathMatch::Prefix("/a".to_owned()),
            }
        }
        2 => PathMatch::Regex(random.pick(&["/a.*", "/[ab]/.+", "/.*c", "/(a|b)"]).to_owned()),
        _ => PathMatch::Prefix(path(random, SEGMENTS)),
    };
    if random.below(3) == 0 {
        route.methods.push(random.pick(&["GET", "POST"]).to_owned());
    }
    for name in ["x-one", "x-two"] {
        if random.below(4) == 0 {
            let value = random.pick(&[
                ValueMatch::Present,
                ValueMatch::Absent,
                ValueMatch::Exact("1".to_owned()),
                ValueMatch::Regex("[12]+".to_owned()),
            ]);
            route.headers.push(FieldMatch { name: name.to_owned(), value });
        }
    }
    if random.below(5) == 0 {
        route.queries.push(FieldMatch { name: "q".to_owned(), value: ValueMatch::Prefix("1".to_owned()) });
    }
    if random.below(5) == 0 {
        route.sources.push(random.pick(&["192.0.2.0/24", "10.0.0.0/8"]).parse().expect("a range"));
    }
    route
}

#[test]
fn the_table_follows_the_precedence_whatever_the_routes() {
    let mut random = Random(42);
    let mut scratch = Scratch::default();
    let mut found = 0;
    for round in 0..300 {
        let count = 1 + random.below(25);
        let model = model((0..count).map(|_| route(&mut random)).collect());
        let snapshot = compile(&model, &Registry::new(1), None).expect("compiles");
        let parts = parts(&model.routes);
        for _ in 0..60 {
            let ask = Ask {
                host: random.pick(&["a.example", "x.b.example:80", "y.b.example.", "example", "Q.EXAMPLE"]),
                path: path(&mut random, SEGMENTS) + random.pick(&["", "", "/"]),
                query: random.pick(&["", "q=12", "q=2&q=1"]),
                method: random.pick(&["GET", "POST", "PUT"]),
                headers: (0..random.below(3))
                    .map(|at| (["x-one", "x-two"][at], random.pick(&["1", "2", "z"])))
                    .collect(),
            };
            ask.with(|facts| {
                let table = snapshot.tables[0].find(facts, &mut scratch).map(|route| route.name.to_string());
                let verdicts = explain(&model.routes, &parts, |_| true, facts);
                let plain = verdicts.iter().position(|verdict| *verdict == Verdict::Wins);
                let plain = plain.map(|at| model.routes[at].name.clone());
                assert_eq!(
                    table, plain,
                    "round {round}: {} {} {:?}\n{:#?}",
                    ask.host, ask.path, verdicts, model.routes
                );
                found += usize::from(table.is_some());
            });
        }
    }
    assert!(found > 3000, "{found}");
}

#[test]
fn the_gateway_api_s_rules_hold_one_by_one() {
    let prefix = |path: &str| Route { path: PathMatch::Prefix(path.to_owned()), ..Route::default() };
    let exact = |path: &str| Route { path: PathMatch::Exact(path.to_owned()), ..Route::default() };
    let header = |name: &str| FieldMatch { name: name.to_owned(), value: ValueMatch::Present };
    let takes = |routes: Vec<Route>, path: &str| {
        let model = model(routes);
        let snapshot = compile(&model, &Registry::new(1), None).expect("compiles");
        let ask = Ask {
            host: "h",
            path: path.to_owned(),
            query: "q=1&p=2",
            method: "GET",
            headers: vec![("x-one", "1"), ("x-two", "2")],
        };
        ask.with(|facts| {
            let found = snapshot.tables[0].find(facts, &mut Scratch::default());
            found.map(|route| route.name[1..].parse::<usize>().expect("a number"))
        })
    };
    // HTTPRouteRule.matches: "Exact" path match first.
    assert_eq!(takes(vec![prefix("/a/b"), exact("/a/b")], "/a/b"), Some(1));
    // "Prefix" path match with the largest number of characters.
    assert_eq!(takes(vec![prefix("/"), prefix("/a"), prefix("/a/b")], "/a/b/c"), Some(2));
    // Method match.
    let get = Route { methods: vec!["GET".to_owned()], ..prefix("/a") };
    let headers = Route { headers: vec![header("x-one"), header("x-two")], ..prefix("/a") };
    assert_eq!(takes(vec![headers.clone(), get.clone()], "/a"), Some(1));
    // Largest number of header matches, then of query param matches.
    let one = Route { headers: vec![header("x-one")], ..prefix("/a") };
    let query = Route { queries: vec![header("q")], ..prefix("/a") };
    assert_eq!(takes(vec![one.clone(), headers], "/a"), Some(1));
    assert_eq!(takes(vec![query.clone(), one], "/a"), Some(1));
    assert_eq!(takes(vec![prefix("/a"), query.clone()], "/a"), Some(1));
    // Each rule decides before those below it count: an exact path over everything, a longer prefix over a method and
    // fields, a method over any number of headers, one header over any number of query params, and these by their number.
    let everything = |route: Route| Route {
        methods: vec!["GET".to_owned()],
        headers: vec![header("x-one"), header("x-two")],
        queries: vec![header("q"), header("p")],
        ..route
    };
    let both = Route { queries: vec![header("q"), header("p")], ..prefix("/a") };
    assert_eq!(takes(vec![everything(prefix("/a/b")), exact("/a/b")], "/a/b"), Some(1));
    assert_eq!(takes(vec![everything(prefix("/a")), prefix("/a/b")], "/a/b"), Some(1));
    assert_eq!(takes(vec![Route { methods: Vec::new(), ..everything(prefix("/a")) }, get], "/a"), Some(1));
    assert_eq!(takes(vec![both.clone(), Route { headers: vec![header("x-one")], ..prefix("/a") }], "/a"), Some(1));
    assert_eq!(takes(vec![query.clone(), both], "/a"), Some(1));
    // Several methods of one rule are matches of their own there: their number is no matter.
    let two = Route { methods: vec!["GET".to_owned(), "POST".to_owned()], ..prefix("/a") };
    assert_eq!(takes(vec![two.clone(), Route { methods: vec!["GET".to_owned()], ..prefix("/a") }], "/a"), Some(0));
    assert_eq!(takes(vec![prefix("/a"), two], "/a"), Some(1));
    // Still tied: the order decides, for fields as well, whatever their names and values.
    let other = Route { headers: vec![header("x-two")], ..prefix("/a") };
    assert_eq!(takes(vec![Route { headers: vec![header("x-one")], ..prefix("/a") }, other], "/a"), Some(0));
    // Hostnames: the most specific one that matches is chosen first, whatever the other's path says: a precise name, then
    // a wildcard by its length, then none. Header names are no matter of case.
    let on = |host: &str, route: Route| Route { hosts: vec![host.to_owned()], ..route };
    assert_eq!(takes(vec![exact("/a/b"), on("h", prefix("/a"))], "/a/b"), Some(1));
    assert_eq!(takes(vec![on("*.h", prefix("/a")), on("H", prefix("/"))], "/a"), Some(1));
    assert_eq!(takes(vec![prefix("/a"), Route { headers: vec![header("X-ONE")], ..prefix("/a") }], "/a"), Some(1));
    // An expression is the implementation's to rank: after prefixes, but before the one of all paths.
    let regex = |path: &str| Route { path: PathMatch::Regex(path.to_owned()), ..Route::default() };
    assert_eq!(takes(vec![prefix("/"), regex("/a/.*"), prefix("/a/b")], "/a/b/c"), Some(2));
    assert_eq!(takes(vec![prefix("/"), regex("/a/.*"), prefix("/a/b")], "/a/c"), Some(1));
    // Ties: the first in the list. PathPrefix: on path elements, a trailing slash does not matter.
    assert_eq!(takes(vec![prefix("/a"), prefix("/a/")], "/a"), Some(0));
    assert_eq!(takes(vec![prefix("/abc")], "/abcd"), None);
    assert_eq!(takes(vec![prefix("/abc/")], "/abc"), Some(0));
    assert_eq!(takes(vec![prefix("/abc")], "/abc/"), Some(0));
}

#[test]
fn unreachable_routes_are_warned_of_with_both_places() {
    let a = Route { methods: vec!["GET".to_owned(), "POST".to_owned()], ..Route::default() };
    let b = Route { methods: vec!["GET".to_owned()], ..Route::default() };
    let snapshot = compile(&model(vec![a, b]), &Registry::new(1), None).expect("compiles");
    let [warning] = snapshot.warnings.as_slice() else { panic!("{:?}", snapshot.warnings) };
    assert_eq!(
        (warning.place, warning.other),
        (onehop_plan::Place::Route(1, ""), Some(onehop_plan::Place::Route(0, "")))
    );
}

#[test]
fn a_regex_bomb_is_refused_and_many_expressions_are_found() {
    for bomb in ["(a{1000}){1000}", "((a{100}){100}){100}", "(", "a{2,1}", "\\", "(?<x"] {
        let route = Route { path: PathMatch::Regex(bomb.to_owned()), ..Route::default() };
        assert!(compile(&model(vec![route]), &Registry::new(1), None).is_err(), "{bomb}");
    }
    let routes = (0..1000).map(|at| Route { path: PathMatch::Regex(format!("/r{at}/.*x")), ..Route::default() });
    let model = model(routes.collect());
    let snapshot = compile(&model, &Registry::new(1), None).expect("compiles");
    for at in [0, 17, 999] {
        let ask = Ask { host: "h", path: format!("/r{at}/..x"), query: "", method: "GET", headers: vec![] };
        ask.with(|facts| {
            let found = snapshot.tables[0].find(facts, &mut Scratch::default());
            assert_eq!(found.map(|route| route.name.to_string()), Some(format!("r{at}")));
        });
    }
}
