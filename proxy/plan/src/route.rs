//! Which route a request takes: the most specific host first, and its routes alone; among them an exact path, then
//! the longest prefix, then a method, then the order in the file.

use std::sync::Arc;

use ahash::AHashMap;

use crate::model::PathMatch;
use crate::snapshot::Route;

/// Longest host name that can match (RFC 1035: 255 bytes).
const MAX_HOST: usize = 255;

struct Rule {
    methods: Vec<String>,
    route: Arc<Route>,
}

impl Rule {
    fn takes(&self, method: &[u8]) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|allowed| allowed.as_bytes() == method)
    }
}

/// The rules of one host.
#[derive(Default)]
struct Paths {
    exact: AHashMap<Vec<u8>, Vec<Rule>>,
    /// By prefix without its last slash; looked up from the longest candidate to the root.
    prefix: AHashMap<Vec<u8>, Vec<Rule>>,
}

/// The routes of one listener.
#[derive(Default)]
pub struct HostTable {
    exact: AHashMap<Vec<u8>, Paths>,
    /// By suffix, with its leading dot.
    wildcard: AHashMap<Vec<u8>, Paths>,
    any: Paths,
}

/// The host without its port, in lower case, without a final dot.
fn normalise<'a>(host: &[u8], out: &'a mut [u8; MAX_HOST]) -> Option<&'a [u8]> {
    let bare = match host.iter().rposition(|byte| *byte == b':') {
        // An IPv6 address keeps its brackets, which tell its colons from the port's.
        Some(at) if !host[at..].contains(&b']') => &host[..at],
        _ => host,
    };
    let bare = bare.strip_suffix(b".").unwrap_or(bare);
    let out = out.get_mut(..bare.len())?;
    out.copy_from_slice(bare);
    out.make_ascii_lowercase();
    Some(out)
}

impl HostTable {
    /// Adds a route, in the order of the file.
    pub(crate) fn add(&mut self, host: Option<&str>, path: &PathMatch, methods: &[String], route: &Arc<Route>) {
        let paths = match host {
            None => &mut self.any,
            Some(host) => match host.strip_prefix('*') {
                Some(suffix) => self.wildcard.entry(suffix.to_ascii_lowercase().into_bytes()).or_default(),
                None => self.exact.entry(host.to_ascii_lowercase().into_bytes()).or_default(),
            },
        };
        let rules = match path {
            PathMatch::Exact(path) => paths.exact.entry(path.clone().into_bytes()).or_default(),
            PathMatch::Prefix(path) => {
                paths.prefix.entry(path.strip_suffix('/').unwrap_or(path).to_owned().into_bytes()).or_default()
            }
        };
        rules.push(Rule { methods: methods.to_vec(), route: route.clone() });
        // A rule that names a method is more specific; the sort keeps the file's order otherwise.
        rules.sort_by_key(|rule| rule.methods.is_empty());
    }

    /// The route that a request takes. Allocates nothing.
    pub fn find(&self, host: &[u8], path: &[u8], method: &[u8]) -> Option<&Arc<Route>> {
        self.paths(host).and_then(|paths| paths.find(path, method))
    }

    fn paths(&self, host: &[u8]) -> Option<&Paths> {
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return Some(&self.any);
        }
        let mut buffer = [0; MAX_HOST];
        let Some(host) = normalise(host, &mut buffer) else {
            return Some(&self.any);
        };
        if let Some(paths) = self.exact.get(host) {
            return Some(paths);
        }
        if !self.wildcard.is_empty() {
            // From the longest suffix; a wildcard stands for at least one label.
            for (at, byte) in host.iter().enumerate().skip(1) {
                if *byte == b'.'
                    && let Some(paths) = self.wildcard.get(&host[at..])
                {
                    return Some(paths);
                }
            }
        }
        Some(&self.any)
    }
}

impl Paths {
    fn find(&self, path: &[u8], method: &[u8]) -> Option<&Arc<Route>> {
        let pick = |rules: &'_ Vec<Rule>| -> Option<usize> { rules.iter().position(|rule| rule.takes(method)) };
        if !self.exact.is_empty()
            && let Some(rules) = self.exact.get(path)
            && let Some(at) = pick(rules)
        {
            return Some(&rules[at].route);
        }
        let mut end = path.len();
        loop {
            let candidate = path[..end].strip_suffix(b"/").unwrap_or(&path[..end]);
            if let Some(rules) = self.prefix.get(candidate)
                && let Some(at) = pick(rules)
            {
                return Some(&rules[at].route);
            }
            if candidate.is_empty() {
                return None;
            }
            end = candidate.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Retry, Split};
    use onehop_meter::Registry;

    fn route(name: &str) -> Arc<Route> {
        Arc::new(Route {
            name: Arc::from(name),
            split: Split::new([]),
            timeout: None,
            retry: Retry { attempts: 0, on_connect_failure: false, on_reset_before_response: false },
            upgrades: Vec::new(),
            allow_connect: false,
            max_body: None,
            meters: Registry::new(1).route(name),
        })
    }

    fn table(rules: &[(&str, Option<&str>, PathMatch, &[&str])]) -> HostTable {
        let mut table = HostTable::default();
        for (name, host, path, methods) in rules {
            let methods: Vec<String> = methods.iter().map(|method| (*method).to_owned()).collect();
            table.add(*host, path, &methods, &route(name));
        }
        table
    }

    #[test]
    fn the_most_specific_host_and_path_win() {
        let prefix = |path: &str| PathMatch::Prefix(path.to_owned());
        let table = table(&[
            ("any", None, prefix("/"), &[]),
            ("wild", Some("*.example.com"), prefix("/"), &[]),
            ("deeper", Some("*.b.example.com"), prefix("/"), &[]),
            ("exact-host", Some("a.example.com"), prefix("/api"), &[]),
            ("post", Some("a.example.com"), prefix("/api"), &["POST"]),
            ("exact-path", Some("a.example.com"), PathMatch::Exact("/api/x".to_owned()), &[]),
        ]);
        let find = |host: &str, path: &str, method: &str| {
            table.find(host.as_bytes(), path.as_bytes(), method.as_bytes()).map(|route| route.name.to_string())
        };
        let cases = [
            ("other.org", "/x", "GET", Some("any")),
            ("x.Example.COM:8080", "/", "GET", Some("wild")),
            ("x.b.example.com", "/", "GET", Some("deeper")),
            ("example.com", "/", "GET", Some("any")),
            ("a.example.com", "/api", "GET", Some("exact-host")),
            ("a.example.com.", "/api/y", "GET", Some("exact-host")),
            ("a.example.com", "/api/y", "POST", Some("post")),
            ("a.example.com", "/api/x", "POST", Some("exact-path")),
            // On a segment boundary alone; and no fall-back to a less specific host.
            ("a.example.com", "/apix", "GET", None),
            ("a.example.com", "/", "GET", None),
        ];
        for (host, path, method, expected) in cases {
            assert_eq!(find(host, path, method).as_deref(), expected, "{method} {host}{path}");
        }
    }
}
