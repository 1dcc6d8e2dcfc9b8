// A page's script (bundled by esbuild): gRPC-Web to another origin, by Google's grpc-web (XMLHttpRequest, binary and text) and
// by @connectrpc/connect-web (fetch). The page's query names the URLs to call (`to`, repeated), or one that must not answer
// (`denied`). What it found goes to /result, a line for each check.
import { create, createFileRegistry } from "@bufbuild/protobuf";
import { FieldDescriptorProto_Label as Label, FieldDescriptorProto_Type as Type, FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import { Code, createClient } from "@connectrpc/connect";
import { createGrpcWebTransport } from "@connectrpc/connect-web";
import google from "grpc-web";

const found = [];
const check = (what, condition) => found.push(`${condition ? "ok" : "NOT"}: ${what}`);
const failed = async (call) => { try { await call; } catch (error) { return error; } };

const text = { name: "Text", field: [{ name: "part", number: 1, type: Type.STRING, label: Label.REPEATED }] };
const method = (name, more) => ({ name, inputType: ".shop.Text", outputType: ".shop.Text", ...more });
const streams = { serverStreaming: true };
const methods = [method("Find"), method("List", streams), method("Watch", streams), method("Fails"), method("Never")];
const file = create(FileDescriptorProtoSchema, {
  name: "shop.proto", package: "shop", syntax: "proto3", messageType: [text], service: [{ name: "Catalog", method: methods }],
});
const Catalog = createFileRegistry(file, () => undefined).getService("shop.Catalog");

async function connect(base, how) {
  const client = createClient(Catalog, createGrpcWebTransport({ baseUrl: base }));
  let trailers;
  const options = { headers: { authorization: "me" }, onTrailer: (got) => { trailers = got; } };
  const answer = await client.find({ part: ["a", "b"] }, options);
  check(`connect-web ${how}: unary, metadata and trailers`, answer.part.join() === "a,b" && trailers.get("x-user") === "me");
  const large = "x".repeat(200_000);
  check(`connect-web ${how}: 200 kB both ways`, (await client.find({ part: [large] })).part[0] === large);
  let count = 0;
  for await (const message of client.list({ part: ["n"] })) count += message.part.length === count + 1;
  check(`connect-web ${how}: server streaming`, count === 50);
  let ticks = 0;
  const enough = new AbortController();
  const watch = failed((async () => {
    for await (const message of client.watch({ part: ["tick"] }, { signal: enough.signal })) {
      if (message.part[0] === "tick" && ++ticks === 3) enough.abort();
    }
  })());
  check(`connect-web ${how}: a stream without an end, until it is enough`, (await watch)?.code === Code.Canceled && ticks >= 3);
  const error = await failed(client.fails({}));
  check(`connect-web ${how}: an error and its message`, error?.code === Code.FailedPrecondition && error.rawMessage === "nicht so: 100 %");
  check(`connect-web ${how}: and its metadata`, error.metadata.get("x-user") === "-");
  check(`connect-web ${how}: a deadline`, (await failed(client.never({}, { timeoutMs: 300 })))?.code === Code.DeadlineExceeded);
  const leaving = new AbortController();
  const never = failed(client.never({}, { signal: leaving.signal }));
  leaving.abort();
  check(`connect-web ${how}: cancelled`, (await never)?.code === Code.Canceled);
}

const bytes = (string) => new TextEncoder().encode(string);
const string = (array) => new TextDecoder().decode(array);
const describe = (name, kind) => new google.MethodDescriptor(`/shop.Catalog/${name}`, kind, Uint8Array, Uint8Array, bytes, string);

async function byGoogle(base, how, format) {
  const client = new google.GrpcWebClientBase({ format });
  const say = `grpc-web ${format} ${how}`;
  const unary = (name, metadata = {}) =>
    client.unaryCall(`${base}/shop.Catalog/${name}`, "hello", metadata, describe(name, google.MethodType.UNARY));
  check(`${say}: unary`, (await unary("Find", { authorization: "me" })) === "hello");
  const error = await failed(unary("Fails"));
  check(`${say}: an error and its message`, error?.code === 9 && error.message === "nicht so: 100 %");
  check(`${say}: and its metadata`, error?.metadata["x-user"] === "-");
  check(`${say}: a deadline`, (await failed(unary("Never", { deadline: String(Date.now() + 300) })))?.code === 4);
  // Its binary format cannot stream: XMLHttpRequest shows binary bodies at their end only.
  if (format === "binary") return;
  const got = [];
  const status = await new Promise((resolve, reject) => {
    const stream = client.serverStreaming(`${base}/shop.Catalog/List`, "n", {}, describe("List", google.MethodType.SERVER_STREAMING));
    stream.on("data", (message) => got.push(message));
    stream.on("error", reject);
    stream.on("status", (status) => status.metadata && resolve(status));
  });
  check(`${say}: server streaming`, got.length === 50 && got.every((message, at) => message === "n".repeat(at + 1)) && status.code === 0);
}

/// What a script may read of an answer: nothing that CORS does not expose.
async function exposed(base, how) {
  const ask = (path) => fetch(`${base}${path}`, {
    method: "POST", headers: { "content-type": "application/grpc-web+proto", "x-grpc-web": "1", "x-user-agent": "page" }, body: new Uint8Array(5),
  });
  const missing = await ask("/shop.Catalog/Missing");
  check(`fetch ${how}: the status of an answer without a body is exposed`, missing.headers.get("grpc-status") === "12" && missing.headers.has("grpc-message"));
  check(`fetch ${how}: and nothing else`, missing.headers.get("proxy-status") === null && missing.headers.get("via") === null);
  check(`fetch ${how}: a route without CORS is closed to scripts`, (await failed(ask("/shop.Cart/Find"))) instanceof TypeError);
}

async function main() {
  const query = new URLSearchParams(location.search);
  for (const base of query.getAll("to")) {
    const how = base.startsWith("https") ? "over HTTP/2" : "over HTTP/1.1";
    await connect(base, how);
    for (const format of ["binary", "text"]) await byGoogle(base, how, format);
    await exposed(base, how);
  }
  for (const base of query.getAll("denied")) {
    const client = createClient(Catalog, createGrpcWebTransport({ baseUrl: base }));
    check("a page of another origin is refused by the browser", (await failed(client.find({})))?.rawMessage.includes("Failed to fetch"));
  }
}

main().catch((error) => found.push(`NOT: ${error?.stack ?? error}`)).finally(() =>
  fetch("/result", { method: "POST", body: found.join("\n") + "\n" }));
