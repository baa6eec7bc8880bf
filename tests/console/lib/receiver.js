// The destinations of tests/console/integrations.yaml: a server that answers each path as the tests say.
//
// node receiver.js PORT
//
// PUT /behaviour/PATH with {"status": 503, "body": "…", "headers": {…}, "delayMs": 0} decides how POST /PATH is answered from then on; with
// "bodyBase64" the body may be any bytes. An event may choose for itself too: {"receiver": {"status": 500}} anywhere in the first level of a
// delivered payload's data. GET /received/PATH lists what arrived.

import http from "node:http";

const behaviours = new Map();
const received = new Map();
const MAX_KEPT = 1000;

function answer(response, { status = 200, body = "", bodyBase64, headers = {}, delayMs = 0 }) {
  const bytes = bodyBase64 === undefined ? Buffer.from(body) : Buffer.from(bodyBase64, "base64");
  setTimeout(() => {
    response.writeHead(status, { "content-type": "text/plain", "content-length": bytes.length, ...headers });
    response.end(bytes);
  }, delayMs);
}

function chosenByEvent(body) {
  try {
    return JSON.parse(body).data?.receiver;
  } catch {
    return undefined;
  }
}

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const body = Buffer.concat(chunks).toString();
    const [, first, second] = request.url.split("/");
    if (request.method === "PUT" && first === "behaviour") {
      behaviours.set(second, JSON.parse(body));
      return answer(response, { status: 204 });
    }
    if (request.method === "GET" && first === "received") {
      return answer(response, { body: JSON.stringify(received.get(second) ?? []), headers: { "content-type": "application/json" } });
    }
    const kept = received.get(first) ?? [];
    kept.push({ headers: request.headers, body });
    received.set(first, kept.slice(-MAX_KEPT));
    return answer(response, chosenByEvent(body) ?? behaviours.get(first) ?? {});
  });
});

server.listen(Number(process.argv[2]), "127.0.0.1");
