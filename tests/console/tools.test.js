// Verify, filter, test event.

import assert from "node:assert/strict";
import crypto from "node:crypto";
import { before, test } from "node:test";
import { open, tab } from "./lib/browser.js";
import { get, hasStatus, postOrder } from "./lib/grapnel.js";

const SECRET = "orders-test-secret";
const sign = (body) => crypto.createHmac("sha256", SECRET).update(body).digest("hex");

let orders;
before(async () => {
  orders = (await get("integrations?pageSize=100")).find((integration) => integration.name === "orders").id;
});

async function verify(t, request, secret, options) {
  const page = await tab(t, options);
  await open(page, `/tools/verify?integration=${orders}`);
  await page.getByLabel(/^Request/).fill(request);
  await page.getByLabel(/^Secret/).fill(secret);
  await page.getByRole("button", { name: "Verify" }).click();
  await page.getByRole("heading", { name: "Result" }).waitFor();
  return page;
}

const captured = (body, signature) =>
  `POST /api/v1/webhooks/orders HTTP/1.1\ncontent-type: application/json\nx-acme-signature: ${signature}\n\n${body}`;
const BODY = '{"eventId":"e-1","eventType":"order.created","occurredAt":"2026-01-31T10:00:00Z","data":{"id":"o-1"}}';

test("a request that verifies passes every step, and its event is shown", async (t) => {
  const page = await verify(t, captured(BODY, sign(BODY)), SECRET);
  const text = await page.locator("main").innerText();
  assert.match(text, /verified/);
  assert.match(text, /type "order.created", id "e-1"/);
  assert.ok(!/✗/.test(text));
});

test("a body of several lines verifies as it was sent", async (t) => {
  const body = BODY.replace(",", ",\n  ");
  assert.match(await (await verify(t, captured(body, sign(body)), SECRET)).locator("main").innerText(), /verified/);
});

test("a request that does not verify shows where, and never the secret or the right signature", async (t) => {
  const page = await verify(t, captured(BODY, "00ff".repeat(16)), SECRET, { javaScript: false });
  const text = await page.locator("main").innerText();
  assert.match(text, /✗ failed/);
  assert.match(text, /refused/);
  const html = await page.content();
  assert.ok(!html.includes(SECRET), "the secret is in the page");
  assert.ok(!html.includes(sign(BODY)), "the right signature is in the page");
  assert.ok(!page.url().includes(SECRET));
  assert.equal(await page.getByLabel(/^Secret/).inputValue(), "");
});

test("what is no request is a problem of the form", async (t) => {
  const page = await tab(t);
  await open(page, "/tools/verify");
  await page.getByLabel(/^Provider/).selectOption("github");
  await page.getByLabel(/^Request/).fill("nonsense");
  await page.getByLabel(/^Secret/).fill("x");
  await page.getByRole("button", { name: "Verify" }).click();
  assert.match(await page.getByRole("alert").innerText(), /request: /);
});

test("an expression is tried on the last events", async (t) => {
  const small = await postOrder({ data: { total: 1, mark: "filter" } });
  const large = await postOrder({ data: { total: 5000, mark: "filter" } });
  await hasStatus(large, "processed");
  const page = await tab(t);
  await open(page, "/tools");
  await page.getByRole("link", { name: "Try a filter" }).click();
  await page.getByLabel("Integration").selectOption(orders);
  await page.getByLabel(/^Expression/).fill("payload.total > 4999");
  await page.getByRole("button", { name: "Try it" }).click();
  const result = (id) => page.getByRole("row").filter({ has: page.locator(`a[href$="${id}"]`) });
  assert.match(await result(large).innerText(), /delivered/);
  assert.match(await result(small).innerText(), /left out/);
  // The address is the state.
  await page.reload();
  assert.match(await result(large).innerText(), /delivered/);
});

test("a wrong expression names what is wrong", async (t) => {
  const page = await tab(t);
  await open(page, `/tools/filter?integration=${orders}&expression=payload.total+%3E`);
  assert.match(await page.getByRole("alert").innerText(), /expression: does not parse at line 1/);
});

test("a test event is delivered for real, and audited", async (t) => {
  const page = await tab(t, { javaScript: false });
  await open(page, `/tools/test-event?integration=${orders}`);
  await page.getByLabel("Type").fill("order.test");
  await page.getByLabel("ledger").check();
  await page.getByLabel(/^Payload/).fill('{"total": 1}');
  await page.getByRole("button", { name: "Send" }).click();
  await page.waitForURL(/\/events\/[0-9a-f-]{36}$/);
  const event = page.url().split("/").pop();
  await hasStatus(event, "processed");
  const { deliveries } = await get(`events/${event}`);
  // The filter of the destination would have left it out.
  assert.deepEqual(deliveries.map(({ destination, status }) => [destination, status]), [["ledger", "succeeded"]]);
  assert.equal((await get(`audit-entries?entityId=${event}&action=event.test_sent`)).length, 1);
});

test("a payload that is no JSON is a problem of the form", async (t) => {
  const page = await tab(t);
  await open(page, `/tools/test-event?integration=${orders}`);
  await page.getByLabel(/^Payload/).fill("{");
  await page.getByRole("button", { name: "Send" }).click();
  assert.match(await page.getByRole("alert").innerText(), /payload: must be JSON/);
  assert.equal(await page.getByLabel(/^Payload/).inputValue(), "{");
});
