//! HAProxy from Debian: one thread, connections to servers shared among requests.

use std::process::Command;

use super::{Hop, Launch, Layer, Peer, find, write};

pub(super) struct Haproxy;

impl Peer for Haproxy {
    fn name(&self) -> &'static str {
        "haproxy"
    }

    fn description(&self) -> &'static str {
        "HAProxy of the distribution, one thread, http-reuse always, splicing of large bodies"
    }

    fn version(&self, _: Layer) -> Result<String, String> {
        let program =
            find("haproxy").ok_or("haproxy is not installed: bench/install-peers, or apt-get install haproxy")?;
        super::ask(&program, "-v")
    }

    fn launch(&self, hop: &Hop<'_>) -> Result<Launch, String> {
        let program = find("haproxy").ok_or("haproxy is not installed")?;
        let (listen, upstream, maxconn) = (hop.listen, hop.upstream, hop.connections + 512);
        let mode = match hop.layer {
            Layer::Http => {
                "mode http\n  timeout http-keep-alive 600s\n  option forwardfor\n  http-reuse always\n  \
                 option splice-auto"
            }
            Layer::Tcp => "mode tcp\n  option splice-auto",
        };
        let config = format!(
            "global\n  nbthread 1\n  maxconn {maxconn}\ndefaults\n  {mode}\n  retries 0\n  timeout client 600s\n  \
             timeout server 600s\n  timeout connect 5s\nfrontend hop\n  bind {listen} backlog 4096\n  \
             default_backend origin\nbackend origin\n  server origin {upstream} pool-max-conn 4096\n"
        );
        let path = hop.folder.join("haproxy.cfg");
        write(&path, &config)?;
        let mut command = Command::new(program);
        // In the foreground, and quiet about it.
        command.args(["-db", "-q", "-f"]).arg(&path);
        Ok(Launch { command, metrics: None })
    }
}
