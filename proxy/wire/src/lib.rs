//! Floor 0: bytes in, bytes out. The HTTP/1 codec, protocol sniffing and the PROXY protocol.
//! No IO, no clock; imports httparse only. Everything here reads what a hostile peer wrote.

pub mod client_hello;
pub mod http1;
pub mod proxy_protocol;
pub mod sniff;
