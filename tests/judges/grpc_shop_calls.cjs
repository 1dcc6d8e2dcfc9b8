// Calls of configs/grpc.toml by @grpc/grpc-js, to HOST:PORT: all kinds, with metadata, deadlines and cancellation. The second
// argument is the port of the server that has the streams. Messages are bytes.
const assert = require("node:assert");
const grpc = require("@grpc/grpc-js");

const raw = (data) => data;
const method = (path, requestStream, responseStream) => ({
  path, requestStream, responseStream,
  requestSerialize: raw, requestDeserialize: raw, responseSerialize: raw, responseDeserialize: raw,
});
const Client = grpc.makeGenericClientConstructor({
  Find: method("/shop.Catalog/Find", false, false),
  List: method("/shop.Catalog/List", false, true),
  CartFind: method("/shop.Cart/Find", false, false),
  Total: method("/shop.Cart/Total", true, false),
  Talk: method("/shop.Cart/Talk", true, true),
  Fails: method("/shop.Cart/Fails", false, false),
  Never: method("/shop.Cart/Never", false, false),
  Watch: method("/shop.Cart/Watch", false, true),
  Unknown: method("/shop.Stock/Count", false, false),
}, "shop");
const client = new Client(process.argv[2], grpc.credentials.createInsecure(), { "grpc.enable_retries": 0 });

const unary = (name, data, metadata = new grpc.Metadata(), options = {}) =>
  new Promise((resolve, reject) => {
    let answer;
    const call = client[name](data, metadata, options, (error, got) => (error ? reject(error) : (answer = got)));
    call.on("status", (status) => status.code === 0 && resolve({ answer, trailers: status.metadata }));
  });
const soon = () => ({ deadline: Date.now() + 10_000 });
const code = (wanted) => (error) => error.code === grpc.status[wanted];

async function main() {
  for (const name of ["Find", "CartFind"]) {
    const metadata = new grpc.Metadata();
    metadata.set("authorization", "me");
    const { answer, trailers } = await unary(name, Buffer.from("a"), metadata, soon());
    assert.equal(String(answer), "a");
    assert.equal(trailers.get("x-user")[0], "me");
    assert.deepEqual([...trailers.get("x-proof-bin")[0]], [0, 255, 10]);
  }
  const listed = [];
  for await (const data of client.List(Buffer.from("n"), soon())) listed.push(String(data));
  assert.deepEqual(listed, [...Array(50).keys()].map((number) => "n".repeat(number + 1)));
  const total = await new Promise((resolve, reject) => {
    const call = client.Total(soon(), (error, data) => (error ? reject(error) : resolve(String(data))));
    for (let number = 0; number < 50; number++) call.write(Buffer.alloc(100_000));
    call.end();
  });
  assert.equal(total, "5000000");
  const talk = client.Talk(soon());
  for (const text of ["abc", "xyz"]) {
    const back = new Promise((resolve) => talk.once("data", resolve));
    talk.write(Buffer.from(text));
    assert.equal(String(await back), text.split("").reverse().join(""));
  }
  const talked = new Promise((resolve, reject) => { talk.on("status", resolve); talk.on("error", reject); });
  talk.end();
  assert.equal((await talked).code, 0);
  await assert.rejects(unary("Fails", Buffer.alloc(0), undefined, soon()), (error) =>
    code("FAILED_PRECONDITION")(error) && error.details === "nicht so: 100 %");
  await assert.rejects(unary("Never", Buffer.alloc(0), undefined, { deadline: Date.now() + 300 }), code("DEADLINE_EXCEEDED"));
  const watch = client.Watch(Buffer.alloc(0));
  const cancelled = new Promise((resolve) => watch.on("error", resolve));
  for (let number = 0; number < 20; number++) {
    assert.equal(String(await new Promise((resolve) => watch.once("data", resolve))), process.argv[3]);
  }
  watch.cancel();
  assert.equal((await cancelled).code, grpc.status.CANCELLED);
  await assert.rejects(unary("Unknown", Buffer.alloc(0), undefined, soon()), code("UNIMPLEMENTED"));
  console.log("all kinds of calls");
  process.exit(0);
}

main().catch((error) => { console.error(error); process.exit(1); });
