//! Why a request takes one route and none of the others: each condition looked at by itself, slowly, from the model.
//! The tests hold this plain reading of the precedence against the table.

use std::cmp::Reverse;

use super::condition::{Facts, Unmet};
use super::host::{MAX_HOST, bare, lower, names_host};
use super::{Parts, Pattern, Scratch};
use crate::model::{FieldMatch, PathMatch, Route, ValueMatch};

/// What became of one route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It takes the request.
    Wins,
    /// It does not serve the listener.
    OtherListener,
    /// Why it does not match.
    Unmatched(String),
    /// It matches, but a more specific one does too.
    Preceded(String),
}

/// How specific a matching host is: exact, then the longest wildcard, then none.
fn host_rank(route: &Route, host: &str) -> Option<(bool, usize)> {
    if route.hosts.is_empty() {
        return Some((false, 0));
    }
    let matching = route.hosts.iter().filter(|pattern| names_host(&pattern.to_ascii_lowercase(), host));
    matching.map(|pattern| (!pattern.starts_with('*'), pattern.len())).max()
}

/// How specific a path is; larger is more. The kind, then the literal start in segments, then the shape.
fn path_rank(pattern: &Pattern) -> impl Ord + Copy + use<> {
    match pattern {
        Pattern::Exact(_) => (3, 0, false, false, 0, 0, 0),
        Pattern::Template { segments, tail, .. } => {
            let literal = |segment: &super::pattern::Segment| matches!(segment, super::pattern::Segment::Literal(_));
            let start = segments.iter().take_while(|segment| literal(segment)).count();
            let literals = segments.iter().filter(|segment| literal(segment)).count();
            let is_prefix = *tail && start == segments.len();
            let positions = segments.iter().enumerate().filter(|(_, segment)| literal(segment));
            let mask = positions.fold(0u32, |mask, (at, _)| mask | 1 << at);
            (
                2 * usize::from(!segments.is_empty() || !is_prefix),
                start,
                !is_prefix,
                !*tail,
                literals,
                mask.reverse_bits(),
                segments.len(),
            )
        }
        Pattern::Regex(_) => (1, 0, false, false, 0, 0, 0),
    }
}

/// The verdict on each route, in their order.
pub fn explain(routes: &[Route], parts: &[Parts], serves: impl Fn(&Route) -> bool, facts: &Facts<'_>) -> Vec<Verdict> {
    let mut buffer = [0; MAX_HOST];
    let host = lower(bare(facts.host), &mut buffer).map(String::from_utf8_lossy).unwrap_or_default().into_owned();
    let served: Vec<usize> = (0..routes.len()).filter(|at| serves(&routes[*at])).collect();
    let best_host = served.iter().filter_map(|at| host_rank(&routes[*at], &host)).max();
    let mut scratch = Scratch::default();
    let mut verdicts: Vec<Verdict> = (0..routes.len())
        .map(|at| {
            let route = &routes[at];
            if !serves(route) {
                return Verdict::OtherListener;
            }
            match host_rank(route, &host) {
                None => Verdict::Unmatched(format!("host \"{host}\" is not {}", list(&route.hosts))),
                rank if rank < best_host => {
                    Verdict::Unmatched(format!("a more specific host names \"{host}\", and its routes alone are tried"))
                }
                _ => why_not(route, &parts[at], facts, &mut scratch).map_or(Verdict::Wins, Verdict::Unmatched),
            }
        })
        .collect();
    let rank = |at: usize| {
        let route = &routes[at];
        (
            path_rank(&parts[at].pattern),
            !route.methods.is_empty(),
            route.headers.len(),
            route.queries.len(),
            !route.sources.is_empty(),
            !route.sni.is_empty(),
            Reverse(at),
        )
    };
    let matching: Vec<usize> = (0..routes.len()).filter(|at| verdicts[*at] == Verdict::Wins).collect();
    if let Some(winner) = matching.iter().copied().max_by_key(|at| rank(*at)) {
        for at in matching.into_iter().filter(|at| *at != winner) {
            verdicts[at] = Verdict::Preceded(advantage(&routes[winner], &routes[at], parts, winner, at));
        }
    }
    verdicts
}

fn list(texts: &[String]) -> String {
    texts.iter().map(|text| format!("\"{text}\"")).collect::<Vec<_>>().join(" or ")
}

fn path_text(path: &PathMatch) -> String {
    match path {
        PathMatch::Exact(text) => format!("exact \"{text}\""),
        PathMatch::Prefix(text) => format!("prefix \"{text}\""),
        PathMatch::Template(text) => format!("template \"{text}\""),
        PathMatch::Regex(text) => format!("regex \"{text}\""),
    }
}

fn field_text(kind: &str, field: &FieldMatch) -> String {
    let name = &field.name;
    match &field.value {
        ValueMatch::Present => format!("{kind} \"{name}\" is missing"),
        ValueMatch::Absent => format!("{kind} \"{name}\" is there"),
        ValueMatch::Exact(value) => format!("{kind} \"{name}\" is not \"{value}\""),
        ValueMatch::Prefix(value) => format!("{kind} \"{name}\" does not begin with \"{value}\""),
        ValueMatch::Regex(value) => format!("{kind} \"{name}\" does not match \"{value}\""),
    }
}

fn why_not(route: &Route, parts: &Parts, facts: &Facts<'_>, scratch: &mut Scratch) -> Option<String> {
    if parts.pattern.captures(facts.path).is_none() {
        let path = String::from_utf8_lossy(facts.path).into_owned();
        return Some(format!("path \"{path}\" does not match {}", path_text(&route.path)));
    }
    Some(match parts.conditions.as_ref()?.unmet(facts, scratch)? {
        Unmet::Method => {
            format!("method {} is not {}", String::from_utf8_lossy(facts.method), route.methods.join(" or "))
        }
        Unmet::Source => {
            let ranges: Vec<String> = route.sources.iter().map(ToString::to_string).collect();
            format!("the client's address {} is not in {}", facts.source, ranges.join(" or "))
        }
        Unmet::Sni => format!("the TLS name \"{}\" is not {}", facts.sni.unwrap_or(""), list(&route.sni)),
        Unmet::Header(at) => field_text("header", &route.headers[at]),
        Unmet::Query(at) => field_text("query field", &route.queries[at]),
    })
}

fn advantage(winner: &Route, loser: &Route, parts: &[Parts], won: usize, lost: usize) -> String {
    let name = &winner.name;
    let (won, lost) = (path_rank(&parts[won].pattern), path_rank(&parts[lost].pattern));
    if won > lost {
        return format!(
            "it matches, but {} of \"{name}\" is more specific than {}",
            path_text(&winner.path),
            path_text(&loser.path)
        );
    }
    let why = if winner.methods.is_empty() != loser.methods.is_empty() {
        "names a method"
    } else if winner.headers.len() != loser.headers.len() {
        "asks for more headers"
    } else if winner.queries.len() != loser.queries.len() {
        "asks for more query fields"
    } else if winner.sources.is_empty() != loser.sources.is_empty() {
        "names a source address"
    } else if winner.sni.is_empty() != loser.sni.is_empty() {
        "names a TLS name"
    } else {
        "stands before it"
    };
    format!("it matches, but \"{name}\" {why}")
}
