//! Onehop itself, with its core sleeping when idle and with adaptive busy polling.

use std::process::Command;

use super::{Hop, Launch, Layer, Peer, STREAMS, WINDOW, own, write};
use crate::process::free_address;

pub(super) struct Onehop {
    name: &'static str,
    busy_poll: &'static str,
}

pub(super) const SLEEPING: Onehop = Onehop { name: "onehop", busy_poll: "0s" };
pub(super) const POLLING: Onehop = Onehop { name: "onehop-poll", busy_poll: "200us" };

impl Peer for Onehop {
    fn name(&self) -> &'static str {
        self.name
    }

    fn description(&self) -> &'static str {
        if self.busy_poll == "0s" {
            "Onehop, without busy polling"
        } else {
            "Onehop, with busy polling of up to 200 us"
        }
    }

    fn version(&self, _: Layer) -> Result<String, String> {
        let program = own("onehop").ok_or("onehop is not built: cargo build --release -p onehop")?;
        super::ask(&program, "--version")
    }

    fn launch(&self, hop: &Hop<'_>) -> Result<Launch, String> {
        let program = own("onehop").ok_or("onehop is not built")?;
        let admin = free_address().map_err(|error| error.to_string())?;
        let (listen, upstream, busy_poll) = (hop.listen, hop.upstream, self.busy_poll);
        let http2 = format!("http2 = {{ max_streams = {STREAMS}, window = \"{}KiB\" }}\n", WINDOW / 1024);
        let downstream = if hop.layer.is_http2() { http2.as_str() } else { "" };
        let upward =
            if hop.layer.is_http2_upstream() { format!("protocol = \"http2\"\n{http2}") } else { String::new() };
        let (layer, route) = match hop.layer {
            Layer::Http | Layer::Http2ToHttp1 | Layer::Http2 | Layer::Grpc => {
                ("layer = \"http\"\nidle_timeout = \"600s\"", "\n[[route]]\nname = \"all\"\ncluster = \"origin\"\n")
            }
            Layer::Tcp => ("layer = \"tcp\"\ncluster = \"origin\"\ntcp_idle_timeout = \"1h\"", ""),
        };
        let (identity, accept, connect) = tls(hop);
        let config = format!(
            "[runtime]\nworkers = 1\nadmin = \"{admin}\"\nbusy_poll = \"{busy_poll}\"\n{identity}\n[[listener]]\nname = \"hop\"\n\
             address = \"{listen}\"\n{layer}\n{downstream}{accept}{route}\n[[cluster]]\nname = \"origin\"\nendpoints = [\"{upstream}\"]\n{upward}{connect}\
             pool = {{ max_idle = 4096, idle_timeout = \"600s\" }}\n\
             limits = {{ connections = 65536, requests = 65536 }}\n"
        );
        let path = hop.folder.join("onehop.toml");
        write(&path, &config)?;
        let mut command = Command::new(program);
        command.args(["gateway", "--config"]).arg(&path);
        Ok(Launch { command, metrics: Some(admin) })
    }
}

/// The identity, and what listener and cluster say of TLS.
fn tls(hop: &Hop<'_>) -> (String, &'static str, &'static str) {
    let Some(mutual) = &hop.mutual else {
        return (String::new(), "", "");
    };
    let identity = format!(
        "\n[identity]\ncertificate = \"{}\"\nkey = \"{}\"\nbundle = \"{}\"\n",
        mutual.certificate().display(),
        mutual.key().display(),
        mutual.bundle().display()
    );
    const EXPECTED: &str =
        "tls = { identity = true, min_version = \"1.3\", expect = [\"spiffe://mesh.test/ns/default/sa/api\"] }\n";
    if mutual.outbound {
        (identity, "", EXPECTED)
    } else {
        (identity, "tls = { identity = true, min_version = \"1.3\" }\n", "")
    }
}
