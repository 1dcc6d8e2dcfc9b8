//! Keys of `http2 = {...}`, for listeners and for clusters.

use super::{Key, Kind::*, key};

pub const LISTENER_HTTP2: &[Key] = &[
    key("enabled", Flag, "Whether clients may speak HTTP/2; true without it."),
    key("max_streams", Number, "Streams at once on a connection."),
    key("window", Size, "Bytes that a client may send on a stream before they are passed on."),
    key("connection_window", Size, "The same for a whole connection; max_streams times window without it."),
    key("ping_interval", Duration, "A silent connection is asked whether it lives after so long."),
    key("max_age", Duration, "How long a connection may live before its client is told to make a new one."),
];

pub const CLUSTER_HTTP2: &[Key] = &[
    key("max_streams", Number, "Streams at once on a connection; fewer where the upstream says so."),
    key("window", Size, "Bytes that the upstream may send on a stream before they are passed on."),
    key("connection_window", Size, "The same for a whole connection; max_streams times window without it."),
    key("ping_interval", Duration, "A silent connection is asked whether it lives after so long."),
    key("header_timeout", Duration, "How long one header block may take of an upstream's connection; 10s without it."),
];
