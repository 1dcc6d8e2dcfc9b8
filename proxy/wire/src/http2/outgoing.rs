//! Heads on their way to an HTTP/2 peer: which fields go, whichever version they came in.

use super::field::is_connection_specific;
use crate::http1::{Edits, Field, Known, RequestHead, ResponseHead};

/// Crumbs that the cookies of a request are split into: each costs many times its own bytes until it is sent, and upstreams
/// count fields (HAProxy takes 101 of them, Envoy 100).
const MAX_CRUMBS: usize = 64;

/// Calls `emit` with each field of a request that goes to an HTTP/2 upstream. Names keep their case: the encoder
/// lowers it. The authority goes as `:authority`, so Host does not go; cookies are split into crumbs, which the
/// compression likes (RFC 9113 8.2.3), unless they are too many.
pub fn request_fields<'b>(
    head: &RequestHead,
    buf: &'b [u8],
    edits: &Edits<'b>,
    mut emit: impl FnMut(Known, &'b [u8], &'b [u8]),
) {
    let mut room = MAX_CRUMBS;
    each(&head.fields, buf, edits, |known, name, value| match known {
        Known::Host => {}
        Known::Cookie if !take_crumbs(&mut room, value) => emit(known, name, value),
        Known::Cookie => value.split(|byte| *byte == b';').for_each(|crumb| {
            let crumb = crumb.trim_ascii();
            if !crumb.is_empty() {
                emit(known, name, crumb);
            }
        }),
        _ => emit(known, name, value),
    });
}

/// Whether there is room for the crumbs of one more field.
fn take_crumbs(room: &mut usize, value: &[u8]) -> bool {
    let crumbs = memchr::memchr_iter(b';', value).count() + 1;
    let fits = crumbs <= *room;
    *room -= if fits { crumbs } else { 0 };
    fits
}

/// Calls `emit` with each field of a response that goes to an HTTP/2 client.
pub fn response_fields<'b>(
    head: &ResponseHead,
    buf: &'b [u8],
    edits: &Edits<'b>,
    emit: impl FnMut(Known, &'b [u8], &'b [u8]),
) {
    each(&head.fields, buf, edits, emit);
}

fn each<'b>(fields: &[Field], buf: &'b [u8], edits: &Edits<'b>, mut emit: impl FnMut(Known, &'b [u8], &'b [u8])) {
    for (index, field) in fields.iter().enumerate() {
        if edits.drop >> index & 1 == 0 && !is_connection_specific(field.known) {
            emit(field.known, field.name.of(buf), field.value.of(buf));
        }
    }
    added_fields(edits, emit);
}

/// Calls `emit` with each field that is added to a message on its way to an HTTP/2 peer.
pub fn added_fields<'b>(edits: &Edits<'b>, mut emit: impl FnMut(Known, &'b [u8], &'b [u8])) {
    for (name, value) in edits.add {
        let known = Known::recognise(name);
        // What is added for an HTTP/1 connection says `TE: trailers` here too.
        if !is_connection_specific(known) {
            emit(known, name, value);
        }
    }
}
