//! What a rule asks beyond host and path: method, header and query fields, source address, SNI.

use std::borrow::Cow;
use std::net::IpAddr;

use regex_automata::Input;

use super::Scratch;
use super::cidr::Cidr;
use super::host::names_host;
use super::pattern::Expression;
use crate::model::{self, ValueMatch};

/// What is known of a request when it is routed.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The authority, with or without a port.
    pub host: &'a [u8],
    /// The path in normal form.
    pub path: &'a [u8],
    /// The query, without its question mark.
    pub query: &'a [u8],
    /// The method.
    pub method: &'a [u8],
    /// A header's value by its name in lower case; several lines of one name are one value, joined by commas
    /// (RFC 9110 5.3), so that a second line cannot hide behind the first.
    pub header: &'a dyn Fn(&str) -> Option<Cow<'a, [u8]>>,
    /// The client's address.
    pub source: IpAddr,
    /// The name in its TLS greeting.
    pub sni: Option<&'a str>,
}

/// A test of one value.
#[derive(Debug)]
pub enum Test {
    /// It is there.
    Present,
    /// It is not there.
    Absent,
    /// It is this.
    Exact(Box<[u8]>),
    /// It begins with this.
    Prefix(Box<[u8]>),
    /// All of it matches.
    Regex(Expression),
}

impl Test {
    fn new(wanted: &ValueMatch) -> Result<Test, String> {
        Ok(match wanted {
            ValueMatch::Present => Test::Present,
            ValueMatch::Absent => Test::Absent,
            ValueMatch::Exact(value) => Test::Exact(value.as_bytes().into()),
            ValueMatch::Prefix(value) => Test::Prefix(value.as_bytes().into()),
            ValueMatch::Regex(text) => Test::Regex(Expression::new(text)?),
        })
    }

    /// Whether a value, or that there is none, passes.
    pub fn holds(&self, value: Option<&[u8]>, scratch: &mut Scratch) -> bool {
        match (self, value) {
            (Test::Absent, value) => value.is_none(),
            (_, None) => false,
            (Test::Present, Some(_)) => true,
            (Test::Exact(wanted), Some(value)) => **wanted == *value,
            (Test::Prefix(wanted), Some(value)) => value.starts_with(wanted),
            (Test::Regex(expression), Some(value)) => {
                let cache = scratch.cache(expression.id, &expression.regex);
                expression.regex.search_half_with(cache, &Input::new(value).earliest(true)).is_some()
            }
        }
    }
}

/// A test of a named value.
#[derive(Debug)]
pub struct Field {
    /// Its name; of a header in lower case.
    pub name: Box<str>,
    /// The test.
    pub test: Test,
}

impl Field {
    /// Compiles tests of header fields.
    ///
    /// # Errors
    /// What is wrong with which.
    pub fn headers(wanted: &[model::FieldMatch]) -> Result<Vec<Field>, String> {
        let field = |field: &model::FieldMatch| {
            let test = Test::new(&field.value).map_err(|error| format!("\"{}\": {error}", field.name))?;
            Ok(Field { name: field.name.to_ascii_lowercase().into(), test })
        };
        wanted.iter().map(field).collect()
    }
}

/// Everything that a rule asks beyond host and path.
#[derive(Debug, Default)]
pub struct Conditions {
    methods: Vec<Box<[u8]>>,
    headers: Vec<Field>,
    queries: Vec<Field>,
    sources: Vec<Cidr>,
    sni: Vec<Box<str>>,
}

/// The first condition that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmet {
    /// The method.
    Method,
    /// The n-th header.
    Header(usize),
    /// The n-th query field.
    Query(usize),
    /// The client's address.
    Source,
    /// The name in its TLS greeting.
    Sni,
}

impl Conditions {
    /// Compiles a route's conditions.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn new(route: &model::Route) -> Result<Conditions, (&'static str, String)> {
        let query = |field: &model::FieldMatch| {
            let test = Test::new(&field.value).map_err(|error| ("query", format!("\"{}\": {error}", field.name)))?;
            Ok(Field { name: field.name.as_str().into(), test })
        };
        Ok(Conditions {
            methods: route.methods.iter().map(|method| method.as_bytes().into()).collect(),
            headers: Field::headers(&route.headers).map_err(|error| ("headers", error))?,
            queries: route.queries.iter().map(query).collect::<Result<_, _>>()?,
            sources: route.sources.clone(),
            sni: route.sni.iter().map(|name| name.to_ascii_lowercase().into()).collect(),
        })
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.methods.is_empty()
            && self.headers.is_empty()
            && self.queries.is_empty()
            && self.sources.is_empty()
            && self.sni.is_empty()
    }

    /// The first that does not hold.
    pub fn unmet(&self, facts: &Facts<'_>, scratch: &mut Scratch) -> Option<Unmet> {
        if !self.methods.is_empty() && !self.methods.iter().any(|method| **method == *facts.method) {
            return Some(Unmet::Method);
        }
        if !self.sources.is_empty() && !self.sources.iter().any(|range| range.contains(facts.source)) {
            return Some(Unmet::Source);
        }
        if !self.sni.is_empty() && !facts.sni.is_some_and(|sni| self.sni.iter().any(|name| names_host(name, sni))) {
            return Some(Unmet::Sni);
        }
        for (at, field) in self.headers.iter().enumerate() {
            let value = (facts.header)(&field.name);
            if !field.test.holds(value.as_deref(), scratch) {
                return Some(Unmet::Header(at));
            }
        }
        for (at, field) in self.queries.iter().enumerate() {
            let value = query_value(facts.query, field.name.as_bytes());
            if !field.test.holds(value.as_deref(), scratch) {
                return Some(Unmet::Query(at));
            }
        }
        None
    }
}

/// The first value of a query field, decoded.
pub fn query_value<'a>(query: &'a [u8], name: &[u8]) -> Option<Cow<'a, [u8]>> {
    query.split(|byte| *byte == b'&').find_map(|pair| {
        let (key, value) = match pair.iter().position(|byte| *byte == b'=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, &[][..]),
        };
        (*decode(key) == *name).then(|| decode(value))
    })
}

/// `application/x-www-form-urlencoded`: `+` is a space; a broken escape stands for itself.
fn decode(text: &[u8]) -> Cow<'_, [u8]> {
    if !text.iter().any(|byte| matches!(byte, b'%' | b'+')) {
        return Cow::Borrowed(text);
    }
    let mut out = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let digit = |at: usize| text.get(at).and_then(|digit| (*digit as char).to_digit(16));
        match (text[at], digit(at + 1), digit(at + 2)) {
            (b'+', ..) => out.push(b' '),
            (b'%', Some(high), Some(low)) => {
                out.push((high << 4 | low) as u8);
                at += 2;
            }
            (byte, ..) => out.push(byte),
        }
        at += 1;
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_fields_are_found_and_decoded() {
        let value = |query: &str, name: &str| {
            query_value(query.as_bytes(), name.as_bytes()).map(|value| String::from_utf8_lossy(&value).into_owned())
        };
        assert_eq!(value("a=1&b=2&a=3", "a").as_deref(), Some("1"));
        assert_eq!(value("flag&b=2", "flag").as_deref(), Some(""));
        assert_eq!(value("q=a%20b+c%zz", "q").as_deref(), Some("a b c%zz"));
        assert_eq!(value("%71=x", "q").as_deref(), Some("x"));
        assert_eq!(value("", "q"), None);
    }
}
