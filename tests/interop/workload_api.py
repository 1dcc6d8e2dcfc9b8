#!/usr/bin/env python3
"""workload_api.py SOCKET FOLDER BUNDLE: a SPIFFE Workload API that serves FOLDER/cert.pem and key.pem, and sends them anew
when they change. For trying and testing; it asks nobody who he is."""
import base64, os, re, sys, time
from concurrent import futures
import grpc

socket, folder, bundle = sys.argv[1:4]


def ders(path, label):
    text = open(path).read()
    found = re.findall(f"-----BEGIN {label}-----(.*?)-----END {label}-----", text, re.S)
    return b"".join(base64.b64decode("".join(part.split())) for part in found)


def field(number, content):
    length, size = b"", len(content)
    while size > 127:
        length, size = length + bytes([size & 127 | 128]), size >> 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


def response():
    chain, key = ders(f"{folder}/cert.pem", "CERTIFICATE"), ders(f"{folder}/key.pem", "PRIVATE KEY")
    found = re.search(rb"spiffe://[a-zA-Z0-9._/-]+", chain)
    svid = field(1, found[0]) + field(2, chain) + field(3, key) + field(4, ders(bundle, "CERTIFICATE"))
    return field(1, svid)


def fetch(_, context):
    if ("workload.spiffe.io", "true") not in [(key, value) for key, value in context.invocation_metadata()]:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the security header is missing")
    sent = None
    while context.is_active():
        stamp = os.stat(f"{folder}/cert.pem").st_mtime_ns
        if stamp != sent:
            sent = stamp
            yield response()
        time.sleep(0.1)


handler = grpc.unary_stream_rpc_method_handler(fetch, request_deserializer=bytes, response_serializer=bytes)
server = grpc.server(futures.ThreadPoolExecutor(8))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("SpiffeWorkloadAPI", {"FetchX509SVID": handler}),))
server.add_insecure_port(f"unix:{socket}")
server.start()
print("up", flush=True)
server.wait_for_termination()
