"""The services of configs/grpc.toml by grpcio: one server per port given (any free one where it is taken), each with the
shop's methods and gRPC's health service. Messages are bytes; those that it makes of a request are the request repeated, so
that they are messages of any type that a client may have. Prints the ports; each line on standard input is a command,
answered by a line:
  health NUMBER STATE    what the health service of that server says from now on
  refuse NUMBER COUNT    that many of its next calls are answered UNAVAILABLE, with a status alone
  calls NUMBER           how many calls reached it
  cancelled NUMBER       waits until as many calls without a deadline have been given up by their clients, over all servers
"""

import sys
import threading
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

changed = threading.Condition()
cancelled = 0


def given_up():
    global cancelled
    with changed:
        cancelled += 1
        changed.notify_all()


class Shop(grpc.GenericRpcHandler):
    def __init__(self):
        self.calls, self.refused, self.port = 0, 0, 0

    def service(self, details):
        service, method = details.method.rsplit("/", 1)
        unary, server = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        handlers = {
            "Find": unary(self.find),
            "List": server(self.list),
            "Total": grpc.stream_unary_rpc_method_handler(self.total),
            "Talk": grpc.stream_stream_rpc_method_handler(self.talk),
            "Fails": unary(self.fails),
            "Left": unary(self.left),
            "Never": unary(self.never),
            "Watch": server(self.watch),
        }
        return handlers.get(method) if service in ("/shop.Catalog", "/shop.Cart") else None

    def begin(self, context):
        with changed:
            self.calls += 1
            is_refused = self.refused > 0
            self.refused -= is_refused
        if is_refused:
            context.abort(grpc.StatusCode.UNAVAILABLE, "not now")
        caller = dict(context.invocation_metadata()).get("authorization", "-")
        context.set_trailing_metadata((("x-port", str(self.port)), ("x-user", caller), ("x-proof-bin", bytes([0, 255, 10]))))

    def find(self, request, context):
        self.begin(context)
        return request

    def list(self, request, context):
        self.begin(context)
        for number in range(1, 51):
            yield request * number

    def total(self, requests, context):
        self.begin(context)
        return str(sum(len(request) for request in requests)).encode()

    def talk(self, requests, context):
        self.begin(context)
        for request in requests:
            yield request[::-1]

    def fails(self, request, context):
        self.begin(context)
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "nicht so: 100 %")

    def left(self, request, context):
        self.begin(context)
        return str(context.time_remaining()).encode()

    def never(self, request, context):
        self.begin(context)
        self.end_of(context).wait()
        return b""

    def watch(self, request, context):
        self.begin(context)
        ended = self.end_of(context)
        while not ended.wait(0.01):
            yield request or str(self.port).encode()

    def end_of(self, context):
        """Set when the call ends; one without a deadline ends because its client has given it up."""
        # Without a deadline grpcio says an age.
        ended, is_bounded = threading.Event(), context.time_remaining() < 1e9

        def end():
            ended.set()
            if not is_bounded:
                given_up()

        if not context.add_callback(end):
            end()
        return ended


def start(port):
    shop, servicer = Shop(), health.HealthServicer()
    # Without SO_REUSEPORT a port that another process serves is refused, instead of being shared with it.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=16), handlers=[shop], options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    servicer.set("shop.Cart", health_pb2.HealthCheckResponse.SERVING)
    try:
        shop.port = server.add_insecure_port(f"127.0.0.1:{port}")
    except RuntimeError:
        shop.port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, shop, servicer


def obey(servers, what, number, *more):
    global cancelled
    _, shop, servicer = servers[number] if what != "cancelled" else servers[0]
    if what == "health":
        servicer.set("shop.Cart", getattr(health_pb2.HealthCheckResponse, more[0]))
    elif what == "refuse":
        with changed:
            shop.refused = int(more[0])
    elif what == "calls":
        return str(shop.calls)
    elif what == "cancelled":
        with changed:
            if not changed.wait_for(lambda: cancelled >= number, 10):
                return f"only {cancelled}"
            cancelled -= number
    return "done"


def main():
    servers = [start(port) for port in sys.argv[1:]]
    print(*(shop.port for _, shop, _ in servers), flush=True)
    for line in sys.stdin:
        what, number, *more = line.split()
        print(obey(servers, what, int(number), *more), flush=True)
    for server, _, _ in servers:
        server.stop(0)


main()
