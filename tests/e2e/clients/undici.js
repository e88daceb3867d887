// undici: one connection up to HEAD, after which it opens another, then one that is left before its
// response has ended.
const assert = require("node:assert");
const { Readable } = require("node:stream");
const { Client } = require("undici");

const origin = `http://${process.argv[2]}`;

async function exchange(client, options) {
  const { statusCode, headers, body } = await client.request(options);
  assert.strictEqual(statusCode, 200);
  return { headers, body: Buffer.from(await body.arrayBuffer()) };
}

async function keepsAlive() {
  const client = new Client(origin, { pipelining: 4 });
  for (let size = 0; size < 20; size++) {
    const { body } = await exchange(client, { method: "GET", path: `/bytes/${size * 1000}` });
    assert.strictEqual(body.length, size * 1000);
  }
  const lengths = Array.from({ length: 40 }, (_, n) => n * 500);
  const pipelined = lengths.map((n) => exchange(client, { method: "GET", path: `/bytes/${n}` }));
  assert.deepStrictEqual((await Promise.all(pipelined)).map(({ body }) => body.length), lengths);

  const pieces = Array.from({ length: 100 }, (_, n) => Buffer.alloc(3000, n));
  for (const path of ["/", "/?chunked"]) {
    const body = Readable.from(pieces);
    const answer = await exchange(client, { method: "POST", path, body });
    assert.ok(answer.body.equals(Buffer.concat(pieces)));
  }
  const head = await exchange(client, { method: "HEAD", path: "/bytes/5" });
  assert.strictEqual(head.headers["content-length"], "5");
  const last = await exchange(client, { method: "PUT", path: "/", body: "last" });
  assert.strictEqual(last.body.toString(), "last");
  await client.close();
}

async function leavesEarly() {
  const client = new Client(origin);
  const { body } = await client.request({ method: "GET", path: "/bytes/10000000" });
  body.on("error", () => {});
  for await (const piece of body) {
    assert.ok(piece.length > 0);
    break;
  }
  await client.destroy();
}

keepsAlive().then(leavesEarly);
