//! Texts with variables, as they stand in header fields, hosts and paths.

use std::net::IpAddr;

use crate::route::{Captures, Pattern};

/// What a variable stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// The client's address.
    Client,
    /// The identity that the client proved, empty without one.
    Identity,
    /// The request's id.
    RequestId,
    /// The route's name.
    Route,
    /// The listener's name.
    Listener,
    /// The host as the client wrote it.
    Host,
    /// The path as the client wrote it.
    Path,
    /// The method.
    Method,
    /// `http` or `https`.
    Scheme,
    /// A capture of the path.
    Capture(usize),
}

/// The variables' names, for messages.
pub const VARIABLES: &[(&str, Variable)] = &[
    ("client", Variable::Client),
    ("identity", Variable::Identity),
    ("request_id", Variable::RequestId),
    ("route", Variable::Route),
    ("listener", Variable::Listener),
    ("host", Variable::Host),
    ("path", Variable::Path),
    ("method", Variable::Method),
    ("scheme", Variable::Scheme),
];

/// What the variables are in one exchange.
#[derive(Clone, Copy)]
#[allow(missing_docs, reason = "as the variables")]
pub struct Values<'a> {
    pub client: IpAddr,
    pub identity: &'a [u8],
    pub request_id: &'a [u8],
    pub route: &'a str,
    pub listener: &'a str,
    pub host: &'a [u8],
    pub path: &'a [u8],
    pub method: &'a [u8],
    pub scheme: &'a str,
    /// The path in normal form, into which the captures point.
    pub matched: &'a [u8],
    pub captures: &'a Captures,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Box<[u8]>),
    Variable(Variable),
}

/// A text with variables.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text(Vec<Piece>);

impl Text {
    /// Reads `a {client} b`; `{{` and `}}` stand for braces.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(text: &str, pattern: &Pattern) -> Result<Text, String> {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.extend_from_slice(&rest.as_bytes()[..at]);
            let brace = rest.as_bytes()[at];
            rest = &rest[at + 1..];
            if rest.as_bytes().first() == Some(&brace) {
                plain.push(brace);
                rest = &rest[1..];
                continue;
            }
            let end = rest.find('}').filter(|_| brace == b'{');
            let end = end.ok_or_else(|| format!("\"{text}\" has a brace without its partner; write {{{{ for one"))?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain).into()));
            }
            pieces.push(Piece::Variable(variable(&rest[..end], pattern)?));
            rest = &rest[end + 1..];
        }
        plain.extend_from_slice(rest.as_bytes());
        if plain.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)) {
            return Err("a value has no line breaks".to_owned());
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.into()));
        }
        Ok(Text(pieces))
    }

    /// Writes it.
    pub fn write(&self, out: &mut Vec<u8>, values: &Values<'_>) {
        use std::io::Write;
        for piece in &self.0 {
            let variable = match piece {
                Piece::Text(text) => {
                    out.extend_from_slice(text);
                    continue;
                }
                Piece::Variable(variable) => variable,
            };
            let bytes: &[u8] = match variable {
                Variable::Client => {
                    // Writing to a vector cannot fail.
                    let _ = write!(out, "{}", values.client);
                    continue;
                }
                Variable::Identity => values.identity,
                Variable::RequestId => values.request_id,
                Variable::Route => values.route.as_bytes(),
                Variable::Listener => values.listener.as_bytes(),
                Variable::Host => values.host,
                Variable::Path => values.path,
                Variable::Method => values.method,
                Variable::Scheme => values.scheme.as_bytes(),
                Variable::Capture(at) => {
                    values.captures.range(*at).and_then(|range| values.matched.get(range)).unwrap_or_default()
                }
            };
            out.extend_from_slice(bytes);
        }
    }

    /// Whether it depends on the path's captures.
    pub fn needs_captures(&self) -> bool {
        self.0.iter().any(|piece| matches!(piece, Piece::Variable(Variable::Capture(_))))
    }
}

fn variable(name: &str, pattern: &Pattern) -> Result<Variable, String> {
    if let Some(at) = pattern.capture_named(name) {
        return Ok(Variable::Capture(at));
    }
    let known = VARIABLES.iter().find(|(known, _)| *known == name).map(|(_, variable)| *variable);
    known.ok_or_else(|| {
        let names: Vec<&str> = VARIABLES.iter().map(|(name, _)| *name).collect();
        format!("there is no variable {{{name}}}; there are the path's captures and {}", names.join(", "))
    })
}
