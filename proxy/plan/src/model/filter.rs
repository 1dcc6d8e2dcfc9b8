//! What a route changes in messages, as it is wanted.

use std::time::Duration;

/// Changes of header fields, made in this order: removed, renamed, set, added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldEdits {
    /// Names that go.
    pub remove: Vec<String>,
    /// From one name to another.
    pub rename: Vec<(String, String)>,
    /// Name and value, in place of what was there. Values may hold `{variables}`.
    pub set: Vec<(String, String)>,
    /// Name and value, beside what is there.
    pub add: Vec<(String, String)>,
}

impl FieldEdits {
    /// Whether nothing is changed.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.rename.is_empty() && self.set.is_empty() && self.add.is_empty()
    }
}

/// Changes of both heads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filters {
    /// Of the request's.
    pub request: FieldEdits,
    /// Of the response's.
    pub response: FieldEdits,
}

/// Cross-origin requests (Fetch standard, CORS protocol).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cors {
    /// Origins: `https://a.example`, `https://*.example.com`, or `*` for all.
    pub origins: Vec<String>,
    /// Methods beyond the simple ones.
    pub methods: Vec<String>,
    /// Request headers.
    pub headers: Vec<String>,
    /// Response headers that scripts may read.
    pub expose: Vec<String>,
    /// Requests with credentials.
    pub credentials: bool,
    /// How long a browser may remember the answer to a preflight.
    pub max_age: Option<Duration>,
}
