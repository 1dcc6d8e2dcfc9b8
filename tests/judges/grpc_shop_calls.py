"""Calls of configs/grpc.toml by grpcio, to HOST:PORT. `kinds`: all kinds of calls, with metadata, deadlines and cancellation,
on every route; prints what it checked. `finds COUNT`: that many unary calls one after the other; prints the status of each
and the port of the server that answered."""

import queue
import sys

import grpc

SAME = lambda data: data


def expect(what, condition):
    if not condition:
        raise SystemExit("failed: " + what)
    print("ok:", what)


def failure(what, code, call):
    try:
        call()
    except grpc.RpcError as error:
        expect(f"{what} is {code.name}", error.code() == code)
        return error
    raise SystemExit("failed: " + what + " succeeds")


def kinds(method):
    large = bytes(range(256)) * 4096
    unary, total = method("unary_unary"), method("stream_unary")
    for path in ("/shop.Catalog/Find", "/shop.Cart/Find"):
        answer, info = unary(path).with_call(b"a", metadata=(("authorization", "me"),), timeout=10)
        trailers = dict(info.trailing_metadata())
        expect(f"{path}: unary, with metadata both ways", answer == b"a" and trailers["x-user"] == "me" and trailers["x-proof-bin"] == bytes([0, 255, 10]))
        expect(f"{path}: a megabyte both ways", unary(path)(large, timeout=10) == large)
    listed = list(method("unary_stream")("/shop.Catalog/List")(b"n", timeout=10))
    expect("server streaming", listed == [b"n" * number for number in range(1, 51)])
    expect("client streaming", total("/shop.Cart/Total")(iter([large] * 8), timeout=10) == b"8388608")
    said, questions = [], queue.Queue()
    talk = method("stream_stream")("/shop.Cart/Talk")(iter(questions.get, None), timeout=10)
    for text in (b"ab", b"cd", b""):
        # The next one goes out only when the last was answered: nothing waits for the end.
        questions.put(text)
        said.append(next(talk))
    questions.put(None)
    expect("bidirectional streaming ends", list(talk) == [] and said == [b"ba", b"dc", b""])
    error = failure("a failure of the service", grpc.StatusCode.FAILED_PRECONDITION, lambda: unary("/shop.Cart/Fails")(b"", timeout=10))
    expect("its message is whole", error.details() == "nicht so: 100 %")
    left = float(unary("/shop.Cart/Left")(b"", timeout=60))
    # grpcio itself rounds what it says up, by some percent.
    expect("the deadline is passed on", 50 < left < 62)
    failure("a deadline that passes", grpc.StatusCode.DEADLINE_EXCEEDED, lambda: unary("/shop.Cart/Never")(b"", timeout=0.3))
    watch, other = (method("unary_stream")(path)(b"") for path in ("/shop.Cart/Watch", "/shop.Catalog/Watch"))
    ticks = [next(watch) for _ in range(20)]
    expect("Watch has a cluster of its own", set(ticks) == {sys.argv[3].encode()})
    expect("others have not", next(other) != sys.argv[3].encode())
    for call in (watch, other):
        call.cancel()
    failure("a cancelled stream", grpc.StatusCode.CANCELLED, lambda: next(watch))
    failure("a service without a route", grpc.StatusCode.UNIMPLEMENTED, lambda: unary("/shop.Stock/Count")(b"", timeout=10))
    failure("a service whose name only begins alike", grpc.StatusCode.UNIMPLEMENTED, lambda: unary("/shop.Cartography/Map")(b"", timeout=10))


def finds(method, count):
    find = method("unary_unary")("/shop.Cart/Find")
    for _ in range(count):
        try:
            _, info = find.with_call(b"x", timeout=10)
            print("OK", dict(info.trailing_metadata())["x-port"])
        except grpc.RpcError as error:
            print(error.code().name, dict(error.trailing_metadata() or ()).get("x-port", "-"))


def main():
    # What is tried again shall be the proxy's doing alone.
    channel = grpc.insecure_channel(sys.argv[1], options=[("grpc.enable_retries", 0)])
    method = lambda kind: lambda path: getattr(channel, kind)(path, SAME, SAME)
    kinds(method) if sys.argv[2] == "kinds" else finds(method, int(sys.argv[3]))


main()
