"""Four kinds of gRPC calls by grpcio through a proxy: a server of its own, clients over HOST:PORT given as the second
argument; the first is the port that the server listens on. Prints what it checked; any failure ends it with an error."""

import sys
import threading
import time
from concurrent import futures

import grpc

IDENTITY = lambda data: data


class Service(grpc.GenericRpcHandler):
    def service(self, details):
        kind = details.method.rsplit("/", 1)[1]
        handlers = {
            "Unary": grpc.unary_unary_rpc_method_handler(self.unary),
            "Server": grpc.unary_stream_rpc_method_handler(self.server),
            "Client": grpc.stream_unary_rpc_method_handler(self.client),
            "Both": grpc.stream_stream_rpc_method_handler(self.both),
            "Fails": grpc.unary_unary_rpc_method_handler(self.fails),
            "Slow": grpc.unary_unary_rpc_method_handler(self.slow),
            "Endless": grpc.unary_stream_rpc_method_handler(self.endless),
        }
        return handlers.get(kind)

    cancelled = threading.Event()

    def unary(self, request, context):
        context.set_trailing_metadata((("x-trailer", "t"),))
        metadata = dict(context.invocation_metadata())
        return request + metadata.get("x-note", "").encode()

    def server(self, request, context):
        for number in range(100):
            yield request + str(number).encode()

    def client(self, requests, context):
        return str(sum(len(request) for request in requests)).encode()

    def both(self, requests, context):
        for request in requests:
            yield request[::-1]

    def fails(self, request, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not like this")

    def slow(self, request, context):
        left = context.time_remaining()
        time.sleep(0.05)
        return str(left).encode()

    def endless(self, request, context):
        context.add_callback(Service.cancelled.set)
        while context.is_active():
            yield b"tick"
            time.sleep(0.01)


def expect(what, condition):
    if not condition:
        raise SystemExit("failed: " + what)
    print("ok:", what)


def main():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), handlers=[Service()])
    server.add_insecure_port("127.0.0.1:" + sys.argv[1])
    server.start()
    channel = grpc.insecure_channel(sys.argv[2])
    large = bytes(range(256)) * 4096
    call = lambda kind, name: getattr(channel, kind)("/test.Test/" + name, IDENTITY, IDENTITY)

    answer, info = call("unary_unary", "Unary").with_call(b"a", metadata=(("x-note", "b"),), timeout=10)
    expect("unary, with metadata and trailers", answer == b"ab" and ("x-trailer", "t") in info.trailing_metadata())
    expect("a megabyte both ways", call("unary_unary", "Unary")(large, timeout=10) == large)
    expect("server streaming", len(list(call("unary_stream", "Server")(b"n", timeout=10))) == 100)
    expect("client streaming", call("stream_unary", "Client")(iter([large] * 8), timeout=10) == b"8388608")
    both = call("stream_stream", "Both")(iter([b"ab", large, b""]), timeout=10)
    expect("both streaming", list(both) == [b"ba", large[::-1], b""])
    try:
        call("unary_unary", "Fails")(b"", timeout=10)
        expect("a failure", False)
    except grpc.RpcError as error:
        expect("a failure with its message", error.code() == grpc.StatusCode.FAILED_PRECONDITION and error.details() == "not like this")
    left = float(call("unary_unary", "Slow")(b"", timeout=60))
    expect("the deadline is passed on, less what has passed", 0 < left <= 60.5)
    try:
        for _ in call("unary_stream", "Endless")(b"", timeout=0.4):
            pass
        expect("a deadline", False)
    except grpc.RpcError as error:
        expect("a deadline ends a stream", error.code() == grpc.StatusCode.DEADLINE_EXCEEDED)
    expect("and the server hears of it", Service.cancelled.wait(5))
    Service.cancelled.clear()
    stream = call("unary_stream", "Endless")(b"", timeout=20)
    next(stream)
    stream.cancel()
    expect("so with a cancelled call", Service.cancelled.wait(5))
    server.stop(0)
    try:
        call("unary_unary", "Unary")(b"", timeout=10)
        expect("no upstream", False)
    except grpc.RpcError as error:
        expect("a missing upstream is UNAVAILABLE", error.code() == grpc.StatusCode.UNAVAILABLE)


main()
