//! What a route changes in messages, compiled: texts with variables, field edits, rewrites, redirects, CORS. Data and
//! pure functions; the worker writes the heads.

mod cors;
mod text;

use crate::model;
use crate::route::Pattern;
pub use cors::Cors;
pub use text::{Text, VARIABLES, Values, Variable};

/// Fields that a route can write into one head: set, renamed and added ones, those of CORS, and those of its rate limits.
pub const MAX_WRITTEN: usize = 26;
/// Of them CORS and rate limits write so many.
const WRITTEN_BY_OTHERS: usize = 4 + 2;

/// Compiled changes of header fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Edits {
    /// Names, in lower case, that do not go on as they came: removed, renamed or set.
    pub drop: Vec<Box<str>>,
    /// From a name in lower case to another.
    pub rename: Vec<(Box<str>, Box<str>)>,
    /// What is set or added.
    pub write: Vec<(Box<str>, Text)>,
    /// A bit for each length of a dropped name.
    lengths: u64,
}

/// Fields that frame a message or belong to one hop: a rule that touched them could split requests.
const UNTOUCHABLE: &[&str] = &[
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "host",
    "expect",
    "via",
];

/// Whether a text is a field name (RFC 9110 5.1).
pub fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

impl Edits {
    fn new(wanted: &model::FieldEdits, pattern: &Pattern) -> Result<Edits, String> {
        let mut edits = Edits::default();
        let name = |name: &str| -> Result<Box<str>, String> {
            if !is_token(name) {
                return Err(format!("\"{name}\" is no field name"));
            }
            let lower = name.to_ascii_lowercase();
            match lower.as_str() {
                "host" => Err("the host is changed by rewrite = { host = \"...\" }".to_owned()),
                other if UNTOUCHABLE.contains(&other) => {
                    Err(format!("\"{name}\" frames the message: it is not changed"))
                }
                _ => Ok(lower.into()),
            }
        };
        for removed in &wanted.remove {
            edits.drop.push(name(removed)?);
        }
        for (from, to) in &wanted.rename {
            let from = name(from)?;
            name(to)?;
            edits.drop.push(from.clone());
            edits.rename.push((from, to.as_str().into()));
        }
        for (set, value) in &wanted.set {
            edits.drop.push(name(set)?);
            edits.write.push((set.as_str().into(), Text::new(value, pattern)?));
        }
        for (added, value) in &wanted.add {
            name(added)?;
            edits.write.push((added.as_str().into(), Text::new(value, pattern)?));
        }
        if edits.write.len() + edits.rename.len() > MAX_WRITTEN - WRITTEN_BY_OTHERS {
            return Err(format!("more than {} fields are written", MAX_WRITTEN - WRITTEN_BY_OTHERS));
        }
        edits.drop.iter().for_each(|dropped| edits.lengths |= length_bit(dropped.as_bytes()));
        Ok(edits)
    }

    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.drop.is_empty() && self.write.is_empty()
    }

    /// Whether a field does not go on as it came.
    pub fn drops(&self, name: &[u8]) -> bool {
        self.lengths & length_bit(name) != 0
            && self.drop.iter().any(|dropped| name.eq_ignore_ascii_case(dropped.as_bytes()))
    }
}

/// Most fields are as long as none that is dropped, and need not be compared.
#[inline]
fn length_bit(name: &[u8]) -> u64 {
    1 << name.len().min(63)
}

/// A compiled rewrite of the path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rewrite {
    /// All of it.
    Whole(Text),
    /// The first so many bytes.
    Prefix {
        /// How many.
        len: usize,
        /// By this, without a final slash.
        by: Box<[u8]>,
    },
}

impl Rewrite {
    fn new(wanted: &model::PathRewrite, pattern: &Pattern) -> Result<Rewrite, String> {
        match wanted {
            model::PathRewrite::Whole(text) if text.starts_with('/') => Ok(Rewrite::Whole(Text::new(text, pattern)?)),
            model::PathRewrite::Prefix(text) if text.starts_with('/') => {
                let len = pattern.prefix_len();
                let len = len.ok_or("a prefix can be rewritten only where a prefix was matched")?;
                Ok(Rewrite::Prefix { len, by: text.strip_suffix('/').unwrap_or(text).as_bytes().into() })
            }
            _ => Err("the new path begins with a slash".to_owned()),
        }
    }

    /// Writes the new path. `forwarded` is the path in the form that is forwarded.
    pub fn write(&self, out: &mut Vec<u8>, forwarded: &[u8], values: &Values<'_>) {
        match self {
            Rewrite::Whole(text) => text.write(out, values),
            Rewrite::Prefix { len, by } => {
                out.extend_from_slice(by);
                // An encoded slash may stand where the prefix has a plain one, or right behind it: then the matched form
                // decides. What follows begins with a slash, or what is written would not: `%2F@evil.example` behind a
                // redirect's host would make that host a user name.
                let is_plain = forwarded.get(..*len) == values.matched.get(..*len)
                    && forwarded.get(*len).is_none_or(|byte| *byte == b'/');
                let rest = if is_plain { forwarded } else { values.matched }.get(*len..).unwrap_or_default();
                out.extend_from_slice(rest);
                if by.is_empty() && rest.is_empty() {
                    out.push(b'/');
                }
            }
        }
    }
}

/// A compiled redirect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redirect {
    /// Its status.
    pub status: u16,
    scheme: Option<Box<str>>,
    host: Option<Text>,
    port: Option<u16>,
    path: Option<Rewrite>,
    drop_query: bool,
}

impl Redirect {
    fn new(wanted: &model::Redirect, pattern: &Pattern) -> Result<Redirect, String> {
        if !matches!(wanted.status, 301 | 302 | 303 | 307 | 308) {
            return Err(format!("a redirect's status is 301, 302, 303, 307 or 308, not {}", wanted.status));
        }
        if wanted.scheme.is_none() && wanted.host.is_none() && wanted.port.is_none() && wanted.path.is_none() {
            return Err("a redirect that changes nothing goes round in circles".to_owned());
        }
        if wanted.scheme.as_deref().is_some_and(|scheme| !matches!(scheme, "http" | "https")) {
            return Err("a redirect's scheme is http or https".to_owned());
        }
        Ok(Redirect {
            status: wanted.status,
            scheme: wanted.scheme.as_deref().map(Into::into),
            host: wanted.host.as_deref().map(|host| Text::new(host, pattern)).transpose()?,
            port: wanted.port,
            path: wanted.path.as_ref().map(|path| Rewrite::new(path, pattern)).transpose()?,
            drop_query: wanted.drop_query,
        })
    }

    /// Writes the `Location` field's value. A port that the scheme implies is left out, and the request's own port is
    /// kept only where neither scheme nor host changes (Gateway API, HTTPRequestRedirectFilter).
    pub fn location(&self, out: &mut Vec<u8>, forwarded: &[u8], query: &[u8], values: &Values<'_>) {
        use std::io::Write;
        let scheme = self.scheme.as_deref().unwrap_or(values.scheme);
        out.extend_from_slice(scheme.as_bytes());
        out.extend_from_slice(b"://");
        let (own_host, own_port) = split_port(values.host);
        match &self.host {
            Some(host) => host.write(out, values),
            None => out.extend_from_slice(own_host),
        }
        let kept = own_port.filter(|_| self.scheme.is_none() && self.host.is_none());
        let implied = if scheme == "https" { 443 } else { 80 };
        if let Some(port) = self.port.or(kept).filter(|port| *port != implied) {
            // Writing to a vector cannot fail.
            let _ = write!(out, ":{port}");
        }
        match &self.path {
            Some(path) => path.write(out, forwarded, values),
            None => out.extend_from_slice(forwarded),
        }
        if !self.drop_query && !query.is_empty() {
            out.push(b'?');
            out.extend_from_slice(query);
        }
    }
}

fn split_port(authority: &[u8]) -> (&[u8], Option<u16>) {
    match authority.iter().rposition(|byte| *byte == b':') {
        Some(at) if !authority[at..].contains(&b']') => {
            (&authority[..at], std::str::from_utf8(&authority[at + 1..]).ok().and_then(|port| port.parse().ok()))
        }
        _ => (authority, None),
    }
}

/// What a route does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Action {
    /// Forwards.
    #[default]
    Forward,
    /// Sends the client elsewhere.
    Redirect(Box<Redirect>),
    /// Answers by itself.
    Respond(Box<model::Respond>),
}

/// A route's action and what it changes.
pub type Compiled = (Action, Option<Box<Filters>>);

/// Everything that a route changes; a route that changes nothing has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// The path that the upstream gets.
    pub path: Option<Rewrite>,
    /// The host that the upstream gets.
    pub host: Option<Text>,
    /// Of the request.
    pub request: Edits,
    /// Of the response.
    pub response: Edits,
    /// Cross-origin requests.
    pub cors: Option<Cors>,
    /// Whether the path's captures are needed.
    pub needs_captures: bool,
}

impl Filters {
    /// Compiles a route's filters and action.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub fn new(route: &model::Route, pattern: &Pattern) -> Result<Compiled, (&'static str, String)> {
        let at = |key: &'static str| move |error: String| (key, error);
        let path = route.rewrite.as_ref().map(|path| Rewrite::new(path, pattern)).transpose().map_err(at("rewrite"))?;
        let host = route.rewrite_host.as_deref().map(|host| Text::new(host, pattern)).transpose();
        let mut filters = Filters {
            path,
            host: host.map_err(at("rewrite"))?,
            request: Edits::new(&route.filters.request, pattern).map_err(at("request_headers"))?,
            response: Edits::new(&route.filters.response, pattern).map_err(at("response_headers"))?,
            cors: route.cors.as_ref().map(|cors| Cors::new(cors, route.grpc_web)).transpose().map_err(at("cors"))?,
            needs_captures: false,
        };
        let action = match &route.action {
            model::Action::Forward => Action::Forward,
            model::Action::Redirect(redirect) => {
                Action::Redirect(Box::new(Redirect::new(redirect, pattern).map_err(at("redirect"))?))
            }
            model::Action::Respond(respond) if !(200..600).contains(&respond.status) => {
                return Err(("respond", format!("{} is no status of a response", respond.status)));
            }
            model::Action::Respond(respond) => Action::Respond(Box::new(respond.clone())),
        };
        let redirect_needs = match &action {
            Action::Redirect(redirect) => {
                redirect.host.as_ref().is_some_and(Text::needs_captures)
                    || matches!(&redirect.path, Some(Rewrite::Whole(text)) if text.needs_captures())
            }
            _ => false,
        };
        let mut texts = filters.request.write.iter().chain(&filters.response.write).map(|(_, text)| text);
        filters.needs_captures = redirect_needs
            || texts.any(Text::needs_captures)
            || filters.host.as_ref().is_some_and(Text::needs_captures)
            || matches!(&filters.path, Some(Rewrite::Whole(text)) if text.needs_captures());
        // What is left of a rate is told in fields of the response.
        let tells = route.rate_limits.iter().any(|rate| rate.fields == model::RateFields::Always);
        let is_needed = tells || filters != Filters::default();
        Ok((action, is_needed.then(|| Box::new(filters))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PathMatch;
    use crate::route::Captures;

    fn values<'a>(matched: &'a [u8], captures: &'a Captures) -> Values<'a> {
        Values {
            client: [192, 0, 2, 1].into(),
            identity: b"",
            request_id: b"id",
            route: "r",
            listener: "edge",
            host: b"shop.example:8080",
            path: matched,
            method: b"GET",
            scheme: "http",
            matched,
            captures,
        }
    }

    #[test]
    fn texts_are_filled_and_their_mistakes_are_told() {
        let pattern = Pattern::new(&PathMatch::Template("/users/{id}/{*rest}".to_owned())).expect("a template");
        let path = b"/users/7/a/b";
        let captures = pattern.captures(path).expect("matches");
        let write = |text: &str| {
            let mut out = Vec::new();
            Text::new(text, &pattern).expect("a text").write(&mut out, &values(path, &captures));
            String::from_utf8(out).expect("text")
        };
        assert_eq!(write("{id}:{rest} {client} {{x}} {request_id}"), "7:a/b 192.0.2.1 {x} id");
        for bad in ["{", "}", "{nobody}", "a\r\nb"] {
            assert!(Text::new(bad, &pattern).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn prefixes_are_replaced_on_the_boundary() {
        let pattern = Pattern::new(&PathMatch::Prefix("/api/v1/".to_owned())).expect("a prefix");
        let captures = Captures::default();
        for (to, path, expected) in [
            ("/v2", "/api/v1/users", "/v2/users"),
            ("/v2/", "/api/v1", "/v2"),
            ("/", "/api/v1/users", "/users"),
            ("/", "/api/v1", "/"),
            ("/", "/api/v1/", "/"),
        ] {
            let rewrite = Rewrite::new(&model::PathRewrite::Prefix(to.to_owned()), &pattern).expect("a rewrite");
            let mut out = Vec::new();
            rewrite.write(&mut out, path.as_bytes(), &values(path.as_bytes(), &captures));
            assert_eq!(String::from_utf8_lossy(&out), expected, "{path} by {to}");
        }
    }

    #[test]
    fn an_encoded_slash_behind_the_prefix_leads_nowhere_else() {
        use crate::route::{PathBuffers, PathRule};
        let captures = Captures::default();
        for prefix in ["/old", "/old/"] {
            let pattern = Pattern::new(&PathMatch::Prefix(prefix.to_owned())).expect("a prefix");
            for (to, expected) in [("/", "/@evil.example/a%2Fb"), ("/v2", "/v2/@evil.example/a%2Fb")] {
                for slash in ["/", "%2F", "%2f", "%5C", "\\"] {
                    let path = format!("/old{slash}@evil.example/a%2Fb");
                    let mut buffers = PathBuffers::default();
                    let normal = PathRule::default().apply(path.as_bytes(), &mut buffers).expect("a path");
                    let values = values(normal.matched, &captures);
                    let wanted = Some(model::PathRewrite::Prefix(to.to_owned()));
                    let rewrite = Rewrite::new(wanted.as_ref().expect("there"), &pattern).expect("a rewrite");
                    let mut out = Vec::new();
                    rewrite.write(&mut out, normal.forwarded, &values);
                    // What the matched form decides has no encoded slash any more.
                    let decoded = expected.replace("%2F", "/");
                    let expected = if slash == "/" { expected } else { &decoded };
                    assert_eq!(String::from_utf8_lossy(&out), expected, "{path} by {to}");
                    let (scheme, host, port) = (None, None, None);
                    let wanted = model::Redirect { status: 302, scheme, host, port, path: wanted, drop_query: true };
                    let mut out = Vec::new();
                    let redirect = Redirect::new(&wanted, &pattern).expect("a redirect");
                    redirect.location(&mut out, normal.forwarded, b"", &values);
                    assert_eq!(String::from_utf8_lossy(&out), format!("http://shop.example:8080{expected}"), "{path}");
                }
            }
        }
    }

    #[test]
    fn a_location_follows_the_gateway_api() {
        let pattern = Pattern::new(&PathMatch::Prefix("/old".to_owned())).expect("a prefix");
        let captures = Captures::default();
        let location = |change: &dyn Fn(&mut model::Redirect)| {
            let mut wanted =
                model::Redirect { status: 301, scheme: None, host: None, port: None, path: None, drop_query: false };
            change(&mut wanted);
            let mut out = Vec::new();
            let redirect = Redirect::new(&wanted, &pattern).expect("a redirect");
            redirect.location(&mut out, b"/old/x", b"q=1", &values(b"/old/x", &captures));
            String::from_utf8(out).expect("text")
        };
        assert_eq!(location(&|to| to.scheme = Some("https".to_owned())), "https://shop.example/old/x?q=1");
        assert_eq!(location(&|to| to.host = Some("new.example".to_owned())), "http://new.example/old/x?q=1");
        assert_eq!(location(&|to| to.port = Some(9090)), "http://shop.example:9090/old/x?q=1");
        assert_eq!(location(&|to| to.port = Some(80)), "http://shop.example/old/x?q=1");
        let path = |to: &mut model::Redirect| {
            to.path = Some(model::PathRewrite::Prefix("/new".to_owned()));
            to.drop_query = true;
        };
        assert_eq!(location(&path), "http://shop.example:8080/new/x");
    }
}
