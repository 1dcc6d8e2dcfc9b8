"""An HTTP/1 origin on the port given: a page whose script opens a WebSocket to where it came from and writes down what that
said; the WebSocket says by which HTTP version the proxy was asked for it (Via, RFC 9110 7.6.3)."""

import base64
import hashlib
import http.server
import sys

PAGE = b"""<!doctype html><title>w</title><body>waiting<script>
const socket = new WebSocket("wss://" + location.host + "/chat");
socket.onmessage = (event) => { document.body.textContent = "said: " + event.data; };
socket.onerror = () => { document.body.textContent = "failed"; };
</script>"""


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.headers.get("Upgrade") != "websocket":
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(PAGE)))
            self.end_headers()
            self.wfile.write(PAGE)
            return
        proof = hashlib.sha1((self.headers["Sec-WebSocket-Key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode())
        self.send_response(101)
        self.send_header("Connection", "Upgrade")
        self.send_header("Upgrade", "websocket")
        self.send_header("Sec-WebSocket-Accept", base64.b64encode(proof.digest()).decode())
        self.end_headers()
        text = f"hello over {self.headers.get('Via', '?').split()[0]}".encode()
        self.wfile.write(bytes([0x81, len(text)]) + text)
        self.rfile.read(2)
        self.close_connection = True

    def log_message(self, *_):
        pass


http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
