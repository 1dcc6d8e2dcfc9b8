"""Python's ssl in both roles. `client PORT CA CERT KEY`: shakes hands with 127.0.0.1:PORT in both versions, resumes, asks,
and ends in order; prints what it saw. `server PORT CA CERT KEY`: asks clients for a certificate and answers with its names."""
import http.server, socket, ssl, sys

role, port, ca, cert, key = sys.argv[1:6]


def client(version):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca)
    context.load_cert_chain(cert, key)
    context.check_hostname = True
    context.minimum_version = context.maximum_version = version
    context.set_alpn_protocols(["http/1.1"])
    return context


def ask(context, session):
    raw = socket.create_connection(("127.0.0.1", int(port)), timeout=5)
    tls = context.wrap_socket(raw, server_hostname="localhost", session=session)
    tls.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    answer = b""
    while chunk := tls.recv(65536):
        answer += chunk
    # It ends with a close_notify, else recv would have raised an error; the answer to it is ours.
    session, reused, alpn, version = tls.session, tls.session_reused, tls.selected_alpn_protocol(), tls.version()
    tls.unwrap().close()
    return session, f"{version} {alpn} reused={reused} {answer.split(b' ')[1].decode()}"


if role == "client":
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        context = client(version)
        session, first = ask(context, None)
        print(first)
        print(ask(context, session)[1])
else:
    class Names(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            names = self.connection.getpeercert().get("subjectAltName", ())
            body = f"python sees {names} by {self.connection.version()}\n".encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(ca)
    context.load_cert_chain(cert, key)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", int(port)), Names)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()
