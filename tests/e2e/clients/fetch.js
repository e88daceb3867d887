// The fetch built into node, which is a later undici than the package.
const assert = require("node:assert");

const base = `http://${process.argv[2]}`;
const bytes = async (response) => Buffer.from(await response.arrayBuffer());

async function main() {
  const many = Array.from({ length: 20 }, (_, n) => fetch(`${base}/bytes/${n}`).then(bytes));
  assert.deepStrictEqual((await Promise.all(many)).map((body) => body.length), [...many.keys()]);

  const sent = Buffer.alloc(300_000, "x");
  const pieces = new ReadableStream({
    start(controller) {
      for (let at = 0; at < sent.length; at += 1000) {
        controller.enqueue(sent.subarray(at, at + 1000));
      }
      controller.close();
    },
  });
  const options = { method: "POST", body: pieces, duplex: "half" };
  assert.ok((await bytes(await fetch(`${base}/?chunked`, options))).equals(sent));
  assert.ok((await bytes(await fetch(base, { method: "PUT", body: sent }))).equals(sent));

  const head = await fetch(`${base}/bytes/5`, { method: "HEAD" });
  assert.strictEqual(head.headers.get("content-length"), "5");

  const stop = new AbortController();
  const left = await fetch(`${base}/bytes/10000000`, { signal: stop.signal });
  stop.abort();
  await assert.rejects(left.arrayBuffer());
  assert.strictEqual((await fetch(`${base}/bytes/5`)).status, 200);
}

main();
