// The same pages in Debian's Firefox, where it is installed: scripts/console --firefox installs it.

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { after, before, test } from "node:test";
import { firefox } from "playwright-core";
import { CONSOLE, keepPicture } from "./lib/browser.js";
import { everyState } from "./lib/data.js";
import { behave, hasStatus, postOrder, unique } from "./lib/grapnel.js";

const PROGRAM = "/usr/bin/firefox-esr";
const skip = !existsSync(PROGRAM);

let browser;
let data;
before(async () => {
  if (skip) return;
  browser = await firefox.launch({ channel: "moz-firefox", executablePath: PROGRAM, headless: true, timeout: 90_000 });
  data = await everyState();
});
after(() => browser?.close());

async function tab(t) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 } });
  const page = await context.newPage();
  const complaints = [];
  page.on("console", (message) => {
    if (message.type() === "error") complaints.push(`${page.url()}: ${message.text()}`);
  });
  page.on("pageerror", (error) => complaints.push(`${page.url()}: ${error}`));
  page.setDefaultTimeout(20_000);
  t.after(async () => {
    await context.close();
    assert.deepEqual(complaints, []);
  });
  return page;
}

test("pages are shown", { skip }, async (t) => {
  const page = await tab(t);
  for (const path of ["/", "/events", `/events/${data.retrying}`, "/deliveries", "/rejections?route=orders", "/audit", "/tools/verify", "/replays"]) {
    const response = await page.goto(`${CONSOLE}${path}`);
    assert.equal(response.status(), 200, path);
    assert.equal(await page.locator("h1").count(), 1, path);
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.ok(overflow <= 0, `${path} is ${overflow} px too wide`);
  }
  // Firefox hides the caret for a picture with a style that the policy of the page forbids.
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, bypassCSP: true });
  t.after(() => context.close());
  const pictured = await context.newPage();
  await pictured.goto(`${CONSOLE}/events/${data.delivered}`);
  await keepPicture(pictured, "event-firefox");
});

test("a live list follows", { skip }, async (t) => {
  const page = await tab(t);
  const subject = unique("firefox");
  await page.goto(`${CONSOLE}/events?subject=${subject}`);
  await postOrder({ id: subject });
  await page.locator("#live tbody tr").first().waitFor();
});

test("a failed event is replayed", { skip }, async (t) => {
  await behave("warehouse", { status: 503 });
  const event = await postOrder();
  await hasStatus(event, "failed");
  await behave("warehouse", { status: 200 });
  const page = await tab(t);
  await page.goto(`${CONSOLE}/events/${event}`);
  await page.getByLabel("Reason").fill("in another browser");
  await page.getByRole("button", { name: "Replay", exact: true }).click();
  await hasStatus(event, "processed");
});
