//! What a scenario speaks: what it means for the generator and for the candidates.

use std::net::SocketAddr;

use onehop_load::http2::grpc::Kind as Calls;
use onehop_load::plan::{self, Call, Http2};
use onehop_load::request::{Content, Mix, Prepared};
use onehop_load::target::Target;
use serde::{Deserialize, Serialize};

use super::scenario::{Kind, Scenario};
use crate::peers::Layer;

/// What is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// HTTP/1.1, GET.
    Http,
    /// HTTP/2 with the candidate, HTTP/1.1 from there to the origin. Direct and through the raw relay the origin is
    /// spoken to in HTTP/2: what lies between the two is what translating costs.
    H2H1,
    /// HTTP/2 on both sides, by prior knowledge.
    H2H2,
    /// Unary calls of gRPC.
    Grpc,
    /// Bytes that come back.
    Tcp,
}

impl Protocol {
    /// Whether requests are answered, rather than bytes sent back.
    pub fn is_http(self) -> bool {
        self != Protocol::Tcp
    }

    /// Whether the generator speaks HTTP/2.
    pub fn is_http2(self) -> bool {
        matches!(self, Protocol::H2H1 | Protocol::H2H2 | Protocol::Grpc)
    }

    /// What a candidate has to pass on.
    pub fn layer(self) -> Layer {
        match self {
            Protocol::Http => Layer::Http,
            Protocol::H2H1 => Layer::Http2ToHttp1,
            Protocol::H2H2 => Layer::Http2,
            Protocol::Grpc => Layer::Grpc,
            Protocol::Tcp => Layer::Tcp,
        }
    }

    /// What the generator speaks.
    pub fn spoken(self) -> plan::Protocol {
        match self {
            Protocol::Http => plan::Protocol::Http1,
            Protocol::H2H1 | Protocol::H2H2 | Protocol::Grpc => plan::Protocol::Http2,
            Protocol::Tcp => plan::Protocol::Echo,
        }
    }
}

impl Scenario {
    /// What is wrong with the protocol, the streams, and what they go with.
    pub(super) fn check_protocol(&self) -> Result<(), String> {
        let http2 = self.protocol.is_http2();
        if self.streams == 0 || (self.streams > 1 && !http2) || self.streams * self.connections > 50_000 {
            return Err(format!(
                "streams = {}: at least 1, with h2-h1, h2-h2 and grpc alone more, and at most 50000 on all connections",
                self.streams
            ));
        }
        if http2 && (self.mutual_tls || self.session.is_some() || self.new_connections) {
            return Err("protocol: with HTTP/2 connections are plain and kept".to_owned());
        }
        if self.protocol == Protocol::H2H1 && self.kind == Kind::Mesh {
            return Err("protocol: h2-h1 is for one hop; the second one would be spoken to in HTTP/1.1".to_owned());
        }
        Ok(())
    }

    /// How the generator speaks HTTP/2.
    pub(super) fn http2(&self) -> Http2 {
        let call = (self.protocol == Protocol::Grpc).then_some(Call { kind: Calls::Unary, messages: None });
        Http2 { streams: self.streams, call, ..Http2::default() }
    }

    /// What is asked of an address.
    pub(super) fn mix(&self, address: SocketAddr) -> Result<Mix, String> {
        let (bytes, is_call) = (self.bytes()?, self.protocol == Protocol::Grpc);
        let url = match self.protocol {
            Protocol::Grpc => format!("http://{address}{}", Calls::Unary.method()),
            Protocol::Tcp => format!("tcp://{address}"),
            Protocol::Http | Protocol::H2H1 | Protocol::H2H2 => format!("http://{address}/"),
        };
        let content = Content {
            close: self.new_connections,
            method: is_call.then(|| "POST".to_owned()),
            // A call's message is as long as its answer's.
            body: if is_call || self.protocol == Protocol::Tcp { vec![b'x'; bytes] } else { Vec::new() },
            is_call,
            ..Content::default()
        };
        Ok(Mix::single(Prepared::new(Target::parse(&url)?, &content)?))
    }
}
