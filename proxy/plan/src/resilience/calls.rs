//! Retries by what became of a gRPC call: its status, where it was answered with that alone.

use std::borrow::Cow;

use crate::model::RetryOn;

/// The field that says it.
pub(super) const FIELD: &str = "grpc-status";

/// The names that such conditions have, as Envoy writes them, and their statuses.
pub const NAMES: [(&str, u8); 5] =
    [("cancelled", 1), ("deadline-exceeded", 4), ("resource-exhausted", 8), ("internal", 13), ("unavailable", 14)];

/// Statuses, a bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Calls(u32);

impl Calls {
    pub(super) fn new(on: &[RetryOn]) -> Calls {
        let statuses = on.iter().filter_map(|on| match on {
            RetryOn::Call(status) => Some(*status),
            _ => None,
        });
        Calls(statuses.fold(0, |bits, status| bits | 1u32.checked_shl(u32::from(status)).unwrap_or(0)))
    }

    /// Whether the status, looked up only where any is named, is one of them.
    pub(super) fn names<'a>(self, status: impl FnOnce() -> Option<Cow<'a, [u8]>>) -> bool {
        if self.0 == 0 {
            return false;
        }
        let Some(status) = status() else { return false };
        let number = std::str::from_utf8(&status).ok().and_then(|text| text.parse::<u32>().ok());
        number.and_then(|number| 1u32.checked_shl(number)).is_some_and(|bit| self.0 & bit != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_named_statuses_count() {
        let named = Calls::new(&[RetryOn::Call(14), RetryOn::ServerError, RetryOn::Call(1)]);
        for (status, expected) in [("14", true), ("1", true), ("0", false), ("4", false), ("99", false), ("x", false)] {
            assert_eq!(named.names(|| Some(Cow::Borrowed(status.as_bytes()))), expected, "{status}");
        }
        assert!(!named.names(|| None));
        assert!(!Calls::new(&[RetryOn::ServerError]).names(|| unreachable!("nothing is named")));
    }
}
