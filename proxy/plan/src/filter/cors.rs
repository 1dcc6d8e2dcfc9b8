//! Cross-origin requests, compiled.

use crate::model;

/// Request headers that clients of gRPC-Web send.
const GRPC_WEB_ASKS: &[&str] = &["content-type", "x-grpc-web", "x-user-agent", "grpc-timeout"];
/// Response headers that they read: the status of an answer without a body.
const GRPC_WEB_READS: &[&str] = &["grpc-status", "grpc-message", "grpc-status-details-bin"];

/// Compiled CORS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    origins: Vec<Box<str>>,
    /// Joined by commas, as they are sent.
    pub methods: Box<str>,
    /// Likewise.
    pub headers: Box<str>,
    /// Likewise.
    pub expose: Box<str>,
    /// The same for an answer of our own to a call of gRPC-Web, whose status is a field of its head.
    pub expose_to_calls: Box<str>,
    /// With credentials.
    pub credentials: bool,
    /// In seconds.
    pub max_age: Option<u64>,
}

impl Cors {
    pub(super) fn new(wanted: &model::Cors, grpc_web: bool) -> Result<Cors, String> {
        if wanted.origins.is_empty() {
            return Err("cors needs origins: [\"https://app.example.com\"], or [\"*\"]".to_owned());
        }
        if wanted.credentials && wanted.origins.iter().any(|origin| origin == "*") {
            return Err(
                "every origin with credentials would let any site act for the user; list the origins".to_owned()
            );
        }
        if let Some(bad) = wanted.origins.iter().find(|origin| *origin != "*" && !origin.contains("://")) {
            return Err(format!("\"{bad}\" is no origin: \"https://{bad}\""));
        }
        // With credentials an asterisk is a name like any other (Fetch standard).
        let all = if wanted.credentials { None } else { Some("*") };
        Ok(Cors {
            origins: wanted.origins.iter().map(|origin| origin.to_ascii_lowercase().into()).collect(),
            methods: wanted.methods.join(", ").into(),
            headers: listed(&wanted.headers, if grpc_web { GRPC_WEB_ASKS } else { &[] }, all),
            expose: listed(&wanted.expose, if grpc_web { GRPC_WEB_READS } else { &[] }, all),
            expose_to_calls: listed(&wanted.expose, GRPC_WEB_READS, all),
            credentials: wanted.credentials,
            max_age: wanted.max_age.map(|age| age.as_secs()),
        })
    }

    /// Whether scripts of an origin may read responses.
    pub fn allows(&self, origin: &[u8]) -> bool {
        let Ok(origin) = std::str::from_utf8(origin) else {
            return false;
        };
        self.origins.iter().any(|allowed| match allowed.split_once("*.") {
            _ if &**allowed == "*" => true,
            Some((scheme, domain)) => {
                let bytes = origin.as_bytes();
                let (head, tail) = (scheme.as_bytes(), domain.as_bytes());
                bytes.len() > head.len() + tail.len() + 1
                    && bytes[..head.len()].eq_ignore_ascii_case(head)
                    && bytes[bytes.len() - tail.len()..].eq_ignore_ascii_case(tail)
                    && bytes[bytes.len() - tail.len() - 1] == b'.'
            }
            None => origin.eq_ignore_ascii_case(allowed),
        })
    }

    /// Whether the answer is the same for every origin.
    pub fn is_open(&self) -> bool {
        self.origins.iter().any(|origin| &**origin == "*")
    }
}

/// The names, and those of `more` that are not among them; `all` stands for every name.
fn listed(names: &[String], more: &[&str], all: Option<&str>) -> Box<str> {
    let is_new =
        |name: &&str| !names.iter().any(|other| other.eq_ignore_ascii_case(name) || all == Some(other.as_str()));
    let all: Vec<&str> = names.iter().map(String::as_str).chain(more.iter().copied().filter(is_new)).collect();
    all.join(", ").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_whole_hosts() {
        let cors = |origin: &str| {
            let wanted = model::Cors {
                origins: vec![origin.to_owned()],
                methods: vec![],
                headers: vec![],
                expose: vec![],
                credentials: false,
                max_age: None,
            };
            Cors::new(&wanted, false).expect("an origin")
        };
        assert!(cors("https://*.example.com").allows(b"https://a.b.Example.com"));
        for other in ["https://example.com", "http://a.example.com", "https://evilexample.com", "https://.example.com"]
        {
            assert!(!cors("https://*.example.com").allows(other.as_bytes()), "{other}");
        }
        assert!(cors("https://a.example").allows(b"https://a.example"));
        assert!(!cors("https://a.example").allows(b"https://a.example.evil"));
        assert!(cors("*").allows(b"null"));
    }

    #[test]
    fn what_grpc_web_needs_is_added_once() {
        let asked = ["X-Grpc-Web".to_owned(), "x-user".to_owned()];
        assert_eq!(
            &*listed(&asked, GRPC_WEB_ASKS, Some("*")),
            "X-Grpc-Web, x-user, content-type, x-user-agent, grpc-timeout"
        );
        assert_eq!(&*listed(&[], &[], None), "");
        assert_eq!(&*listed(&["*".to_owned()], &["grpc-status"], Some("*")), "*");
        assert_eq!(&*listed(&["*".to_owned()], &["grpc-status"], None), "*, grpc-status");
    }
}
