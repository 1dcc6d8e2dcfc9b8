//! nginx from Debian. Its TCP proxy is a module of its own (libnginx-mod-stream).

use std::path::Path;
use std::process::Command;

use super::{Hop, INBOUND_NAME, Launch, Layer, Peer, STREAMS, find, write};

pub(super) struct Nginx;

const STREAM: &str = "/usr/lib/nginx/modules/ngx_stream_module.so";

impl Peer for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn description(&self) -> &'static str {
        "nginx of the distribution, one worker, upstream keep-alive"
    }

    fn version(&self, layer: Layer) -> Result<String, String> {
        let program = find("nginx").ok_or("nginx is not installed: bench/install-peers, or apt-get install nginx")?;
        if layer == Layer::Tcp && !Path::new(STREAM).is_file() {
            return Err("nginx's stream module is not installed: apt-get install libnginx-mod-stream".to_owned());
        }
        if layer == Layer::Http2 {
            return Err("nginx of the distribution speaks HTTP/1.1 to upstreams, except for gRPC".to_owned());
        }
        super::ask(&program, "-v")
    }

    fn launch(&self, hop: &Hop<'_>) -> Result<Launch, String> {
        let program = find("nginx").ok_or("nginx is not installed")?;
        let (folder, listen, upstream) = (hop.folder.display(), hop.listen, hop.upstream);
        let connections = hop.connections * 2 + 512;
        let load = if hop.layer == Layer::Tcp { format!("load_module {STREAM};\n") } else { String::new() };
        let head = format!(
            "{load}daemon off;\nworker_processes 1;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.err;\n\
             worker_rlimit_nofile 65536;\nevents {{ worker_connections {connections}; multi_accept on; }}\n"
        );
        let (scheme, accept, connect) = tls(hop);
        let accept = if hop.layer.is_http2() { http2(&program) } else { accept };
        let pass = if hop.layer == Layer::Grpc {
            // Each call has a connection to the upstream of its own, out of the same pool.
            "grpc_pass grpc://origin; grpc_set_header X-Forwarded-For $remote_addr;".to_owned()
        } else {
            format!(
                "{connect}proxy_pass {scheme}://origin;\n      proxy_http_version 1.1;\n      \
                 proxy_set_header Connection \"\";\n      proxy_set_header X-Forwarded-For $remote_addr;"
            )
        };
        let body = match hop.layer {
            Layer::Http | Layer::Http2ToHttp1 | Layer::Http2 | Layer::Grpc => format!(
                "http {{\n  access_log off;\n  tcp_nodelay on;\n  keepalive_requests 1000000000;\n  \
                 keepalive_timeout 600s;\n  client_body_temp_path {folder}/body;\n  proxy_temp_path {folder}/proxy;\n  \
                 fastcgi_temp_path {folder}/fastcgi;\n  uwsgi_temp_path {folder}/uwsgi;\n  scgi_temp_path {folder}/scgi;\n  \
                 upstream origin {{ server {upstream}; keepalive 4096; keepalive_requests 1000000000; \
                 keepalive_timeout 600s; }}\n  server {{\n    listen {listen}{accept}\n    location / {{\n      \
                 {pass}\n      proxy_buffers 16 32k;\n      \
                 proxy_buffer_size 32k;\n      proxy_busy_buffers_size 64k;\n      proxy_max_temp_file_size 0;\n    }}\n  }}\n}}\n"
            ),
            Layer::Tcp => format!(
                "stream {{\n  tcp_nodelay on;\n  server {{ listen {listen} backlog=4096; proxy_pass {upstream}; \
                 proxy_timeout 1h; proxy_buffer_size 16k; }}\n}}\n"
            ),
        };
        let path = hop.folder.join("nginx.conf");
        write(&path, &(head + &body))?;
        let mut command = Command::new(program);
        command.arg("-p").arg(hop.folder).arg("-c").arg(&path).arg("-e").arg(hop.folder.join("nginx.err"));
        Ok(Launch { command, metrics: None })
    }
}

/// What stands behind the listening address with HTTP/2, which is a directive of its own from 1.25.1 on.
fn http2(program: &Path) -> String {
    let version = super::ask(program, "-v").unwrap_or_default();
    let mut numbers =
        version.rsplit('/').next().unwrap_or("").split(['.', ' ']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let (parameter, directive) = if version >= (1, 25, 1) { ("", " http2 on;") } else { (" http2", "") };
    format!("{parameter} backlog=4096;{directive} http2_max_concurrent_streams {STREAMS};")
}

/// Scheme of the upstream, what stands behind the listening address, and directives of a TLS upstream.
fn tls(hop: &Hop<'_>) -> (&'static str, String, String) {
    let Some(mutual) = &hop.mutual else {
        return ("http", " backlog=4096;".to_owned(), String::new());
    };
    let (certificate, key, bundle) = (
        mutual.certificate().display().to_string(),
        mutual.key().display().to_string(),
        mutual.bundle().display().to_string(),
    );
    if mutual.outbound {
        let connect = format!(
            "proxy_ssl_certificate {certificate}; proxy_ssl_certificate_key {key}; proxy_ssl_trusted_certificate {bundle}; \
             proxy_ssl_verify on; proxy_ssl_verify_depth 3; proxy_ssl_name {INBOUND_NAME}; proxy_ssl_session_reuse on; \
             proxy_ssl_protocols TLSv1.3; proxy_ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256; "
        );
        return ("https", " backlog=4096;".to_owned(), connect);
    }
    let accept = format!(
        " ssl backlog=4096; ssl_certificate {certificate}; ssl_certificate_key {key}; ssl_client_certificate {bundle}; \
         ssl_verify_client on; ssl_verify_depth 3; ssl_protocols TLSv1.3; ssl_ecdh_curve X25519; \
         ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;"
    );
    ("http", accept, String::new())
}
