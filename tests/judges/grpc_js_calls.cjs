// Calls of all four kinds by @grpc/grpc-js: a server on the port given first, a client to HOST:PORT given second. Metadata
// both ways, a deadline that passes, a cancellation that reaches the server. Messages are bytes.
const assert = require("node:assert");
const grpc = require("@grpc/grpc-js");

const raw = (data) => data;
const method = (name, requestStream, responseStream) => ({
  path: `/js.Echo/${name}`, requestStream, responseStream,
  requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw,
});
const definition = {
  Unary: method("Unary", false, false),
  Server: method("Server", false, true),
  Client: method("Client", true, false),
  Both: method("Both", true, true),
  Slow: method("Slow", false, false),
  Endless: method("Endless", false, true),
};
let cancelled;
const wasCancelled = new Promise((resolve) => { cancelled = resolve; });
const server = new grpc.Server();
server.addService(definition, {
  Unary: (call, done) => {
    const trailers = new grpc.Metadata();
    trailers.set("x-trailer", String(call.metadata.get("x-note")[0]));
    done(null, call.request, trailers);
  },
  Server: (call) => {
    for (let number = 0; number < 100; number++) call.write(Buffer.from(String(number)));
    call.end();
  },
  Client: (call, done) => {
    let length = 0;
    call.on("data", (data) => { length += data.length; });
    call.on("end", () => done(null, Buffer.from(String(length))));
  },
  Both: (call) => {
    call.on("data", (data) => call.write(Buffer.from(data).reverse()));
    call.on("end", () => call.end());
  },
  Slow: () => {},
  Endless: (call) => {
    const timer = setInterval(() => call.write(Buffer.from("tick")), 10);
    call.on("cancelled", () => { clearInterval(timer); cancelled(); });
  },
});

async function calls() {
  const Client = grpc.makeGenericClientConstructor(definition, "js.Echo");
  const client = new Client(process.argv[3], grpc.credentials.createInsecure());
  const metadata = new grpc.Metadata();
  metadata.set("x-note", "noted");
  await new Promise((resolve, reject) => {
    let answer;
    const call = client.Unary(Buffer.from("hello"), metadata, (error, data) => (error ? reject(error) : (answer = data)));
    call.on("status", (status) => {
      assert.equal(String(answer), "hello");
      assert.equal(status.metadata.get("x-trailer")[0], "noted");
      resolve();
    });
  });
  const got = [];
  for await (const data of client.Server(Buffer.from("x"))) got.push(Number(String(data)));
  assert.deepEqual(got, [...Array(100).keys()]);
  const total = await new Promise((resolve, reject) => {
    const call = client.Client((error, data) => (error ? reject(error) : resolve(String(data))));
    for (let number = 0; number < 50; number++) call.write(Buffer.alloc(10_000));
    call.end();
  });
  assert.equal(total, "500000");
  const both = client.Both();
  for (const text of ["abc", "xyz"]) {
    const back = new Promise((resolve) => both.once("data", resolve));
    both.write(Buffer.from(text));
    assert.equal(String(await back), text.split("").reverse().join(""));
  }
  both.end();
  const late = await new Promise((resolve) => client.Slow(Buffer.from("x"), { deadline: Date.now() + 200 }, (error) => resolve(error)));
  assert.equal(late.code, grpc.status.DEADLINE_EXCEEDED);
  const endless = client.Endless(Buffer.from("x"));
  endless.on("error", () => {});
  await new Promise((resolve) => endless.once("data", resolve));
  endless.cancel();
  await wasCancelled;
  console.log("all kinds of calls");
  process.exit(0);
}

server.bindAsync(`127.0.0.1:${process.argv[2]}`, grpc.ServerCredentials.createInsecure(), (error) => {
  if (error) throw error;
  calls().catch((error) => { console.error(error); process.exit(1); });
});
