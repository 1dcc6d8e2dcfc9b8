//! Floor 0: bytes in, bytes out. The HTTP/1 codec, protocol sniffing, ClientHello and the PROXY protocol.
