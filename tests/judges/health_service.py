"""A server with grpcio's own health service. Arguments: certificate and key, for TLS. Prints its port; each line on
standard input is a state and a service ("NOT_SERVING web")."""

import sys
from concurrent import futures

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
servicer = health.HealthServicer()
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
servicer.set("", health_pb2.HealthCheckResponse.SERVING)
if len(sys.argv) > 2:
    pair = (open(sys.argv[2], "rb").read(), open(sys.argv[1], "rb").read())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
for line in sys.stdin:
    state, _, service = line.strip().partition(" ")
    servicer.set(service, getattr(health_pb2.HealthCheckResponse, state))
    print("set", flush=True)
server.stop(0)
