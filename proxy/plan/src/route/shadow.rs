//! The routes that no request can reach, since another one that is looked at earlier takes all of theirs. Only one by one:
//! that several together leave nothing is not looked for. What is found is meant as a warning, so that what would take
//! too long is left out.

use std::sync::Arc;

use ahash::AHashMap;

use super::build::{Draft, HostDraft};
use super::host::names_host;
use super::language::Language;
use super::pattern::{Expression, Pattern, Segment};
use crate::model::{self, FieldMatch, ValueMatch};

/// A rule that no request reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// The route that is never reached.
    pub route: usize,
    /// The one that takes its requests; none: no request has such a path.
    pub by: Option<usize>,
    /// At some of its hosts it is another one that does.
    pub others: bool,
}

/// Pairs of routes that are compared at most, and steps of automata: both a fraction of a second.
const MAX_PAIRS: usize = 4_000_000;
const MAX_STEPS: usize = 400_000;
/// Bytes of automata that are kept meanwhile; patterns beyond them are not looked at.
const MAX_BYTES: usize = 16 << 20;

/// Finds them among a listener's routes, by host.
pub(super) fn find<'h, 'a: 'h>(hosts: impl Iterator<Item = &'h HostDraft<'a>>) -> Vec<Shadowed> {
    let mut finder = Finder {
        host: 0,
        pairs: MAX_PAIRS,
        steps: MAX_STEPS,
        bytes: MAX_BYTES,
        places: Vec::new(),
        found: AHashMap::new(),
        known: AHashMap::new(),
    };
    for host in hosts {
        finder.host(host);
        finder.host += 1;
    }
    let Finder { places, found, .. } = finder;
    // One that is reached at any of its hosts is of use.
    let all = found.into_values().filter(|found| places.get(found.shadowed.route) == Some(&found.times));
    let mut all: Vec<Shadowed> = all.map(|found| found.shadowed).collect();
    all.sort_by_key(|shadowed| shadowed.route);
    all
}

struct Known {
    language: Language,
    common: Option<(Vec<u8>, bool)>,
}

struct Found {
    /// At how many hosts.
    times: usize,
    /// The last one.
    host: usize,
    shadowed: Shadowed,
}

struct Finder {
    /// The number of the host that is looked at.
    host: usize,
    pairs: usize,
    steps: usize,
    bytes: usize,
    /// At how many hosts each route stands.
    places: Vec<usize>,
    /// Those that are never reached at some.
    found: AHashMap<usize, Found>,
    /// Patterns that were looked at; a route at several hosts has one.
    known: AHashMap<*const Pattern, Option<Arc<Known>>>,
}

/// Those that take paths which begin with a text, and whose place among the expressions comes before a number.
type Wide<'d, 'a> = AHashMap<Vec<u8>, Vec<(usize, &'d Draft<'a>)>>;

impl Finder {
    fn host(&mut self, host: &HostDraft<'_>) {
        for draft in host.exact.values().chain(host.shaped.values()).flatten().chain(&host.expressions) {
            if self.places.len() <= draft.index {
                self.places.resize(draft.index + 1, 0);
            }
            self.places[draft.index] += 1;
        }
        host.exact.values().for_each(|rules| self.alike(rules));
        for rules in host.shaped.values() {
            self.alike(rules);
            // A template of literals alone takes one path, and an exact path comes first.
            let path = rules.first().and_then(|draft| literal_path(&draft.parts.pattern));
            if let Some(exact) = path.and_then(|path| host.exact.get(path.as_str())) {
                rules.iter().for_each(|later| self.by_any(later, exact.iter()));
            }
        }
        if !host.expressions.is_empty() {
            self.expressions(host);
        }
    }

    /// Notes that a route is never reached at a host.
    fn note(&mut self, later: &Draft<'_>, by: Option<&Draft<'_>>) {
        let by = by.map(|by| by.index);
        let new = Found { times: 0, host: usize::MAX, shadowed: Shadowed { route: later.index, by, others: false } };
        let found = self.found.entry(later.index).or_insert(new);
        // One reason at each host is enough.
        if found.host != self.host {
            found.host = self.host;
            found.times += 1;
            found.shadowed.others |= found.shadowed.by != by;
        }
    }

    fn is_noted(&self, later: &Draft<'_>) -> bool {
        self.found.get(&later.index).is_some_and(|found| found.host == self.host)
    }

    /// Whether everything that one takes, the other takes too, as far as it is not about the path.
    fn implies(&mut self, narrow: &Draft<'_>, wide: &Draft<'_>) -> bool {
        let enough = self.pairs > 0;
        self.pairs = self.pairs.saturating_sub(1);
        enough && implies(narrow.wanted, wide.wanted)
    }

    fn by_any<'d, 'a: 'd>(&mut self, later: &Draft<'_>, mut earlier: impl Iterator<Item = &'d Draft<'a>>) {
        if let Some(by) = earlier.find(|earlier| self.implies(later, earlier)) {
            self.note(later, Some(by));
        }
    }

    /// Rules of one pattern.
    fn alike(&mut self, rules: &[Draft<'_>]) {
        if rules.len() < 2 {
            return;
        }
        let mut rules: Vec<&Draft<'_>> = rules.iter().collect();
        rules.sort_by_key(|draft| draft.rank());
        for (at, later) in rules.iter().enumerate() {
            self.by_any(later, rules[..at].iter().copied());
        }
    }

    fn known(&mut self, pattern: &Arc<Pattern>) -> Option<Arc<Known>> {
        let bytes = &mut self.bytes;
        let new = || {
            let language = if *bytes > 0 { Language::new(pattern)? } else { return None };
            *bytes = bytes.saturating_sub(language.size());
            let common = language.common();
            Some(Arc::new(Known { language, common }))
        };
        self.known.entry(Arc::as_ptr(pattern)).or_insert_with(new).clone()
    }

    /// What the host's exact paths, templates and prefixes leave to its expressions, these to each other, and they to the
    /// prefix of everything.
    fn expressions(&mut self, host: &HostDraft<'_>) {
        let mut expressions: Vec<&Draft<'_>> = host.expressions.iter().collect();
        expressions.sort_by_key(|draft| draft.rank());
        let mut wide: Wide<'_, '_> = AHashMap::new();
        let mut roots = Vec::new();
        for rules in host.shaped.values() {
            match rules.first().map(|draft| literal_start(&draft.parts.pattern)) {
                Some(start) if !start.is_empty() => {
                    wide.entry(start.into_bytes()).or_default().extend(rules.iter().map(|draft| (0, draft)));
                }
                _ => roots.extend(rules),
            }
        }
        for (at, draft) in expressions.iter().enumerate() {
            if let Some((common, _)) = self.known(&draft.parts.pattern).and_then(|known| known.common.clone()) {
                wide.entry(common).or_default().push((at + 1, draft));
            }
        }
        for (at, later) in expressions.iter().enumerate() {
            self.expression(host, later, at + 1, &wide);
        }
        let every_path = wide.get(&b"/"[..]).map_or(&[][..], Vec::as_slice);
        for later in roots {
            let earlier = every_path.iter().filter(|(at, _)| *at > 0).map(|(_, draft)| *draft);
            self.within_any(later, earlier);
        }
    }

    fn expression(&mut self, host: &HostDraft<'_>, later: &Draft<'_>, number: usize, wide: &Wide<'_, '_>) {
        let Some(known) = self.known(&later.parts.pattern) else { return };
        let Some((common, is_all)) = &known.common else {
            return self.note(later, None);
        };
        if *is_all && let Some(exact) = std::str::from_utf8(common).ok().and_then(|path| host.exact.get(path)) {
            self.within_any(later, exact.iter());
        }
        for length in 1..=common.len() {
            let earlier = wide.get(&common[..length]).into_iter().flatten();
            let earlier = earlier.filter(|(at, _)| *at < number).map(|(_, draft)| *draft);
            self.within_any(later, earlier);
        }
    }

    /// Whether one of these, which are looked at earlier, takes all of a route's requests.
    fn within_any<'d, 'a: 'd>(&mut self, later: &Draft<'_>, earlier: impl Iterator<Item = &'d Draft<'a>>) {
        for earlier in earlier {
            if self.is_noted(later) || self.steps == 0 || !self.implies(later, earlier) {
                continue;
            }
            let (narrow, wide) = (self.known(&later.parts.pattern), self.known(&earlier.parts.pattern));
            if let (Some(narrow), Some(wide)) = (narrow, wide)
                && narrow.language.is_within(&wide.language, &mut self.steps)
            {
                self.note(later, Some(earlier));
            }
        }
    }
}

/// The one path of a template without captures and tail.
fn literal_path(pattern: &Pattern) -> Option<String> {
    match pattern {
        Pattern::Template { segments, tail: false, .. } if !segments.contains(&Segment::Capture) => {
            Some(literal_start(pattern))
        }
        _ => None,
    }
}

/// What all paths of a template begin with; nothing for the prefix `/`.
fn literal_start(pattern: &Pattern) -> String {
    let Pattern::Template { segments, .. } = pattern else { return String::new() };
    let mut start = String::new();
    for segment in segments {
        start.push('/');
        match segment {
            Segment::Literal(text) => start.push_str(text),
            Segment::Capture => break,
        }
    }
    start
}

/// Whether everything that `narrow` takes, `wide` takes too (host and path being the same).
fn implies(narrow: &model::Route, wide: &model::Route) -> bool {
    let methods = wide.methods.is_empty()
        || (!narrow.methods.is_empty() && narrow.methods.iter().all(|method| wide.methods.contains(method)));
    let headers = wide.headers.iter().all(|field| {
        let same = |known: &&FieldMatch| known.name.eq_ignore_ascii_case(&field.name);
        narrow.headers.iter().filter(same).any(|known| value_implies(&known.value, &field.value))
    });
    let queries = wide.queries.iter().all(|field| {
        narrow.queries.iter().any(|known| known.name == field.name && value_implies(&known.value, &field.value))
    });
    let sources = wide.sources.is_empty()
        || (!narrow.sources.is_empty()
            && narrow.sources.iter().all(|range| wide.sources.iter().any(|wide| wide.covers(range))));
    let named = |name: &String| wide.sni.iter().any(|wide| names_host(&wide.to_ascii_lowercase(), name));
    let sni = wide.sni.is_empty() || (!narrow.sni.is_empty() && narrow.sni.iter().all(named));
    methods && headers && queries && sources && sni
}

/// Whether each value that passes the one test passes the other.
fn value_implies(narrow: &ValueMatch, wide: &ValueMatch) -> bool {
    match (narrow, wide) {
        (narrow, wide) if narrow == wide => true,
        (ValueMatch::Absent, _) | (_, ValueMatch::Absent) => false,
        (_, ValueMatch::Present) => true,
        (ValueMatch::Exact(value) | ValueMatch::Prefix(value), ValueMatch::Prefix(start)) => value.starts_with(start),
        (ValueMatch::Exact(value), ValueMatch::Regex(text)) => {
            Expression::new(text).is_ok_and(|expression| expression.regex.is_match(value.as_bytes()))
        }
        _ => false,
    }
}
