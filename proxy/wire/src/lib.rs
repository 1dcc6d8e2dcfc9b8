//! Floor 0: bytes in, bytes out. The HTTP/1 codec, HTTP/2 messages, protocol sniffing and the PROXY protocol.
//! No IO, no clock; imports httparse only. Everything here reads what a hostile peer wrote.

pub mod client_hello;
pub mod grpc_web;
pub mod http1;
pub mod http2;
pub mod proxy_protocol;
pub mod sniff;
