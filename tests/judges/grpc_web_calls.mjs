// Calls of gRPC-Web through a proxy at HOST:PORT, by Google's grpc-web (over XMLHttpRequest, binary and text) and by
// protobuf-ts (over fetch, binary and text). Messages are bytes. Prints a line for each check.
import assert from "node:assert";
import { createRequire } from "node:module";
import { GrpcWebFetchTransport } from "@protobuf-ts/grpcweb-transport";
import { ServiceType } from "@protobuf-ts/runtime-rpc";

const require = createRequire(import.meta.url);
globalThis.XMLHttpRequest = require("xhr2");
const google = require("grpc-web");
const base = `http://${process.argv[2]}`;

const bytes = (text) => new TextEncoder().encode(text);
const text = (array) => new TextDecoder().decode(array);
const describe = (name, kind) =>
  new google.MethodDescriptor(`/web.Echo/${name}`, kind, Uint8Array, Uint8Array, bytes, text);

for (const format of ["binary", "text"]) {
  const client = new google.GrpcWebClientBase({ format });
  const unary = (name, metadata = {}) =>
    client.unaryCall(`${base}/web.Echo/${name}`, "hello", metadata, describe(name, google.MethodType.UNARY));
  assert.equal(await unary("Say"), "hello");
  console.log(`grpc-web ${format}: unary`);
  await assert.rejects(unary("Fails"), (error) => error.code === 9 && error.message.includes("not like this"));
  await assert.rejects(unary("Never", { deadline: String(Date.now() + 200) }), (error) => error.code === 4);
  console.log(`grpc-web ${format}: errors and deadlines`);
  // Its binary format cannot stream: XMLHttpRequest shows binary bodies at their end only.
  if (format === "text") {
    const got = [];
    await new Promise((resolve, reject) => {
      const stream = client.serverStreaming(
        `${base}/web.Echo/Many`, "x", {}, describe("Many", google.MethodType.SERVER_STREAMING));
      stream.on("data", (message) => got.push(message));
      stream.on("error", reject);
      stream.on("end", resolve);
    });
    assert.deepEqual(got, ["0", "1", "2"]);
    console.log(`grpc-web ${format}: server streaming`);
  }
}

const raw = {
  toBinary: (message) => message,
  fromBinary: (data) => data,
  create: () => new Uint8Array(),
};
const service = new ServiceType("web.Echo", [
  { name: "Say", I: raw, O: raw },
  { name: "Fails", I: raw, O: raw },
  { name: "Many", I: raw, O: raw, serverStreaming: true },
]);
const [say, fails, many] = service.methods;
for (const format of ["binary", "text"]) {
  const transport = new GrpcWebFetchTransport({ baseUrl: base, format });
  const options = transport.mergeOptions({});
  const call = await transport.unary(say, bytes("hello"), options);
  assert.equal(text(call.response), "hello");
  assert.equal(call.trailers["x-end"], "yes");
  await assert.rejects(transport.unary(fails, bytes("x"), options).then((done) => done), (error) => error.code === "FAILED_PRECONDITION");
  console.log(`protobuf-ts ${format}: unary, trailers, errors`);
  const got = [];
  for await (const message of transport.serverStreaming(many, bytes("x"), options).responses) got.push(text(message));
  assert.deepEqual(got, ["0", "1", "2"]);
  console.log(`protobuf-ts ${format}: server streaming`);
}
console.log("done");
