// The Grapnel under test, from outside: providers post webhooks to it, and the management API tells what became of them.

import assert from "node:assert/strict";
import crypto from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";

const { API, MANAGEMENT_API_KEY, RECEIVER } = process.env;
assert.ok(API && MANAGEMENT_API_KEY && RECEIVER, "run these tests with scripts/console");

const hmac = (secret, body) => crypto.createHmac("sha256", secret).update(body).digest("hex");

let count = 0;
// An id that no other test uses.
export const unique = (prefix) => `${prefix}-${process.pid}-${Date.now().toString(36)}-${(count += 1)}`;

async function post(route, headers, body) {
  const response = await fetch(`${API}/webhooks/${route}`, { method: "POST", headers, body });
  const text = await response.text();
  return { status: response.status, text, data: response.ok && text.startsWith("{") ? JSON.parse(text).data : undefined };
}

async function accepted(answer) {
  assert.ok([200, 202].includes(answer.status), `${answer.status}: ${answer.text}`);
  return answer.data?.eventId;
}

// Posts an order of the shop, and returns the id of its event. `data` is its payload.
export async function postOrder({ id = unique("order"), type = "order.created", data = {} } = {}) {
  const occurredAt = new Date().toISOString();
  const body = JSON.stringify({ eventId: id, eventType: type, occurredAt, data: { id, total: 50, ...data } });
  return accepted(
    await post("orders", { "content-type": "application/json", "x-acme-signature": hmac("orders-test-secret", body) }, body),
  );
}

// Posts an order whose signature is wrong.
export async function postForgedOrder() {
  const answer = await post("orders", { "content-type": "application/json", "x-acme-signature": "00ff" }, "{}");
  assert.equal(answer.status, 401, answer.text);
}

export async function postAsset({ id = unique("asset"), type = "asset.moved", resource = {} } = {}) {
  const body = JSON.stringify({ id, type, timestamp: new Date().toISOString(), resource: { id, ...resource } });
  return accepted(await post("assets", { "content-type": "application/json", "x-globex-token": "assets-test-token" }, body));
}

// Posts one request with several messages, and returns the id of the event of the first.
export async function postMessages(texts) {
  const messages = texts.map((text) => ({
    from: "41790000000",
    id: unique("wamid"),
    timestamp: String(Math.floor(Date.now() / 1000)),
    text: { body: text },
  }));
  const entry = [{ id: "1", changes: [{ field: "messages", value: { messages } }] }];
  const body = JSON.stringify({ object: "whatsapp_business_account", entry });
  const signature = `sha256=${hmac("messages-test-secret", body)}`;
  await accepted(await post("messages", { "content-type": "application/json", "x-hub-signature-256": signature }, body));
  const list = await get(`events?integration=support/messages&externalEventId=${messages[0].id}`);
  return list[0].id;
}

// Posts anything to the route that takes everything.
export async function postHostile({ headers = {}, body }) {
  const id = unique("hostile");
  return accepted(await post("hostile", { "x-token": "hostile-test-token", "x-id": id, ...headers }, body));
}

// Reads from the management API, and returns `data`.
export async function get(path) {
  const response = await fetch(`${API}/${path}`, { headers: { "x-internal-api-key": MANAGEMENT_API_KEY } });
  const text = await response.text();
  assert.ok(response.ok, `${path}: ${response.status} ${text}`);
  return JSON.parse(text).data;
}

export async function erase(event) {
  const headers = { "x-internal-api-key": MANAGEMENT_API_KEY };
  const response = await fetch(`${API}/events/${event}`, { method: "DELETE", headers });
  assert.ok(response.ok, await response.text());
}

export async function behave(destination, behaviour) {
  const response = await fetch(`${RECEIVER}/behaviour/${destination}`, { method: "PUT", body: JSON.stringify(behaviour) });
  assert.equal(response.status, 204);
}

// Waits until a check returns something, and returns that.
export async function eventually(what, check, seconds = 90) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const found = await check();
    if (found) return found;
    assert.ok(Date.now() < deadline, `not within ${seconds} s: ${what}`);
    await sleep(50);
  }
}

export const hasStatus = (event, status) =>
  eventually(`${event} is ${status}`, async () => (await get(`events/${event}`)).event.status === status);
