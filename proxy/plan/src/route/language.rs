//! The paths that a pattern takes, as an automaton: whether another pattern takes all of them as well, and what they all
//! begin with. Only while a snapshot is compiled; who asks has a budget, and beyond it nothing is known.

use ahash::AHashSet;
use regex_automata::nfa::thompson::{Compiler, Config, NFA, State};
use regex_automata::util::{look::Look, primitives::StateID, syntax};

use super::pattern::{MAX_REGEX_BYTES, Pattern, Segment};

/// Steps that one comparison may take: more than patterns that people write need.
const MAX_STEPS: usize = 20_000;
/// Bytes of a common beginning that are looked at.
const MAX_COMMON: usize = 255;

/// What is asked of a position that is neither the text's start nor its end (`\b`, `(?m)^`) is not followed up:
/// the narrower pattern is taken to meet it, the wider one not, so that no route is called unreachable that is not.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Assertions {
    Hold,
    Fail,
}

/// States that a text has led to: those that read a byte, match, or ask for the text's end. In order.
type Front = Vec<StateID>;

/// A pattern's paths.
pub(super) struct Language {
    nfa: NFA,
}

impl Language {
    /// Of a pattern; none where it is too large to be looked at.
    pub(super) fn new(pattern: &Pattern) -> Option<Language> {
        let text = match pattern {
            Pattern::Regex(expression) => expression.text.to_string(),
            Pattern::Exact(path) => format!("(?s-u){}", escaped(path)),
            Pattern::Template { segments, tail, .. } => of_template(segments, *tail),
        };
        let config = Config::new().utf8(false).nfa_size_limit(Some(MAX_REGEX_BYTES));
        let syntax = syntax::Config::new().utf8(false).nest_limit(64);
        let nfa = Compiler::new().syntax(syntax).configure(config).build(&text).ok()?;
        Some(Language { nfa })
    }

    /// What it occupies, in bytes.
    pub(super) fn size(&self) -> usize {
        self.nfa.memory_usage()
    }

    /// What all of its paths begin with, and whether that is its only path. None: it takes no path that begins with a
    /// slash, as all do but that of `OPTIONS *`.
    pub(super) fn common(&self) -> Option<(Vec<u8>, bool)> {
        let mut front = self.after_slash(Assertions::Hold);
        if front.is_empty() {
            let star = self.step(&self.start(Assertions::Hold), b'*', Assertions::Hold);
            return self.accepts(&star, Assertions::Hold).then(|| (b"*".to_vec(), true));
        }
        let mut common = vec![b'/'];
        loop {
            let may_end = self.accepts(&front, Assertions::Hold);
            let mut next = alphabet().filter(|byte| !self.step(&front, *byte, Assertions::Hold).is_empty());
            let byte = match (next.next(), next.next()) {
                (None, _) => return Some((common, may_end)),
                (Some(byte), None) if !may_end && common.len() < MAX_COMMON => byte,
                _ => return Some((common, false)),
            };
            front = self.step(&front, byte, Assertions::Hold);
            common.push(byte);
        }
    }

    /// Whether the other one takes every path that it takes. What cannot be found out within the budget is not so.
    pub(super) fn is_within(&self, wide: &Language, budget: &mut usize) -> bool {
        use Assertions::{Fail, Hold};
        let bytes = classes(&self.nfa, &wide.nfa);
        let mut left = MAX_STEPS.min(*budget);
        let mut seen = AHashSet::new();
        let mut open = vec![(self.after_slash(Hold), wide.after_slash(Fail))];
        let mut is_within = true;
        'walk: while let Some((narrow, other)) = open.pop() {
            if self.accepts(&narrow, Hold) && !wide.accepts(&other, Fail) {
                is_within = false;
                break;
            }
            for byte in &bytes {
                let cost = narrow.len() + other.len() + 1;
                if left < cost {
                    // Little is left: so that nobody begins anew with it.
                    *budget = if *budget < cost { 0 } else { *budget };
                    is_within = false;
                    break 'walk;
                }
                left -= cost;
                *budget -= cost;
                let next = self.step(&narrow, *byte, Hold);
                if next.is_empty() {
                    continue;
                }
                let next = (next, wide.step(&other, *byte, Fail));
                if !seen.contains(&next) {
                    seen.insert(next.clone());
                    open.push(next);
                }
            }
        }
        is_within
    }

    fn start(&self, assertions: Assertions) -> Front {
        self.closure(vec![self.nfa.start_anchored()], true, false, assertions)
    }

    fn after_slash(&self, assertions: Assertions) -> Front {
        self.step(&self.start(assertions), b'/', assertions)
    }

    fn step(&self, front: &[StateID], byte: u8, assertions: Assertions) -> Front {
        let next = |id: &StateID| match self.nfa.state(*id) {
            State::ByteRange { trans } => trans.matches_byte(byte).then_some(trans.next),
            State::Sparse(sparse) => sparse.matches_byte(byte),
            State::Dense(dense) => dense.matches_byte(byte),
            _ => None,
        };
        let reached: Vec<StateID> = front.iter().filter_map(next).collect();
        if reached.is_empty() { reached } else { self.closure(reached, false, false, assertions) }
    }

    fn accepts(&self, front: &[StateID], assertions: Assertions) -> bool {
        let ends = self.closure(front.to_vec(), false, true, assertions);
        ends.iter().any(|id| matches!(self.nfa.state(*id), State::Match { .. }))
    }

    fn closure(&self, mut open: Vec<StateID>, at_start: bool, at_end: bool, assertions: Assertions) -> Front {
        let mut seen: AHashSet<StateID> = open.iter().copied().collect();
        let mut front = Front::new();
        let mut follow = |id: StateID, open: &mut Vec<StateID>| {
            if seen.insert(id) {
                open.push(id);
            }
        };
        while let Some(id) = open.pop() {
            match self.nfa.state(id) {
                State::Look { look: Look::End, next } if at_end => follow(*next, &mut open),
                State::Look { look: Look::End, .. } => front.push(id),
                State::Look { look: Look::Start, next } if at_start => follow(*next, &mut open),
                State::Look { look: Look::Start, .. } => {}
                State::Look { next, .. } if assertions == Assertions::Hold => follow(*next, &mut open),
                State::Look { .. } | State::Fail => {}
                State::Union { alternates } => alternates.iter().for_each(|next| follow(*next, &mut open)),
                State::BinaryUnion { alt1, alt2 } => [alt1, alt2].iter().for_each(|next| follow(**next, &mut open)),
                State::Capture { next, .. } => follow(*next, &mut open),
                State::ByteRange { .. } | State::Sparse(_) | State::Dense(_) | State::Match { .. } => front.push(id),
            }
        }
        front.sort_unstable();
        front
    }
}

/// The bytes that a path can have (RFC 3986; others are refused before a route is looked for).
fn alphabet() -> impl Iterator<Item = u8> {
    (0x21..=0x7e).filter(|byte| !matches!(byte, b'?' | b'#'))
}

/// One byte of each kind that the two tell apart.
fn classes(one: &NFA, other: &NFA) -> Vec<u8> {
    let mut seen = AHashSet::new();
    alphabet().filter(|byte| seen.insert((one.byte_classes().get(*byte), other.byte_classes().get(*byte)))).collect()
}

fn escaped(text: &str) -> String {
    text.bytes().map(|byte| format!("\\x{byte:02x}")).collect()
}

fn of_template(segments: &[Segment], tail: bool) -> String {
    if segments.is_empty() {
        return "(?s-u)/.*".to_owned();
    }
    let mut text = "(?s-u)".to_owned();
    for segment in segments {
        match segment {
            Segment::Literal(literal) => text.push_str(&format!("/{}", escaped(literal))),
            Segment::Capture => text.push_str("/[^/]+"),
        }
    }
    text + if tail { "(?:/.*)?" } else { "" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PathMatch;

    fn of(path: PathMatch) -> Language {
        Language::new(&Pattern::new(&path).expect("a pattern")).expect("small")
    }

    fn regex(text: &str) -> Language {
        of(PathMatch::Regex(text.to_owned()))
    }

    fn is_within(narrow: &Language, wide: &Language) -> bool {
        narrow.is_within(wide, &mut 1_000_000)
    }

    #[test]
    fn one_language_lies_within_another() {
        let prefix = |path: &str| of(PathMatch::Prefix(path.to_owned()));
        let template = |path: &str| of(PathMatch::Template(path.to_owned()));
        for (narrow, wide) in [
            (regex("/a/.*"), prefix("/a")),
            (regex("/a(/b)?"), prefix("/a")),
            (regex("^/a/[0-9]+$"), prefix("/a")),
            (regex("/a/[^/]+/b"), template("/a/{x}/b")),
            (regex("/(x|y)/b/c"), template("/{x}/b/{*rest}")),
            (regex("/api/users/[0-9]+"), regex("/api/.*")),
            (regex("/api/v[12]"), regex("^/api/v[0-9]$")),
            (regex(r"/a(?-u:\b).*"), regex("/a.*")),
            (prefix("/"), regex("/.*")),
            (prefix("/"), regex(".*")),
            (prefix("/a"), regex("/a(/.*)?")),
            (of(PathMatch::Exact("/a/b".to_owned())), regex("/a/[b-d]")),
        ] {
            assert!(is_within(&narrow, &wide), "{:?} {:?}", narrow.common(), wide.common());
        }
        for (narrow, wide) in [
            (regex("/a.*"), prefix("/a")),
            (regex("/a/?.*"), prefix("/a")),
            (regex("(?i)/a/.*"), prefix("/a")),
            (regex("/a/.*/b"), template("/a/{x}/b")),
            (regex("/a/[^/]*/b"), template("/a/{x}/b")),
            (regex("/api/.*"), regex("/api/users/[0-9]+")),
            (regex("/a.*"), regex(r"/a(?-u:\b).*")),
            (prefix("/"), regex("/.+")),
            (prefix("/"), regex("/[^.]*")),
            (prefix("/a"), regex("/a/.*")),
        ] {
            assert!(!is_within(&narrow, &wide), "{:?} {:?}", narrow.common(), wide.common());
        }
    }

    #[test]
    fn what_all_paths_begin_with_is_found() {
        let common =
            |text: &str| regex(text).common().map(|(text, all)| (String::from_utf8(text).expect("ASCII"), all));
        assert_eq!(common("/a/b.*"), Some(("/a/b".to_owned(), false)));
        assert_eq!(common("^/a/(bc|bd)$"), Some(("/a/b".to_owned(), false)));
        assert_eq!(common("/a/b"), Some(("/a/b".to_owned(), true)));
        assert_eq!(common("/a(/b)?"), Some(("/a".to_owned(), false)));
        assert_eq!(common(".*"), Some(("/".to_owned(), false)));
        assert_eq!(common(r"\*"), Some(("*".to_owned(), true)));
        assert_eq!(common("api/.*"), None);
    }

    #[test]
    fn what_takes_too_long_is_not_known() {
        // Its states as sets double with each byte.
        let wide = regex("/(.*a.{14}|.*)");
        assert!(!regex("/[ab]*").is_within(&wide, &mut 1_000), "within a thousand steps");
        let mut budget = 100_000;
        regex("/[ab]*").is_within(&wide, &mut budget);
        assert!((80_000..100_000).contains(&budget), "{budget}");
    }
}
