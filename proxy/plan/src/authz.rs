//! Who may do what: allow and deny rules by identity, source, method, path, header, server name and port, for requests
//! and for connections alike. A rule that denies wins; where rules allow, one of them must.

use std::net::IpAddr;
use std::sync::Arc;

use crate::identity::{IdMatch, SpiffeId};

/// What a matching rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Lets it pass, unless another rule denies it.
    Allow,
    /// Refuses it.
    Deny,
}

/// How a text matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TextMatch {
    /// All of it.
    Exact(String),
    /// Its beginning; for paths on a segment boundary.
    Prefix(String),
    /// Its end, as `*.example.com` has it.
    Suffix(String),
    /// Whatever it is, it is there.
    Present,
}

impl TextMatch {
    /// From `text`, `text*`, `*text` or `*`.
    pub fn parse(text: &str) -> TextMatch {
        match (text.strip_suffix('*'), text.strip_prefix('*')) {
            (Some(""), _) => TextMatch::Present,
            (Some(prefix), _) => TextMatch::Prefix(prefix.to_owned()),
            (None, Some(suffix)) => TextMatch::Suffix(suffix.to_owned()),
            (None, None) => TextMatch::Exact(text.to_owned()),
        }
    }

    /// Whether it takes this text.
    pub fn takes(&self, text: &[u8]) -> bool {
        match self {
            TextMatch::Exact(exact) => exact.as_bytes() == text,
            TextMatch::Prefix(prefix) => text.starts_with(prefix.as_bytes()),
            TextMatch::Suffix(suffix) => text.ends_with(suffix.as_bytes()),
            TextMatch::Present => true,
        }
    }
}

/// A rule: every list that is not empty must have a match.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rule {
    /// Its name, for logs.
    pub name: String,
    /// The listeners it is for; every one without.
    pub listeners: Vec<String>,
    /// It denies.
    pub deny: bool,
    /// It only counts what it would do.
    pub dry_run: bool,
    /// SPIFFE IDs.
    pub identities: Vec<IdMatch>,
    /// Trust domains.
    pub trust_domains: Vec<String>,
    /// Namespaces (`/ns/NAME/`).
    pub namespaces: Vec<String>,
    /// Service accounts (`/sa/NAME`).
    pub service_accounts: Vec<String>,
    /// Networks of the client's address.
    pub sources: Vec<(IpAddr, u8)>,
    /// Server names (SNI).
    pub server_names: Vec<TextMatch>,
    /// Destination ports.
    pub ports: Vec<u16>,
    /// Methods.
    pub methods: Vec<String>,
    /// Paths.
    pub paths: Vec<TextMatch>,
    /// Header fields, by lower-case name; all of them must match.
    pub headers: Vec<(String, TextMatch)>,
}

/// What is known of a request.
pub struct Request<'a> {
    /// Its method.
    pub method: &'a [u8],
    /// Its path, as routes see it.
    pub path: &'a [u8],
    /// Finds a header field's value by lower-case name.
    pub header: &'a dyn Fn(&str) -> Option<&'a [u8]>,
}

/// What is known of whoever asks.
pub struct Subject<'a> {
    /// Its verified identity.
    pub id: Option<&'a SpiffeId>,
    /// Its address.
    pub source: IpAddr,
    /// The server name that it asked for.
    pub server_name: Option<&'a str>,
    /// The port that it wanted.
    pub port: Option<u16>,
    /// Its request; none for a connection that is relayed.
    pub request: Option<Request<'a>>,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// It may pass.
    pub allowed: bool,
    /// A rule in dry-run mode would have decided otherwise.
    pub would_deny: bool,
    /// The rule that decided, if one did.
    pub rule: Option<&'a str>,
}

/// The rules of one listener.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Policy {
    deny: Vec<Arc<Rule>>,
    allow: Vec<Arc<Rule>>,
    denies_by_default: bool,
}

fn within((network, bits): &(IpAddr, u8), address: IpAddr) -> bool {
    fn prefix(bytes: &[u8], other: &[u8], bits: usize) -> bool {
        let (whole, rest) = (bits / 8, bits % 8);
        bytes[..whole] == other[..whole] && (rest == 0 || (bytes[whole] ^ other[whole]) >> (8 - rest) == 0)
    }
    match (network, address.to_canonical()) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            prefix(&network.octets(), &address.octets(), usize::from(*bits).min(32))
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            prefix(&network.octets(), &address.octets(), usize::from(*bits).min(128))
        }
        _ => false,
    }
}

impl Rule {
    /// Whether it is about requests, which a relayed connection does not show.
    fn is_about_requests(&self) -> bool {
        !self.methods.is_empty() || !self.paths.is_empty() || !self.headers.is_empty()
    }

    fn takes_peer(&self, subject: &Subject<'_>) -> bool {
        let by_id =
            |list_is_empty: bool, takes: &dyn Fn(&SpiffeId) -> bool| list_is_empty || subject.id.is_some_and(takes);
        let named = |list: &[String], name: Option<&str>| name.is_some_and(|name| list.iter().any(|one| one == name));
        by_id(self.identities.is_empty(), &|id| self.identities.iter().any(|one| one.takes(id)))
            && by_id(self.trust_domains.is_empty(), &|id| named(&self.trust_domains, Some(id.trust_domain())))
            && by_id(self.namespaces.is_empty(), &|id| named(&self.namespaces, id.named("ns")))
            && by_id(self.service_accounts.is_empty(), &|id| named(&self.service_accounts, id.named("sa")))
            && (self.sources.is_empty() || self.sources.iter().any(|network| within(network, subject.source)))
    }

    fn takes_destination(&self, subject: &Subject<'_>) -> bool {
        let server_name = |name: &str| self.server_names.iter().any(|one| one.takes(name.as_bytes()));
        (self.server_names.is_empty() || subject.server_name.is_some_and(server_name))
            && (self.ports.is_empty() || subject.port.is_some_and(|port| self.ports.contains(&port)))
    }

    fn takes_request(&self, request: &Request<'_>) -> bool {
        let header =
            |(name, wanted): &(String, TextMatch)| (request.header)(name).is_some_and(|value| wanted.takes(value));
        (self.methods.is_empty() || self.methods.iter().any(|method| method.as_bytes() == request.method))
            && (self.paths.is_empty() || self.paths.iter().any(|path| path.takes(request.path)))
            && self.headers.iter().all(header)
    }

    /// Of a relayed connection's request nothing is known: a rule that denies leaves that part out, which denies
    /// rather too much, and one that allows does not match.
    fn takes(&self, subject: &Subject<'_>) -> bool {
        self.takes_peer(subject)
            && self.takes_destination(subject)
            && match &subject.request {
                Some(request) => self.takes_request(request),
                None => self.deny || !self.is_about_requests(),
            }
    }
}

impl Policy {
    /// The rules of this listener, or none where nothing could ever be refused. Without a default that is written down,
    /// what no rule names is refused as soon as some rule allows something.
    pub fn new(rules: &[Arc<Rule>], listener: &str, denies_by_default: Option<bool>) -> Option<Policy> {
        let mine = |rule: &&Arc<Rule>| rule.listeners.is_empty() || rule.listeners.iter().any(|name| name == listener);
        let (deny, allow): (Vec<_>, Vec<_>) = rules.iter().filter(mine).cloned().partition(|rule| rule.deny);
        let denies_by_default = denies_by_default.unwrap_or_else(|| allow.iter().any(|rule| !rule.dry_run));
        let policy = Policy { deny, allow, denies_by_default };
        (policy.denies_by_default || !policy.deny.is_empty() || !policy.allow.is_empty()).then_some(policy)
    }

    /// Decides. Allocates nothing.
    pub fn judge(&self, subject: &Subject<'_>) -> Verdict<'_> {
        let mut would_deny = false;
        for rule in self.deny.iter().filter(|rule| rule.takes(subject)) {
            if !rule.dry_run {
                return Verdict { allowed: false, would_deny, rule: Some(&rule.name) };
            }
            would_deny = true;
        }
        let mut tries = false;
        for rule in &self.allow {
            if rule.takes(subject) {
                if !rule.dry_run {
                    return Verdict { allowed: true, would_deny, rule: Some(&rule.name) };
                }
                tries = false;
                break;
            }
            tries |= rule.dry_run;
        }
        // Rules on trial alone would refuse what none of them names.
        let on_trial = tries && self.allow.iter().all(|rule| rule.dry_run);
        Verdict { allowed: !self.denies_by_default, would_deny: would_deny || on_trial, rule: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(name: &str, deny: bool) -> Rule {
        Rule { name: name.to_owned(), deny, ..Rule::default() }
    }

    fn policy(rules: &[Rule], default: Option<bool>) -> Policy {
        let rules: Vec<_> = rules.iter().cloned().map(Arc::new).collect();
        Policy::new(&rules, "in", default).expect("some rules")
    }

    fn judge(policy: &Policy, id: &str, path: Option<&str>) -> (bool, bool) {
        let id = SpiffeId::parse(id);
        let header = |name: &str| (name == "x-team").then_some(&b"blue"[..]);
        let request = path.map(|path| Request { method: b"GET", path: path.as_bytes(), header: &header });
        let subject = Subject {
            id: id.as_ref(),
            source: IpAddr::from([10, 1, 2, 3]),
            server_name: Some("api.test"),
            port: Some(8080),
            request,
        };
        let verdict = policy.judge(&subject);
        (verdict.allowed, verdict.would_deny)
    }

    const WEB: &str = "spiffe://td/ns/shop/sa/web";

    #[test]
    fn deny_wins_and_what_nobody_allows_is_refused() {
        let web = IdMatch::parse(WEB).expect("an id");
        let rules = [
            Rule { identities: vec![web], ..rule("web", false) },
            Rule { paths: vec![TextMatch::parse("/admin*")], ..rule("admin", true) },
        ];
        let policy = policy(&rules, None);
        assert_eq!(judge(&policy, WEB, Some("/x")), (true, false));
        assert_eq!(judge(&policy, WEB, Some("/admin/x")), (false, false));
        assert_eq!(judge(&policy, "spiffe://td/ns/shop/sa/other", Some("/x")), (false, false));
        assert_eq!(judge(&policy, "none", Some("/x")), (false, false));
        assert_eq!(judge(&policy, WEB, None), (false, false), "its path is not known: refused rather than let through");
    }

    #[test]
    fn every_attribute_counts() {
        let base = || rule("all", false);
        let good = [
            Rule { trust_domains: vec!["td".into()], ..base() },
            Rule { namespaces: vec!["shop".into()], service_accounts: vec!["web".into()], ..base() },
            Rule { sources: vec![(IpAddr::from([10, 1, 0, 0]), 16)], ..base() },
            Rule { server_names: vec![TextMatch::parse("*.test")], ports: vec![8080], ..base() },
            Rule { methods: vec!["GET".into()], headers: vec![("x-team".into(), TextMatch::parse("blue"))], ..base() },
        ];
        for rule in good {
            assert_eq!(judge(&policy(std::slice::from_ref(&rule), None), WEB, Some("/")), (true, false), "{rule:?}");
        }
        let bad = [
            Rule { trust_domains: vec!["other".into()], ..base() },
            Rule { namespaces: vec!["web".into()], ..base() },
            Rule { sources: vec![(IpAddr::from([10, 2, 0, 0]), 15), (IpAddr::from([10, 1, 2, 0]), 31)], ..base() },
            Rule { ports: vec![80], ..base() },
            Rule { methods: vec!["POST".into()], ..base() },
            Rule { headers: vec![("x-none".into(), TextMatch::Present)], ..base() },
        ];
        for rule in bad.iter().enumerate().filter(|(at, _)| *at != 2).map(|(_, rule)| rule) {
            assert_eq!(judge(&policy(std::slice::from_ref(rule), None), WEB, Some("/")), (false, false), "{rule:?}");
        }
        assert!(!within(&(IpAddr::from([10, 1, 2, 0]), 31), IpAddr::from([10, 1, 2, 3])));
        assert!(within(&(IpAddr::from([10, 1, 2, 0]), 30), IpAddr::from([10, 1, 2, 3])));
    }

    #[test]
    fn a_rule_on_trial_only_counts() {
        let trial = Rule { dry_run: true, ..rule("trial", true) };
        assert_eq!(judge(&policy(&[trial], None), WEB, Some("/")), (true, true));
        let trial = Rule { dry_run: true, ports: vec![1], ..rule("trial", false) };
        assert_eq!(judge(&policy(&[trial], None), WEB, Some("/")), (true, true));
        let trial = Rule { dry_run: true, ports: vec![8080], ..rule("trial", false) };
        assert_eq!(judge(&policy(&[trial], None), WEB, Some("/")), (true, false));
        assert_eq!(judge(&policy(&[], Some(true)), WEB, Some("/")), (false, false));
    }
}
