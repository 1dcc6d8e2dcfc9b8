//! What a path is matched by, in compiled form: literal segments and captures, or a regular expression. The table
//! finds candidates by hash; a pattern also stands alone, for captures, rewrites and explanations.

use std::sync::atomic::{AtomicU64, Ordering};

use regex_automata::meta::{self, Regex};
use regex_automata::{Input, MatchKind, util::syntax};

use crate::model::PathMatch;

/// Segments of a pattern at most, and of a path that are looked at.
pub const MAX_SEGMENTS: usize = 32;
/// Captures of a pattern at most.
pub const MAX_CAPTURES: usize = 16;
/// A regular expression's compiled size: what a bomb such as `(a{1000}){1000}` exceeds.
pub const MAX_REGEX_BYTES: usize = 256 * 1024;

/// One segment of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Exactly this.
    Literal(Box<str>),
    /// Anything but nothing.
    Capture,
}

/// A compiled path pattern.
#[derive(Debug)]
pub enum Pattern {
    /// All of the path.
    Exact(Box<str>),
    /// Segments; `tail`: anything may follow. A prefix is a template without captures and with a tail.
    Template {
        /// The segments.
        segments: Box<[Segment]>,
        /// Anything may follow.
        tail: bool,
        /// Names of the captures; the tail's, if it has one, is last.
        names: Box<[Box<str>]>,
    },
    /// The whole path, in time linear in its length.
    Regex(Expression),
}

/// A regular expression with its identity, under which each core keeps its working memory.
#[derive(Debug)]
pub struct Expression {
    /// It.
    pub regex: Regex,
    /// Unique in the process.
    pub id: u64,
    /// As written.
    pub text: Box<str>,
}

/// A number that no other expression of the process has.
pub(super) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn builder() -> meta::Builder {
    let mut builder = Regex::builder();
    // Paths and values are bytes: nothing is said about their being UTF-8.
    builder.syntax(syntax::Config::new().utf8(false).nest_limit(64)).configure(
        Regex::config().utf8_empty(false).nfa_size_limit(Some(MAX_REGEX_BYTES)).hybrid_cache_capacity(256 * 1024),
    );
    builder
}

fn anchored(text: &str) -> String {
    format!("^(?:{text})$")
}

/// Many expressions as one machine.
pub(super) fn many(texts: &[&str]) -> Option<Regex> {
    let texts: Vec<String> = texts.iter().map(|text| anchored(text)).collect();
    let mut builder = builder();
    builder.configure(
        Regex::config().match_kind(MatchKind::All).nfa_size_limit(None).hybrid_cache_capacity(4 * 1024 * 1024),
    );
    builder.build_many(&texts).ok()
}

impl Expression {
    /// Compiles an expression that must match the whole of a text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str) -> Result<Expression, String> {
        // Alone first: an unbalanced parenthesis must not close our own.
        builder().build(text).map_err(|error| explain(&error))?;
        let regex = builder().build(&anchored(text)).map_err(|error| explain(&error))?;
        if regex.captures_len() > MAX_CAPTURES + 1 {
            return Err(format!("it has more than {MAX_CAPTURES} groups"));
        }
        Ok(Expression { regex, id: next_id(), text: text.into() })
    }
}

fn explain(error: &meta::BuildError) -> String {
    match error.syntax_error() {
        Some(syntax) => syntax.to_string().lines().last().unwrap_or("it cannot be read").trim().to_owned(),
        None if error.size_limit().is_some() => format!("compiled, it is larger than {} KiB", MAX_REGEX_BYTES / 1024),
        None => error.to_string(),
    }
}

/// The captures of a match: ranges of the path, by number.
#[derive(Clone, Copy, Debug, Default)]
pub struct Captures {
    ranges: [(u32, u32); MAX_CAPTURES],
    count: usize,
}

impl Captures {
    fn push(&mut self, start: usize, end: usize) {
        if let Some(range) = self.ranges.get_mut(self.count) {
            *range = (start as u32, end as u32);
            self.count += 1;
        }
    }

    /// A capture's range, from 0.
    pub fn range(&self, at: usize) -> Option<std::ops::Range<usize>> {
        let (start, end) = *self.ranges.get(..self.count)?.get(at)?;
        Some(start as usize..end as usize)
    }
}

impl Pattern {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(wanted: &PathMatch) -> Result<Pattern, String> {
        match wanted {
            PathMatch::Exact(path) => Ok(Pattern::Exact(path.as_str().into())),
            PathMatch::Prefix(path) => {
                let path = path.strip_suffix('/').unwrap_or(path);
                let literal = |segment: &str| Segment::Literal(segment.into());
                let segments: Box<[Segment]> = path.split('/').skip(1).map(literal).collect();
                if segments.len() > MAX_SEGMENTS {
                    return Err(format!("it has more than {MAX_SEGMENTS} segments"));
                }
                Ok(Pattern::Template { segments, tail: true, names: Box::default() })
            }
            PathMatch::Template(path) => template(path),
            PathMatch::Regex(text) => Expression::new(text).map(Pattern::Regex),
        }
    }

    /// Whether a path matches, and its captures. Allocates for a regular expression: for the few who need captures.
    pub fn captures(&self, path: &[u8]) -> Option<Captures> {
        let mut captures = Captures::default();
        match self {
            Pattern::Exact(exact) => (exact.as_bytes() == path).then_some(captures),
            Pattern::Template { segments, tail, names } => {
                let mut at = 0;
                for segment in segments {
                    let start = path.get(at).filter(|byte| **byte == b'/').map(|_| at + 1)?;
                    let end = path[start..].iter().position(|byte| *byte == b'/').map_or(path.len(), |len| start + len);
                    match segment {
                        Segment::Literal(literal) if literal.as_bytes() != &path[start..end] => return None,
                        Segment::Literal(_) => {}
                        Segment::Capture if start == end => return None,
                        Segment::Capture => captures.push(start, end),
                    }
                    at = end;
                }
                let ends = *tail || at == path.len() || (segments.is_empty() && path == b"/");
                if *tail && names.len() > captures.count {
                    captures.push((at + 1).min(path.len()), path.len());
                }
                ends.then_some(captures)
            }
            Pattern::Regex(expression) => {
                let mut found = expression.regex.create_captures();
                expression.regex.search_captures(&Input::new(path), &mut found);
                found.get_match()?;
                for group in 1..found.group_len() {
                    let span = found.get_group(group).map_or(0..0, |span| span.range());
                    captures.push(span.start, span.end);
                }
                Some(captures)
            }
        }
    }

    /// The number of a capture by its name.
    pub fn capture_named(&self, name: &str) -> Option<usize> {
        match self {
            Pattern::Exact(_) => None,
            Pattern::Template { names, .. } => names.iter().position(|known| &**known == name),
            Pattern::Regex(expression) => {
                let by_name = expression.regex.group_info().to_index(regex_automata::PatternID::ZERO, name);
                let by_number = name.parse().ok().filter(|number| *number < expression.regex.captures_len());
                by_name.or(by_number)?.checked_sub(1)
            }
        }
    }

    /// Bytes of the path that a prefix covers; what follows is kept when it is rewritten.
    pub fn prefix_len(&self) -> Option<usize> {
        match self {
            Pattern::Template { segments, tail: true, .. } => segments
                .iter()
                .map(|segment| match segment {
                    Segment::Literal(literal) => Some(literal.len() + 1),
                    Segment::Capture => None,
                })
                .sum(),
            _ => None,
        }
    }
}

/// `/users/{id}/posts/{*rest}`.
fn template(path: &str) -> Result<Pattern, String> {
    let (mut segments, mut names) = (Vec::new(), Vec::<Box<str>>::new());
    let mut tail = false;
    for segment in path.split('/').skip(1) {
        if tail {
            return Err("nothing can follow {*...}, which takes the rest of the path".to_owned());
        }
        match segment.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
            Some(name) => {
                let (name, rest) = name.strip_prefix('*').map_or((name, false), |name| (name, true));
                if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
                    return Err(format!("\"{segment}\" is no capture: write {{name}}, or {{*name}} for the rest"));
                }
                if names.iter().any(|known| **known == *name) {
                    return Err(format!("there are two captures named \"{name}\""));
                }
                names.push(name.into());
                tail = rest;
                if !rest {
                    segments.push(Segment::Capture);
                }
            }
            None if segment.contains(['{', '}']) => {
                return Err(format!("a capture is a whole segment, \"{segment}\" is not; use a regex"));
            }
            None => segments.push(Segment::Literal(segment.into())),
        }
    }
    if segments.len() > MAX_SEGMENTS || names.len() > MAX_CAPTURES {
        return Err(format!("it has more than {MAX_SEGMENTS} segments or {MAX_CAPTURES} captures"));
    }
    Ok(Pattern::Template { segments: segments.into(), tail, names: names.into() })
}
