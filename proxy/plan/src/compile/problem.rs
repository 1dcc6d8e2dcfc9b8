//! What can be wrong with a model, and about which part of it.

use std::fmt;

/// What a problem is about; `config` knows where in the file that stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// `[runtime]`.
    Runtime(&'static str),
    /// `[sidecar]`, and what it expands to.
    Sidecar,
    /// `[identity]`.
    Identity,
    /// The n-th listener and one of its keys.
    Listener(usize, &'static str),
    /// The n-th route and one of its keys.
    Route(usize, &'static str),
    /// The n-th cluster and one of its keys.
    Cluster(usize, &'static str),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// About what.
    pub place: Place,
    /// What.
    pub message: String,
    /// What was probably meant, or what to do.
    pub hint: Option<String>,
    /// The other part that it concerns, where two contradict each other.
    pub other: Option<Place>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        self.hint.iter().try_for_each(|hint| write!(f, " ({hint})"))
    }
}

/// Everything that was found.
#[derive(Default)]
pub(crate) struct Problems(pub(super) Vec<Problem>);

impl Problems {
    pub(crate) fn add(&mut self, place: Place, message: impl Into<String>) {
        self.0.push(Problem { place, message: message.into(), hint: None, other: None });
    }

    pub(crate) fn between(&mut self, place: Place, other: Place, message: impl Into<String>) {
        self.0.push(Problem { place, message: message.into(), hint: None, other: Some(other) });
    }

    pub(crate) fn hint(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.0.push(Problem { place, message: message.into(), hint: Some(hint.into()), other: None });
    }
}
