// An API server that knows two users and answers the only two questions that Grapnel asks: whose a token is, and whether its owner has a right.
//
// node api_server.js PORT

import http from "node:http";

const VIEW = ["get", "list"];
// By token: the user, the namespace, and the verbs on `integrations` and its parts.
const users = {
  "token-of-a-viewer": {
    name: "vera",
    namespace: "shop",
    verbs: { "": VIEW, events: VIEW, deliveries: VIEW, audit: VIEW, replays: VIEW },
  },
  "token-of-an-editor": {
    name: "edith",
    namespace: "shop",
    verbs: { "": VIEW, events: VIEW, deliveries: VIEW, audit: VIEW, replays: [...VIEW, "create", "update"], payloads: ["get"] },
  },
};

function review(path, { spec }) {
  if (path.endsWith("/tokenreviews")) {
    const user = users[spec.token];
    if (!user) return { authenticated: false };
    return { authenticated: true, user: { username: user.name, uid: user.name, groups: ["system:authenticated"] }, audiences: spec.audiences ?? [] };
  }
  const { namespace = "", resource, subresource = "", verb } = spec.resourceAttributes;
  const user = Object.values(users).find(({ name }) => name === spec.user);
  const allowed = resource === "integrations" && namespace === user?.namespace && (user.verbs[subresource] ?? []).includes(verb);
  return { allowed: Boolean(allowed) };
}

const server = http.createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => {
    const isReview = request.method === "POST" && /\/(tokenreviews|subjectaccessreviews)$/.test(request.url.split("?")[0]);
    response.writeHead(isReview ? 201 : 404, { "content-type": "application/json" });
    if (!isReview) return response.end("{}");
    const asked = JSON.parse(Buffer.concat(chunks).toString());
    response.end(JSON.stringify({ ...asked, status: review(request.url.split("?")[0], asked) }));
  });
});

server.listen(Number(process.argv[2]), "127.0.0.1");
