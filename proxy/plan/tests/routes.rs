//! The table against the plain reading of the precedence, and rule by rule.

use std::sync::Arc;

use onehop_meter::Registry;

use onehop_plan::model::{self, FieldMatch, Model, PathMatch, Route, ValueMatch};
use onehop_plan::route::{Conditions, Facts, Parts, Pattern, Scratch, Verdict, explain};
use onehop_plan::{Place, Problem, compile};

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
    let (mut found, mut warned) = (0, 0);
    for round in 0..300 {
        let count = 1 + random.below(25);
        let model = model((0..count).map(|_| route(&mut random)).collect());
        let snapshot = compile(&model, &Registry::new(1), None).expect("compiles");
        let parts = parts(&model.routes);
        let never: Vec<usize> = snapshot.warnings.iter().map(of_route).collect();
        warned += never.len();
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
                assert!(plain.is_none_or(|at| !never.contains(&at)), "{plain:?} is used\n{:#?}", model.routes);
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
    assert!(found > 3000 && warned > 30, "{found} found, {warned} unreachable");
}

/// The route that a warning is about.
fn of_route(warning: &Problem) -> usize {
    match warning.place {
        Place::Route(at, _) => at,
        _ => panic!("{warning:?}"),
    }
}

#[test]
fn the_gateway_api_s_rules_hold_one_by_one() {
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
    assert_eq!(takes(vec![prefix("/"), regex("/a/.*"), prefix("/a/b")], "/a/b/c"), Some(2));
    assert_eq!(takes(vec![prefix("/"), regex("/a/.*"), prefix("/a/b")], "/a/c"), Some(1));
    // Ties: the first in the list. PathPrefix: on path elements, a trailing slash does not matter.
    assert_eq!(takes(vec![prefix("/a"), prefix("/a/")], "/a"), Some(0));
    assert_eq!(takes(vec![prefix("/abc")], "/abcd"), None);
    assert_eq!(takes(vec![prefix("/abc/")], "/abc"), Some(0));
    assert_eq!(takes(vec![prefix("/abc")], "/abc/"), Some(0));
}

/// Who is warned of in a listener with these routes, and by whom each is hidden.
fn hidden(routes: Vec<Route>) -> Vec<(usize, Option<usize>)> {
    let snapshot = compile(&model(routes), &Registry::new(1), None).expect("compiles");
    let other = |warning: &Problem| {
        warning.other.map(|place| match place {
            Place::Route(at, _) => at,
            _ => panic!("{warning:?}"),
        })
    };
    snapshot.warnings.iter().map(|warning| (of_route(warning), other(warning))).collect()
}

fn prefix(path: &str) -> Route {
    Route { path: PathMatch::Prefix(path.to_owned()), ..Route::default() }
}

fn exact(path: &str) -> Route {
    Route { path: PathMatch::Exact(path.to_owned()), ..Route::default() }
}

fn template(path: &str) -> Route {
    Route { path: PathMatch::Template(path.to_owned()), ..Route::default() }
}

fn regex(path: &str) -> Route {
    Route { path: PathMatch::Regex(path.to_owned()), ..Route::default() }
}

fn of_methods(methods: &[&str], route: Route) -> Route {
    Route { methods: methods.iter().map(|method| (*method).to_owned()).collect(), ..route }
}

fn at_hosts(hosts: &[&str], route: Route) -> Route {
    Route { hosts: hosts.iter().map(|host| (*host).to_owned()).collect(), ..route }
}

#[test]
fn unreachable_routes_are_warned_of_with_both_places() {
    let get = |route| of_methods(&["GET"], route);
    // The same path: whoever takes more and stands first.
    assert_eq!(hidden(vec![of_methods(&["GET", "POST"], prefix("/")), get(prefix("/"))]), [(1, Some(0))]);
    assert_eq!(hidden(vec![prefix("/a"), template("/a/{*rest}")]), [(1, Some(0))]);
    assert_eq!(hidden(vec![get(prefix("/a")), prefix("/a")]), []);
    // A prefix and a template come before an expression wherever they stand, and an exact path before them.
    assert_eq!(hidden(vec![regex("/a/[0-9]+"), prefix("/a")]), [(0, Some(1))]);
    assert_eq!(hidden(vec![get(regex("/a/[0-9]+")), prefix("/a")]), [(0, Some(1))]);
    assert_eq!(hidden(vec![regex("/a/[0-9]+"), get(prefix("/a"))]), []);
    assert_eq!(hidden(vec![regex("/a[0-9]*/b"), prefix("/a")]), []);
    assert_eq!(hidden(vec![regex("/[a-z]+/b"), template("/{x}/b")]), [(0, Some(1))]);
    assert_eq!(hidden(vec![regex("/a/b"), exact("/a/b")]), [(0, Some(1))]);
    assert_eq!(hidden(vec![template("/a/b"), exact("/a/b")]), [(0, Some(1))]);
    assert_eq!(hidden(vec![template("/a/b"), template("/a/b"), exact("/a/b")]), [(0, Some(2)), (1, Some(0))]);
    // Of expressions the first.
    assert_eq!(hidden(vec![regex("/a/.*"), regex("/a/b/[0-9]+")]), [(1, Some(0))]);
    assert_eq!(hidden(vec![regex("/a/b/[0-9]+"), regex("/a/.*")]), []);
    assert_eq!(hidden(vec![regex("/a/.*"), get(regex("/a/b/[0-9]+"))]), [], "a method comes first");
    assert_eq!(hidden(vec![regex("/x+"), regex("/x+")]), [(1, Some(0))]);
    // One that takes every path leaves nothing to the prefix of everything, which is looked at last.
    assert_eq!(hidden(vec![prefix("/"), regex(".*")]), [(0, Some(1))]);
    assert_eq!(hidden(vec![prefix("/"), prefix("/"), regex(".*")]), [(0, Some(2)), (1, Some(0))]);
    assert_eq!(hidden(vec![prefix("/"), regex("/.+")]), []);
    assert_eq!(hidden(vec![prefix("/a"), regex(".*")]), []);
}

#[test]
fn a_route_is_unreachable_only_if_it_is_so_at_all_of_its_hosts() {
    let a = || at_hosts(&["a.example"], prefix("/"));
    assert_eq!(hidden(vec![a(), at_hosts(&["a.example", "b.example"], prefix("/"))]), []);
    assert_eq!(hidden(vec![a(), at_hosts(&["A.example."], prefix("/"))]), [(1, Some(0))]);
    let both = vec![a(), at_hosts(&["b.example"], prefix("/")), at_hosts(&["a.example", "b.example"], prefix("/"))];
    let snapshot = compile(&model(both.clone()), &Registry::new(1), None).expect("compiles");
    assert!(snapshot.warnings[0].message.contains("and others take all of its requests"), "{:?}", snapshot.warnings);
    assert_eq!(hidden(both).len(), 1);
    // A host that is written twice is one, and hides nothing from itself.
    assert_eq!(hidden(vec![at_hosts(&["a.example", "a.example"], prefix("/"))]), []);
    // A more specific host leaves the others theirs, and takes none of their requests.
    assert_eq!(hidden(vec![at_hosts(&["*.example"], prefix("/")), a(), prefix("/")]), []);
}

#[test]
fn a_stricter_condition_is_seen_to_be_one() {
    let of =
        |value: ValueMatch| Route { headers: vec![FieldMatch { name: "x".to_owned(), value }], ..Route::default() };
    let text = |text: &str| text.to_owned();
    let cases = [
        (ValueMatch::Present, ValueMatch::Exact(text("v2")), true),
        (ValueMatch::Prefix(text("v")), ValueMatch::Exact(text("v2")), true),
        (ValueMatch::Prefix(text("v")), ValueMatch::Prefix(text("v2")), true),
        (ValueMatch::Regex(text("v[0-9]")), ValueMatch::Exact(text("v2")), true),
        (ValueMatch::Prefix(text("v2")), ValueMatch::Prefix(text("v")), false),
        (ValueMatch::Regex(text("v[0-9]")), ValueMatch::Exact(text("v22")), false),
        (ValueMatch::Present, ValueMatch::Absent, false),
        (ValueMatch::Absent, ValueMatch::Exact(text("v2")), false),
    ];
    for (wide, narrow, is_hidden) in cases {
        let found = hidden(vec![of(wide.clone()), of(narrow.clone())]);
        assert_eq!(found, if is_hidden { vec![(1, Some(0))] } else { vec![] }, "{wide:?} {narrow:?}");
    }
    let named = |name: &str| Route { sni: vec![name.to_owned()], ..Route::default() };
    assert_eq!(hidden(vec![named("*.example"), named("a.Example")]), [(1, Some(0))]);
    assert_eq!(hidden(vec![named("a.example"), named("*.example")]), []);
}

#[test]
fn a_path_that_no_request_can_have_is_warned_of() {
    for route in [
        regex("api/.*"),
        exact("/a//b"),
        exact("/a/./b"),
        prefix("/%61"),
        prefix("/a%2fb"),
        template("/a/../{x}"),
        exact("/a%zz"),
    ] {
        assert_eq!(hidden(vec![route.clone()]), [(0, None)], "{:?}", route.path);
    }
    for route in [regex("/?.*"), regex(r"\*"), exact("/caf%C3%A9"), prefix("/a/"), prefix("/.well-known")] {
        let Ok(snapshot) = compile(&model(vec![route.clone()]), &Registry::new(1), None) else { continue };
        assert!(snapshot.warnings.is_empty(), "{:?}: {:?}", route.path, snapshot.warnings);
    }
}

/// What the search for unreachable routes costs is bounded: 10,000 routes of one host, 1,000 of them expressions that could
/// hide each other, compile about as fast as those that cannot.
#[test]
fn many_routes_that_could_hide_each_other_are_compiled_all_the_same() {
    let mut routes: Vec<Route> = (0..1000).map(|at| regex(&format!("/[a-z]+/{at}/.*"))).collect();
    routes.extend((0..9000).map(|at| template(&format!("/{{tenant}}/p{at}/{{*rest}}"))));
    routes.push(prefix("/"));
    let snapshot = compile(&model(routes), &Registry::new(1), None).expect("compiles");
    assert_eq!(snapshot.warnings, []);
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

#[test]
fn expressions_are_bounded_together_too() {
    let large = |at: usize| Route { path: PathMatch::Regex(format!("/r{at}/[a-f]{{2000}}")), ..Route::default() };
    assert!(compile(&model(vec![large(0)]), &Registry::new(1), None).is_ok());
    let compiled = compile(&model((0..2000).map(large).collect()), &Registry::new(1), None);
    let errors = compiled.err().expect("too large");
    assert_eq!(errors.len(), 1, "said once");
    assert!(errors[0].message.contains("larger than 64 MiB"), "{}", errors[0].message);
}
