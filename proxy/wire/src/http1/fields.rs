//! The field lines of a head, and which of the fields that we know are among them: most heads have few, so most
//! questions are answered by one bit.

use std::ops::Deref;

use super::head::{Field, Known};

/// Field lines in order.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    list: Vec<Field>,
    kinds: u64,
}

/// The bit of a kind, for masks of several.
pub const fn kind(known: Known) -> u64 {
    1 << known as u32
}

impl Fields {
    /// Forgets them, keeping the room.
    pub fn clear(&mut self) {
        self.list.clear();
        self.kinds = 0;
    }

    /// Adds one at the end.
    #[inline]
    pub fn push(&mut self, field: Field) {
        self.kinds |= kind(field.known);
        self.list.push(field);
    }

    /// Whether there is one of a kind.
    #[inline]
    pub fn has(&self, known: Known) -> bool {
        self.kinds & kind(known) != 0
    }

    /// Whether there is one of several kinds.
    #[inline]
    pub fn has_any(&self, kinds: u64) -> bool {
        self.kinds & kinds != 0
    }

    /// The first one of a kind.
    #[inline]
    pub fn find(&self, known: Known) -> Option<&Field> {
        if self.has(known) { self.list.iter().find(|field| field.known == known) } else { None }
    }

    /// All of a kind. Bit i: field i.
    #[inline]
    pub fn bits(&self, known: Known) -> u128 {
        if self.has(known) { self.which(|field| field.known == known) } else { 0 }
    }

    /// All that a question is answered with yes for. Bit i: field i.
    pub fn which(&self, is: impl Fn(&Field) -> bool) -> u128 {
        let matching = self.list.iter().enumerate().filter(|(_, field)| is(field));
        matching.fold(0, |bits, (index, _)| bits | 1 << index)
    }
}

impl Deref for Fields {
    type Target = [Field];

    fn deref(&self) -> &[Field] {
        &self.list
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = &'a Field;
    type IntoIter = std::slice::Iter<'a, Field>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::Span;
    use super::*;

    #[test]
    fn what_was_added_is_known_until_it_is_forgotten() {
        let mut fields = Fields::default();
        let field = |known| Field { name: Span::default(), value: Span::default(), line_end: 0, known };
        for known in [Known::Host, Known::Other, Known::XForwardedClientCert, Known::Host] {
            assert!(fields.bits(known) == 0 || known == Known::Host);
            fields.push(field(known));
            assert!(fields.has(known) && fields.find(known).is_some());
        }
        assert_eq!(fields.bits(Known::Host), 0b1001);
        assert_eq!(fields.bits(Known::XForwardedClientCert), 0b100);
        assert!(fields.has_any(kind(Known::Te) | kind(Known::Host)) && !fields.has_any(kind(Known::Te)));
        assert!(fields.find(Known::Te).is_none());
        fields.clear();
        assert!(!fields.has(Known::Host) && fields.is_empty());
    }
}
