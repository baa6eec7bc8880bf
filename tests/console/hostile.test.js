// What strangers send and answer is only text, on every page on which it appears.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { CONSOLE, expectNoOverflow, keepPicture, open, tab } from "./lib/browser.js";
import { behave, get, hasStatus, postHostile, postOrder, unique } from "./lib/grapnel.js";

const MARKUP = `"><img src=x onerror=alert(1)><script>alert(1)</script><a href=javascript:alert(1)>here</a>&lt;{{7*7}}'`;
const TURNED = "invoice\u202egpj.exe\u2066\u200b";
const LONG = "W".repeat(5 * 1024 * 1024);

const bytes = (text) => Buffer.from(text, "utf8").toString("latin1");

// By name: how the event is sent.
const events = {
  markup: () =>
    postHostile({
      headers: {
        "content-type": "application/json",
        "x-type": MARKUP,
        "x-subject": MARKUP,
        "x-markup": MARKUP,
        "x-'onload&`alert`|~": MARKUP,
      },
      body: JSON.stringify({ [MARKUP]: MARKUP, list: [MARKUP], __proto__: { a: MARKUP }, "<style>*{display:none}</style>": 1 }),
    }),
  turned: () =>
    postHostile({
      headers: { "content-type": "application/json", "x-type": bytes(TURNED), "x-subject": bytes(TURNED) },
      body: JSON.stringify({ name: TURNED, [TURNED]: "\u0000\u001b[31m\u0085" }),
    }),
  long: () =>
    postHostile({
      headers: { "content-type": "application/json", "x-type": "long", "x-subject": "W".repeat(255) },
      body: JSON.stringify({ text: LONG, ["K".repeat(100_000)]: 1, list: Array.from({ length: 20_000 }, (_, i) => i) }),
    }),
  deep: () =>
    postHostile({ headers: { "content-type": "application/json", "x-type": "deep" }, body: "[".repeat(100) + "]".repeat(100) }),
  invalid: () =>
    postHostile({
      headers: { "content-type": "application/octet-stream", "x-type": "invalid" },
      body: Buffer.concat([Buffer.from([0xff, 0xfe, 0x00, 0xc3, 0x28]), Buffer.from(MARKUP)]),
    }),
  form: () =>
    postHostile({
      headers: { "content-type": "application/x-www-form-urlencoded", "x-type": "form" },
      body: `a=%FF%FE&${encodeURIComponent(MARKUP)}=${encodeURIComponent(MARKUP)}`,
    }),
};

const ids = {};
before(async () => {
  await behave("mirror", { status: 500, body: `${MARKUP}${TURNED}${"X".repeat(100_000)}`, headers: { "content-type": "text/html" } });
  for (const [name, send] of Object.entries(events)) ids[name] = await send();
  await Promise.all(Object.values(ids).map((id) => hasStatus(id, "failed")));
});

// Nothing of what was sent became a part of the page.
async function expectOnlyText(page, what) {
  const found = await page.evaluate(() => ({
    images: document.images.length,
    scripts: [...document.scripts].map((script) => script.getAttribute("src") ?? "inline"),
    handlers: [...document.querySelectorAll("*")].filter((element) =>
      [...element.attributes].some(({ name }) => name.startsWith("on") || name === "style"),
    ).length,
    strange: [...document.querySelectorAll("a[href], form[action], iframe, object, embed, base, style")]
      .filter((element) => !new URL(element.getAttribute("href") ?? element.getAttribute("action") ?? "x:", location.href).href.startsWith(`${location.origin}/console/`))
      .filter((element) => !(element.getAttribute("href") ?? "").startsWith("#"))
      .map((element) => element.outerHTML.slice(0, 200)),
    marks: /[\u202a-\u202e\u2066-\u2069\u200b\u0000-\u0008\u001b]/.test(document.body.innerText),
  }));
  assert.equal(found.images, 0, what);
  assert.equal(found.handlers, 0, what);
  assert.deepEqual(found.strange, [], what);
  assert.ok(found.scripts.every((source) => source.startsWith("/console/assets/")), `${what}: ${found.scripts}`);
  assert.equal(found.marks, false, `${what}: a mark of direction or a control is in the text`);
}

describe("an event", () => {
  for (const name of Object.keys(events)) {
    test(name, async (t) => {
      const page = await tab(t, { width: 360 });
      await open(page, `/events/${ids[name]}`);
      await expectOnlyText(page, name);
      await expectNoOverflow(page, name);
      await page.getByRole("button", { name: "Show payload" }).click();
      await page.getByRole("button", { name: "Find" }).waitFor();
      await expectOnlyText(page, `${name} with its payload`);
      await expectNoOverflow(page, `${name} with its payload`);
      const size = (await page.content()).length;
      assert.ok(size < 2_000_000, `${name}: a page of ${size} characters`);
      if (name === "long") await keepPicture(page, "hostile-long-360");
      await page.getByLabel("Find in the payload").fill(MARKUP);
      await page.getByRole("button", { name: "Find" }).click();
      await page.getByRole("button", { name: "Find" }).waitFor();
      await expectOnlyText(page, `${name}, searched`);
    });
  }
});

for (const path of ["/events?integration=zoo/hostile", "/deliveries?integration=zoo/hostile", "/audit?integration=zoo/hostile", "/rejections?route=hostile", "/"]) {
  test(`the list ${path}`, async (t) => {
    const page = await tab(t, { width: 360 });
    await open(page, path);
    await expectOnlyText(page, path);
    await expectNoOverflow(page, path);
  });
}

test("an Integration", async (t) => {
  const { id } = (await get("integrations?pageSize=100")).find((integration) => integration.name === "hostile");
  const page = await tab(t, { width: 360 });
  await open(page, `/integrations/${id}`);
  await expectOnlyText(page, "the Integration");
  await expectNoOverflow(page, "the Integration");
});

test("what is in a query", async (t) => {
  const page = await tab(t, { width: 360 });
  const text = encodeURIComponent(`${MARKUP}${TURNED}`);
  for (const path of [
    `/events?subject=${text}&status=${text}`,
    `/events?eventType=${text}&integration=${text}`,
    `/deliveries?errorContains=${text}`,
    `/audit?actor=${text}`,
    `/tools/filter?expression=${text}&integration=${text}`,
    `/tools/verify?integration=${text}`,
    `/tools/test-event?integration=${text}`,
  ]) {
    await open(page, path);
    await expectOnlyText(page, path);
    await expectNoOverflow(page, path);
  }
  for (const path of [`/rejections?route=${text}`, `/${text}`, `/events/${text}`]) {
    const response = await page.goto(`${CONSOLE}${path}`);
    assert.ok([400, 404].includes(response.status()), path);
    await expectOnlyText(page, path);
  }
  // The browser itself reports the statuses.
  page.complaints.splice(0, page.complaints.length, ...page.complaints.filter((text) => !/status of 40[04]/.test(text)));
});

test("the answers of the API are no pages", async () => {
  const response = await fetch(`${CONSOLE}/events/${ids.markup}`);
  assert.equal(response.headers.get("x-content-type-options"), "nosniff");
  assert.match(response.headers.get("content-security-policy"), /default-src 'none'/);
  assert.match(response.headers.get("cache-control"), /no-store/);
  assert.match(response.headers.get("referrer-policy"), /^(no-referrer|same-origin)$/);
});

test("an order with markup in its subject", async (t) => {
  const subject = `${unique("s")}<b>bold</b>`;
  const event = await postOrder({ id: subject });
  const page = await tab(t);
  await open(page, `/events?externalEventId=${encodeURIComponent(subject)}`);
  assert.equal(await page.locator(`#e-${event} bdi b`).count(), 0);
  assert.match(await page.locator(`#e-${event}`).innerText(), /<b>bold<\/b>/);
});
