//! HAProxy from Debian: one thread, connections to servers shared among requests.

use std::process::Command;

use super::{Hop, INBOUND_NAME, Launch, Layer, Peer, STREAMS, WINDOW, find, write};

pub(super) struct Haproxy {
    busy_polling: bool,
}

pub(super) const SLEEPING: Haproxy = Haproxy { busy_polling: false };
/// With `busy-polling` it never sleeps.
pub(super) const POLLING: Haproxy = Haproxy { busy_polling: true };

impl Peer for Haproxy {
    fn name(&self) -> &'static str {
        if self.busy_polling { "haproxy-poll" } else { "haproxy" }
    }

    fn description(&self) -> &'static str {
        if self.busy_polling {
            "HAProxy as the other, with busy-polling: it never sleeps"
        } else {
            "HAProxy of the distribution, one thread, http-reuse always, splicing of large bodies"
        }
    }

    fn by_default(&self) -> bool {
        !self.busy_polling
    }

    fn never_sleeps(&self) -> bool {
        self.busy_polling
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
            Layer::Http | Layer::Http2ToHttp1 | Layer::Http2 | Layer::Grpc => {
                "mode http\n  timeout http-keep-alive 600s\n  option forwardfor\n  http-reuse always\n  \
                 option splice-auto"
            }
            Layer::Tcp => "mode tcp\n  option splice-auto",
        };
        let (mut accept, mut connect) = tls(hop)?;
        let mut tuned = String::new();
        if hop.layer.is_http2() {
            tuned = format!("  tune.h2.max-concurrent-streams {STREAMS}\n  tune.h2.initial-window-size {WINDOW}\n");
            accept += " proto h2";
        }
        if hop.layer.is_http2_upstream() {
            connect += " proto h2";
        }
        let polling = if self.busy_polling { "  busy-polling\n" } else { "" };
        let config = format!(
            "global\n{polling}  nbthread 1\n  maxconn {maxconn}\n{tuned}defaults\n  {mode}\n  retries 0\n  timeout client 600s\n  \
             timeout server 600s\n  timeout connect 5s\nfrontend hop\n  bind {listen} backlog 4096{accept}\n  \
             default_backend origin\nbackend origin\n  server origin {upstream} pool-max-conn 4096{connect}\n"
        );
        let path = hop.folder.join("haproxy.cfg");
        write(&path, &config)?;
        let mut command = Command::new(program);
        // In the foreground, and quiet about it.
        command.args(["-db", "-q", "-f"]).arg(&path);
        Ok(Launch { command, metrics: None })
    }
}

/// Options of the listening side and of the connecting side. HAProxy wants a certificate and its key in one file.
fn tls(hop: &Hop<'_>) -> Result<(String, String), String> {
    let Some(mutual) = &hop.mutual else {
        return Ok((String::new(), String::new()));
    };
    let read = |path: std::path::PathBuf| {
        std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let both = hop.folder.join("both.pem");
    write(&both, &(read(mutual.certificate())? + &read(mutual.key())?))?;
    let (both, bundle) = (both.display(), mutual.bundle());
    let shown = format!(
        " ssl crt {both} ca-file {} verify required ssl-min-ver TLSv1.3 ciphersuites TLS_AES_128_GCM_SHA256",
        bundle.display()
    );
    Ok(if mutual.outbound {
        (String::new(), format!("{shown} verifyhost {INBOUND_NAME} sni str({INBOUND_NAME})"))
    } else {
        (format!("{shown} curves X25519"), String::new())
    })
}
