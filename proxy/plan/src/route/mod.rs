//! Which route a request takes: the most specific host first (exact, then the longest wildcard), and its routes alone;
//! among them, as in the Gateway API, an exact path, then a template or prefix by the length of its literal start, then a
//! regular expression, then the prefix `/`; then a method, the number of headers, of query fields, a source address; then the order in the
//! file. Allocates nothing but what a core's [`Scratch`] keeps.

mod build;
mod cidr;
mod condition;
mod explain;
mod host;
mod language;
mod normalise;
mod pattern;
mod shadow;
mod table;

use std::sync::Arc;

use ahash::AHashMap;
use regex_automata::meta::{Cache, Regex};
use regex_automata::{Input, PatternSet};

pub use build::Parts;
pub use cidr::Cidr;
pub use condition::{Conditions, Facts, Field, Unmet, query_value};
pub use explain::{Verdict, explain};
pub use host::names_host;
pub use normalise::{BadPath, EncodedSlash, Normal, PathBuffers, PathRule};
pub use pattern::{Captures, Expression, MAX_CAPTURES, Pattern};
pub use shadow::Shadowed;

use crate::snapshot::Route;
use host::{Lengths, MAX_HOST};
use pattern::MAX_SEGMENTS;
use table::{FlatTable, fold};

/// Working memory of the regular expressions, one per core; bounded by the number of expressions in force.
#[derive(Default)]
pub struct Scratch {
    caches: AHashMap<u64, Cache>,
    matched: Option<PatternSet>,
}

/// Expressions whose memory is kept; beyond it all is forgotten and begun anew (as after many reloads).
const MAX_CACHES: usize = 4096;

impl Scratch {
    fn cache(&mut self, id: u64, regex: &Regex) -> &mut Cache {
        if self.caches.len() >= MAX_CACHES && !self.caches.contains_key(&id) {
            self.caches.clear();
        }
        self.caches.entry(id).or_insert_with(|| regex.create_cache())
    }
}

/// One rule: what it asks, and the route that it leads to.
struct Rule {
    conditions: Option<Arc<Conditions>>,
    route: Arc<Route>,
}

impl Rule {
    fn takes(&self, facts: &Facts<'_>, scratch: &mut Scratch) -> bool {
        self.conditions.as_ref().is_none_or(|conditions| conditions.unmet(facts, scratch).is_none())
    }
}

/// A shape of path pattern: which of its segments are literal. Bit i: segment i.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    literal: u32,
    segments: u8,
    tail: bool,
}

/// The shapes of a host's patterns, the most specific first, each with its number in the listener.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Shapes {
    list: Vec<(Shape, u32)>,
    has_exact: bool,
    /// The last shape is that of the prefix `/`, which takes every path.
    has_root: bool,
    deepest: usize,
}

/// A host's regular expressions as one machine.
struct Expressions {
    many: Regex,
    id: u64,
    /// The rules, most specific first, each with its expression's number.
    rules: Vec<(usize, Rule)>,
}

#[derive(Clone, Copy, Default)]
struct Host {
    shapes: u32,
    /// Number of its expressions plus one; zero: none.
    expressions: u32,
}

/// In a host's slot instead of its set of shapes: it has regular expressions, and stands in the list.
const WITH_EXPRESSIONS: u32 = u32::MAX;

/// Spaces of the flat table below those of the hosts' patterns.
const EXACT_HOST: u32 = 0;
const WILDCARD: u32 = 1;
/// A host's exact paths; its shape i is at `EXACT_PATH + 1 + i`.
const EXACT_PATH: u32 = 0;

/// The routes of one listener.
#[derive(Default)]
pub struct HostTable {
    hosts: FlatTable,
    patterns: FlatTable,
    rules: Vec<Rule>,
    shapes: Vec<Shapes>,
    expressions: Vec<Expressions>,
    list: Vec<Host>,
    /// Number of the routes without a host.
    any: Option<u32>,
    exact_hosts: Lengths,
    wildcards: Lengths,
}

/// A path's segments: where each ends, and the hash of its bytes.
struct Segments {
    ends: [u32; MAX_SEGMENTS],
    hashes: [u64; MAX_SEGMENTS],
    /// How many there are, of which at most the deepest of the host were looked at.
    count: usize,
}

impl HostTable {
    /// The route that a request takes.
    pub fn find(&self, facts: &Facts<'_>, scratch: &mut Scratch) -> Option<&Arc<Route>> {
        let (number, host) = self.host(facts.host)?;
        let shapes = &self.shapes[host.shapes as usize];
        if shapes.has_exact {
            let hash = fold(u64::from(number), self.patterns.hashes.of(facts.path));
            if let Some(value) = self.patterns.find(EXACT_PATH, hash, |key| key_matches(key, number, facts.path))
                && let Some(route) = self.pick(value, facts, scratch)
            {
                return Some(route);
            }
        }
        // The prefix of every path, which stands last, comes after the expressions.
        let (list, root) = shapes.list.split_at(shapes.list.len() - usize::from(shapes.has_root));
        if !list.is_empty()
            && let Some(route) = self.by_shape(number, list, shapes.deepest, facts, scratch)
        {
            return Some(route);
        }
        if host.expressions != 0
            && let Some(route) = self.expressions[host.expressions as usize - 1].find(facts, scratch)
        {
            return Some(route);
        }
        let (_, id) = root.first()?;
        self.by_root(number, *id, facts, scratch)
    }

    /// The prefix `/` takes every path, so none of its segments is looked at.
    fn by_root(&self, number: u32, id: u32, facts: &Facts<'_>, scratch: &mut Scratch) -> Option<&Arc<Route>> {
        let is_key = |key: &[u8]| key == number.to_le_bytes();
        let value = self.patterns.find(EXACT_PATH + 1 + id, u64::from(number), is_key)?;
        self.pick(value, facts, scratch)
    }

    fn pick(&self, value: table::Value, facts: &Facts<'_>, scratch: &mut Scratch) -> Option<&Arc<Route>> {
        let rules = &self.rules[value.first as usize..(value.first + value.count) as usize];
        rules.iter().find(|rule| rule.takes(facts, scratch)).map(|rule| &rule.route)
    }

    fn by_shape(
        &self,
        number: u32,
        shapes: &[(Shape, u32)],
        deepest: usize,
        facts: &Facts<'_>,
        scratch: &mut Scratch,
    ) -> Option<&Arc<Route>> {
        let path = facts.path;
        let segments = self.segments(path, deepest);
        for (shape, id) in shapes {
            let wanted = usize::from(shape.segments);
            if segments.count < wanted || (!shape.tail && segments.count != wanted) {
                continue;
            }
            let mut hash = u64::from(number);
            let mut left = shape.literal;
            while left != 0 {
                let at = left.trailing_zeros() as usize;
                hash = fold(hash, segments.hashes[at]);
                left &= left - 1;
            }
            let is_key = |key: &[u8]| segments.match_key(key, number, *shape, path);
            if let Some(value) = self.patterns.find(EXACT_PATH + 1 + id, hash, is_key)
                && let Some(route) = self.pick(value, facts, scratch)
            {
                return Some(route);
            }
        }
        None
    }

    /// The most specific host that names it, with its number.
    fn host(&self, host: &[u8]) -> Option<(u32, Host)> {
        if self.exact_hosts.is_empty() && self.wildcards.is_empty() {
            return self.any();
        }
        let name = host::bare(host);
        if !self.is_long_as_some(name) {
            return self.any();
        }
        let mut buffer = [0; MAX_HOST];
        host::lower(name, &mut buffer).and_then(|name| self.named(name)).or_else(|| self.any())
    }

    /// Whether some host in the table is as long as this name, or as what a wildcard may leave of it.
    fn is_long_as_some(&self, name: &[u8]) -> bool {
        self.exact_hosts.has(name)
            || (!self.wildcards.is_empty() && host::suffixes(name).any(|suffix| self.wildcards.has(suffix)))
    }

    fn any(&self) -> Option<(u32, Host)> {
        self.any.map(|number| (number, self.list[number as usize]))
    }

    fn named(&self, name: &[u8]) -> Option<(u32, Host)> {
        let find = |space, name: &[u8]| self.hosts.find(space, self.hosts.hashes.of(name), |key| key == name);
        let exact = self.exact_hosts.has(name).then(|| find(EXACT_HOST, name)).flatten();
        let wild = || {
            let mut suffixes = host::suffixes(name).filter(|suffix| self.wildcards.has(suffix));
            suffixes.find_map(|suffix| find(WILDCARD, suffix))
        };
        let found = exact.or_else(wild)?;
        // Its slot says all of a host without expressions; the list is one more line that is not in the cache.
        let host = match found.count {
            WITH_EXPRESSIONS => self.list[found.first as usize],
            shapes => Host { shapes, expressions: 0 },
        };
        Some((found.first, host))
    }

    #[inline]
    fn segments(&self, path: &[u8], deepest: usize) -> Segments {
        let mut segments = Segments { ends: [0; MAX_SEGMENTS], hashes: [0; MAX_SEGMENTS], count: 0 };
        if path.first() != Some(&b'/') {
            return segments;
        }
        let mut start = 1;
        while segments.count < deepest {
            let end = path[start..].iter().position(|byte| *byte == b'/').map_or(path.len(), |len| start + len);
            segments.ends[segments.count] = end as u32;
            segments.hashes[segments.count] = self.patterns.hashes.of(&path[start..end]);
            segments.count += 1;
            if end == path.len() {
                return segments;
            }
            start = end + 1;
        }
        // One more than any pattern without a tail has: only those with one can match.
        segments.count += 1;
        segments
    }

    /// Rough size in bytes, without the routes themselves.
    pub fn size(&self) -> usize {
        self.hosts.size() + self.patterns.size() + self.rules.len() * size_of::<Rule>()
    }
}

/// A key is the host's number and then the literal bytes.
fn key_matches(key: &[u8], host: u32, rest: &[u8]) -> bool {
    key.len() == rest.len() + 4 && key[..4] == host.to_le_bytes() && key[4..] == *rest
}

impl Segments {
    fn match_key(&self, key: &[u8], host: u32, shape: Shape, path: &[u8]) -> bool {
        let Some((number, mut key)) = key.split_at_checked(4) else {
            return false;
        };
        if number != host.to_le_bytes() {
            return false;
        }
        let mut left = shape.literal;
        while left != 0 {
            let at = left.trailing_zeros() as usize;
            let start = if at == 0 { 1 } else { self.ends[at - 1] as usize + 1 };
            let segment = &path[start..self.ends[at] as usize];
            // Each literal stands with a slash before it.
            let Some(rest) = key.strip_prefix(b"/").and_then(|key| key.strip_prefix(segment)) else {
                return false;
            };
            key = rest;
            left &= left - 1;
        }
        // A capture is never empty.
        let captures = (0..usize::from(shape.segments)).filter(|at| shape.literal >> at & 1 == 0);
        key.is_empty()
            && captures.into_iter().all(|at| {
                let start = if at == 0 { 1 } else { self.ends[at - 1] as usize + 1 };
                start < self.ends[at] as usize
            })
    }
}

impl Expressions {
    fn find(&self, facts: &Facts<'_>, scratch: &mut Scratch) -> Option<&Arc<Route>> {
        let mut matched = match scratch.matched.take() {
            Some(set) if set.capacity() == self.many.pattern_len() => set,
            _ => PatternSet::new(self.many.pattern_len()),
        };
        matched.clear();
        let cache = scratch.cache(self.id, &self.many);
        self.many.which_overlapping_matches_with(cache, &Input::new(facts.path), &mut matched);
        let is_matched = |number: usize| regex_automata::PatternID::new(number).is_ok_and(|id| matched.contains(id));
        let found = if matched.is_empty() {
            None
        } else {
            self.rules.iter().find(|(number, rule)| is_matched(*number) && rule.takes(facts, scratch))
        };
        scratch.matched = Some(matched);
        found.map(|(_, rule)| &rule.route)
    }
}
