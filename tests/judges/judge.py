#!/usr/bin/env python3
"""judge.py CASES.json ONEHOP: sends raw HTTP/1 messages of two public parsers' suites through a gateway to an origin
that records what arrives, and lets h11 and llhttp read it. What is forwarded must never be read differently by the two.
Responses go the other way: the origin sends the raw message, and the judges read what the client gets.
Prints one line per disagreement and closes with the counts; exit 1 on any disagreement."""
import base64, json, os, queue, re, signal, socket, subprocess, sys, tempfile, threading

import h11
import llhttp

QUIET = 0.05  # seconds without a byte: the message is as complete as it gets


def drain(sock, first=2.0):
    """All bytes until the peer ends or falls silent."""
    data, sock_timeout = b'', first
    while True:
        sock.settimeout(sock_timeout)
        try:
            part = sock.recv(65536)
        except OSError:
            return data
        if not part:
            return data
        data, sock_timeout = data + part, QUIET


class Origin:
    """Records every request on a connection of its own and answers it; or answers with a given raw response."""

    def __init__(self):
        self.records, self.raw = queue.Queue(), None
        self.listener = socket.create_server(('127.0.0.1', 0), backlog=64)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            connection, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        request = drain(connection)
        if request:
            self.records.put(request)
            answer = self.raw if self.raw is not None else b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'
            try:
                connection.sendall(answer)
            except OSError:
                pass
        connection.close()

    def take(self):
        records = []
        while not self.records.empty():
            records.append(self.records.get())
        return records


def by_h11(data, role):
    conn = h11.Connection(h11.SERVER if role == 'request' else h11.CLIENT)
    if role == 'response':
        conn.send(h11.Request(method='GET', target='/', headers=[('Host', 'a')]))
        conn.send(h11.EndOfMessage())
    out = {'body': b'', 'complete': False}
    try:
        conn.receive_data(data)
        ended = False
        while True:
            event = conn.next_event()
            if event is h11.NEED_DATA:
                if role == 'response' and not ended:
                    conn.receive_data(b'')
                    ended = True
                    continue
                break
            if event is h11.PAUSED or isinstance(event, h11.ConnectionClosed):
                break
            if isinstance(event, h11.Request):
                out |= {'start': (event.method, event.target), 'headers': sorted(event.headers.raw_items())}
            elif isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    return {'start': 101}
            elif isinstance(event, h11.Response):
                out |= {'start': event.status_code, 'headers': sorted(event.headers.raw_items())}
            elif isinstance(event, h11.Data):
                out['body'] += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                out['complete'] = True
                break
    except h11.RemoteProtocolError as error:
        if out.get('start') and 'peer closed' in str(error):
            return out
        return {'error': f'h11: {error}'}
    return out


def by_llhttp(data, role):
    base = llhttp.Request if role == 'request' else llhttp.Response

    class Reader(base):
        def __init__(self):
            super().__init__()
            self.url, self.fields, self.body, self.done, self.name, self.value = b'', [], b'', False, b'', b''

        def on_url(self, part):
            self.url += bytes(part)

        def on_header_field(self, part):
            self.name += bytes(part)

        def on_header_value(self, part):
            self.value += bytes(part)

        def on_header_value_complete(self):
            if not self.done and not self.body_began:
                self.fields.append((self.name, self.value))
            self.name = self.value = b''

        body_began = False

        def on_headers_complete(self):
            self.head = (self.method if role == 'request' else self.status)
            self.body_began = self.head is not None and (role == 'request' or self.status >= 200)
            if not self.body_began:
                self.fields = []

        def on_body(self, part):
            self.body += bytes(part)

        def on_message_complete(self):
            if self.body_began:
                self.done = True

    reader = Reader()
    try:
        reader.execute(data)
    except (llhttp.PausedH2UpgradeError,):
        pass
    except llhttp.Error as error:
        if not reader.done:
            return {'error': f'llhttp: {type(error).__name__} {error}'}
    if not hasattr(reader, 'head'):
        return {'error': 'llhttp: incomplete head'}
    if role == 'response':
        if reader.head == 101:
            return {'start': 101}
        if not reader.done:
            try:
                reader.finish()
            except llhttp.Error:
                pass
    start = (bytes(reader.head if isinstance(reader.head, bytes) else str(reader.head).encode()), reader.url) if role == 'request' else reader.head
    return {'start': start, 'headers': sorted((n, v.strip()) for n, v in reader.fields), 'body': reader.body, 'complete': reader.done}


def same(one, other, role):
    # llhttp knows only the methods of its own table; that it refuses another one is no different reading.
    if 'Invalid method' in other.get('error', '') and role == 'request':
        return True
    if 'error' in one or 'error' in other:
        return 'error' in one and 'error' in other and role == 'response'
    if one['start'] == 101:
        return other['start'] == 101
    low = lambda message: sorted((n.lower(), v) for n, v in message['headers'])
    return one['start'] == other['start'] and low(one) == low(other) and one['body'] == other['body'] and one['complete'] == other['complete']


def start_gateway(binary, origin):
    folder = tempfile.mkdtemp()
    config = os.path.join(folder, 'onehop.toml')
    with open(config, 'w') as file:
        file.write(f'[[listener]]\nname = "edge"\naddress = "127.0.0.1:0"\nheader_timeout = "300ms"\nbody_timeout = "300ms"\n'
                   f'[[route]]\ncluster = "origin"\nconnect = true\ntimeout = "3s"\nupgrade = ["websocket", "http/2.0", "chat", "TLS/1.0", "HTTP/2.0"]\n'
                   f'[[cluster]]\nname = "origin"\nendpoints = ["127.0.0.1:{origin.port}"]\n')
    process = subprocess.Popen([binary, 'gateway', '--config', config, '--workers', '1'], stdout=subprocess.PIPE, text=True)
    port = None
    for line in process.stdout:
        found = re.match(r'listening edge \S+ 127\.0\.0\.1:(\d+)', line)
        port = int(found[1]) if found else port
        if line.strip() == 'ready':
            return process, port
    sys.exit('the gateway did not start')


def main():
    cases = json.load(open(sys.argv[1]))
    origin = Origin()
    gateway, port = start_gateway(sys.argv[2], origin)
    passed = failed = forwarded = laxer = 0
    try:
        for case in cases:
            raw = base64.b64decode(case['base64'])
            role = case['kind'].split('-')[0]
            name = f"{case['source']} {case['id']} ({case['kind']}, {case['expect']})"
            client = socket.create_connection(('127.0.0.1', port))
            origin.take()
            origin.raw = raw if role == 'response' else None
            try:
                client.sendall(raw if role == 'request' else b'GET / HTTP/1.1\r\nHost: a\r\n\r\n')
            except OSError:
                pass
            answer = drain(client)
            client.close()
            messages = origin.take() if role == 'request' else [answer]
            laxer += bool(messages) and role == 'request' and case['expect'] == 'reject'
            good = True
            for message in messages:
                forwarded += role == 'request'
                one, other = by_h11(message, role), by_llhttp(message, role)
                if not same(one, other, role):
                    good = False
                    print(f'DISAGREE {name}\n  sent    {raw!r}\n  passed  {message!r}\n  h11     {one}\n  llhttp  {other}')
            passed, failed = passed + good, failed + (not good)
    finally:
        gateway.send_signal(signal.SIGINT)
        gateway.send_signal(signal.SIGINT)
        gateway.wait()
    print(f'{len(cases)} cases, {forwarded} requests forwarded, {laxer} of them from cases that their own parser rejects')
    print(f'{passed} passed, {failed} failed')
    sys.exit(1 if failed else 0)


main()
