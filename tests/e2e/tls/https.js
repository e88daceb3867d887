// https.js PORT CA CHAIN KEY: Node's client with a certificate, on a fresh, a kept and a resumed connection.
const fs = require('node:fs');
const https = require('node:https');

const [port, ca, chain, key] = process.argv.slice(2);
const options = {
  host: '127.0.0.1', servername: 'localhost', port, path: '/bytes/5',
  ca: fs.readFileSync(ca), cert: fs.readFileSync(chain), key: fs.readFileSync(key),
};

function get(agent) {
  return new Promise((resolve, reject) => {
    https.get({ ...options, agent }, (response) => {
      const { socket } = response;
      const seen = {
        authorized: socket.authorized, protocol: socket.getProtocol(),
        resumed: socket.isSessionReused(), status: response.statusCode, length: 0,
      };
      response.on('data', (part) => { seen.length += part.length; });
      response.on('end', () => resolve({ ...seen, kept: response.req.reusedSocket }));
    }).on('error', reject);
  });
}

(async () => {
  const kept = new https.Agent({ keepAlive: true, maxSockets: 1 });
  const fresh = new https.Agent({ keepAlive: false });
  const seen = [await get(kept), await get(kept), await get(fresh), await get(fresh)];
  kept.destroy();
  console.log(seen.map((one) => [
    one.authorized, one.protocol, one.status, one.length, one.kept ? 'kept' : one.resumed ? 'resumed' : 'new',
  ].join(' ')).join('\n'));
})();
