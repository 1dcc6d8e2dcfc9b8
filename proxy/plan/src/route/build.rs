//! Building a listener's table.

use std::sync::Arc;

use ahash::AHashMap;

use super::pattern::{self, MAX_SEGMENTS, Pattern, Segment};
use super::shadow::{self, Shadowed};
use super::table::{FlatTable, Value, fold};
use super::{
    Conditions, EXACT_HOST, EXACT_PATH, Expressions, Host, HostTable, Rule, Shape, Shapes, WILDCARD, WITH_EXPRESSIONS,
};
use crate::model;
use crate::snapshot::Route;

/// A route's compiled matching parts.
pub struct Parts {
    /// Its conditions; none: it takes everything.
    pub conditions: Option<Arc<Conditions>>,
    /// Its path.
    pub pattern: Arc<Pattern>,
}

pub(super) struct Draft<'a> {
    /// In the order of the file.
    pub(super) index: usize,
    pub(super) wanted: &'a model::Route,
    pub(super) parts: &'a Parts,
    route: Arc<Route>,
}

impl Draft<'_> {
    fn rule(&self) -> Rule {
        Rule { conditions: self.parts.conditions.clone(), route: self.route.clone() }
    }

    /// Orders the rules of one path, the most specific first.
    pub(super) fn rank(&self) -> impl Ord + use<> {
        use std::cmp::Reverse;
        let wanted = self.wanted;
        (
            wanted.methods.is_empty(),
            Reverse(wanted.headers.len()),
            Reverse(wanted.queries.len()),
            wanted.sources.is_empty(),
            wanted.sni.is_empty(),
            self.index,
        )
    }
}

/// The literal parts of a template and its shape.
fn shape(pattern: &Pattern) -> Option<(Shape, Vec<u8>)> {
    let Pattern::Template { segments, tail, .. } = pattern else {
        return None;
    };
    let mut literal = 0;
    let mut key = Vec::new();
    for (at, segment) in segments.iter().enumerate() {
        if let Segment::Literal(text) = segment {
            literal |= 1 << at;
            key.push(b'/');
            key.extend_from_slice(text.as_bytes());
        }
    }
    Some((Shape { literal, segments: segments.len() as u8, tail: *tail }, key))
}

impl Shape {
    /// Orders shapes, the most specific first: the longer literal start, then no tail, then the more literals.
    fn rank(&self) -> impl Ord + use<> {
        use std::cmp::Reverse;
        let is_prefix = self.literal.trailing_ones() == u32::from(self.segments) && self.tail;
        (
            Reverse(self.literal.trailing_ones()),
            is_prefix,
            self.tail,
            Reverse(self.literal.count_ones()),
            // Of two with as many literals, the one whose literals come first.
            Reverse(self.literal.reverse_bits()),
            Reverse(self.segments),
        )
    }
}

#[derive(Default)]
pub(super) struct HostDraft<'a> {
    pub(super) exact: AHashMap<&'a str, Vec<Draft<'a>>>,
    pub(super) shaped: AHashMap<(Shape, Vec<u8>), Vec<Draft<'a>>>,
    pub(super) expressions: Vec<Draft<'a>>,
}

/// A host pattern in the table: its space and its bytes; none for routes without a host.
type HostKey = Option<(u32, Vec<u8>)>;

/// What a host pattern stands for in the table.
fn host_key(host: &str) -> (u32, Vec<u8>) {
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    match host.strip_prefix('*') {
        Some(suffix) => (WILDCARD, suffix.as_bytes().to_vec()),
        None => (EXACT_HOST, host.into_bytes()),
    }
}

impl HostTable {
    /// Builds a table from routes in the order of the file, and says which rules nothing can reach.
    pub fn build<'a>(
        routes: impl Iterator<Item = (usize, &'a model::Route, &'a Parts, Arc<Route>)>,
    ) -> (HostTable, Vec<Shadowed>) {
        let mut hosts: Vec<(HostKey, HostDraft<'a>)> = Vec::new();
        let mut numbers: AHashMap<HostKey, usize> = AHashMap::new();
        for (index, wanted, parts, route) in routes {
            let mut keys: Vec<HostKey> = wanted.hosts.iter().map(|host| Some(host_key(host))).collect();
            if keys.is_empty() {
                keys.push(None);
            }
            // A host that is written twice is one.
            keys.sort_unstable();
            keys.dedup();
            for key in keys {
                let number = *numbers.entry(key.clone()).or_insert_with(|| {
                    hosts.push((key, HostDraft::default()));
                    hosts.len() - 1
                });
                hosts[number].1.add(Draft { index, wanted, parts, route: route.clone() });
            }
        }
        let shadowed = shadow::find(hosts.iter().map(|(_, draft)| draft));
        let mut builder = Builder::new(&hosts);
        for (number, (key, draft)) in hosts.into_iter().enumerate() {
            builder.host(number as u32, key, draft);
        }
        (builder.table, shadowed)
    }
}

impl<'a> HostDraft<'a> {
    fn add(&mut self, draft: Draft<'a>) {
        match &*draft.parts.pattern {
            Pattern::Exact(path) => self.exact.entry(path).or_default().push(draft),
            Pattern::Regex(_) => self.expressions.push(draft),
            template => {
                if let Some(key) = shape(template) {
                    self.shaped.entry(key).or_default().push(draft);
                }
            }
        }
    }
}

struct Builder {
    table: HostTable,
    /// Shapes of the listener, by number.
    shapes: AHashMap<Shape, u32>,
    /// Sets of shapes, so that hosts alike share one.
    sets: AHashMap<Shapes, u32>,
}

impl Builder {
    fn new(hosts: &[(HostKey, HostDraft<'_>)]) -> Builder {
        let patterns = hosts.iter().map(|(_, host)| host.exact.len() + host.shaped.len()).sum();
        let table = HostTable {
            hosts: FlatTable::with_capacity(hosts.len()),
            patterns: FlatTable::with_capacity(patterns),
            ..HostTable::default()
        };
        Builder { table, shapes: AHashMap::new(), sets: AHashMap::new() }
    }

    fn host(&mut self, number: u32, key: HostKey, draft: HostDraft<'_>) {
        let mut set = Shapes { has_exact: !draft.exact.is_empty(), ..Shapes::default() };
        for (path, rules) in draft.exact {
            let hash = fold(u64::from(number), self.table.patterns.hashes.of(path.as_bytes()));
            self.pattern(EXACT_PATH, hash, number, path.as_bytes(), rules);
        }
        for ((shape, literals), rules) in draft.shaped {
            let next = self.shapes.len() as u32;
            let id = *self.shapes.entry(shape).or_insert(next);
            if !set.list.contains(&(shape, id)) {
                set.list.push((shape, id));
            }
            set.deepest = set.deepest.max(usize::from(shape.segments));
            let parts = literals.split(|byte| *byte == b'/').skip(1);
            let hashes = parts.map(|part| self.table.patterns.hashes.of(part));
            let hash = hashes.fold(u64::from(number), fold);
            self.pattern(EXACT_PATH + 1 + id, hash, number, &literals, rules);
        }
        set.list.sort_by_key(|(shape, _)| shape.rank());
        set.has_root = set.list.last().is_some_and(|(shape, _)| shape.segments == 0 && shape.tail);
        // A path with more segments than a pattern without a tail has must be told from one with as many.
        set.deepest = set.deepest.min(MAX_SEGMENTS);
        let next = self.table.shapes.len() as u32;
        let shapes = *self.sets.entry(set.clone()).or_insert(next);
        if shapes == next {
            self.table.shapes.push(set);
        }
        let expressions = self.expressions(draft.expressions);
        self.table.list.push(Host { shapes, expressions });
        let Some((space, name)) = key else {
            self.table.any = Some(number);
            return;
        };
        let lengths = if space == WILDCARD { &mut self.table.wildcards } else { &mut self.table.exact_hosts };
        lengths.note(&name);
        let hash = self.table.hosts.hashes.of(&name);
        let count = if expressions == 0 { shapes } else { WITH_EXPRESSIONS };
        self.table.hosts.insert(space, hash, &name, Value { first: number, count });
    }

    fn pattern(&mut self, space: u32, hash: u64, host: u32, literals: &[u8], mut rules: Vec<Draft<'_>>) {
        rules.sort_by_key(Draft::rank);
        let value = Value { first: self.table.rules.len() as u32, count: rules.len() as u32 };
        self.table.rules.extend(rules.iter().map(Draft::rule));
        let mut key = host.to_le_bytes().to_vec();
        key.extend_from_slice(literals);
        self.table.patterns.insert(space, hash, &key, value);
    }

    fn expressions(&mut self, mut drafts: Vec<Draft<'_>>) -> u32 {
        if drafts.is_empty() {
            return 0;
        }
        drafts.sort_by_key(Draft::rank);
        let mut texts: Vec<&str> = Vec::new();
        let mut rules = Vec::new();
        for draft in &drafts {
            let Pattern::Regex(expression) = &*draft.parts.pattern else {
                continue;
            };
            let number = texts.iter().position(|known| *known == &*expression.text).unwrap_or_else(|| {
                texts.push(&expression.text);
                texts.len() - 1
            });
            rules.push((number, draft.rule()));
        }
        // Each compiled alone, within its bound; together they are no larger than their sum.
        let Some(many) = pattern::many(&texts) else {
            return 0;
        };
        self.table.expressions.push(Expressions { many, id: pattern::next_id(), rules });
        self.table.expressions.len() as u32
    }
}
