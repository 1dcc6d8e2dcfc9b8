"""Serves a page on the port given first, whose only script is the file given second; prints what the page sends to /result,
and ends when as many pages as the third says have sent theirs."""

import http.server
import sys
import threading

script = open(sys.argv[2], "rb").read()
left = int(sys.argv[3])


class Page(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, kind, body):
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/script.js":
            self.answer("text/javascript", script)
        else:
            self.answer("text/html", b'<!doctype html><title>shop</title><script type="module" src="/script.js"></script>')

    def do_POST(self):
        global left
        print(self.rfile.read(int(self.headers["Content-Length"])).decode(), end="", flush=True)
        self.answer("text/plain", b"")
        left -= 1
        if left == 0:
            threading.Thread(target=server.shutdown).start()

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Page)
server.serve_forever()
