// A replay of what failed while a receiver was down: counted, started, watched, held.

import assert from "node:assert/strict";
import { test } from "node:test";
import { expectAccessible, expectNoOverflow, keepPicture, open, tab } from "./lib/browser.js";
import { behave, eventually, get, hasStatus, postOrder, unique } from "./lib/grapnel.js";

// Lets orders fail whose subject contains the text that is returned.
async function failedOrders(count) {
  const subject = unique("replay");
  await behave("warehouse", { status: 503 });
  const events = await Promise.all(Array.from({ length: count }, (_, n) => postOrder({ id: `${subject}-${n}` })));
  await Promise.all(events.map((event) => hasStatus(event, "failed")));
  await behave("warehouse", { status: 200 });
  return { subject, events };
}

async function count(page, subject, rate = "") {
  await page.getByLabel("Integration").fill("shop/orders");
  await page.getByLabel("Received since, UTC").fill(new Date(Date.now() - 3_600_000).toISOString().slice(0, 19));
  await page.getByLabel("In the subject").fill(subject);
  await page.getByLabel("Deliveries per second").fill(rate);
  await page.getByLabel("Reason").fill("the warehouse was down");
  await page.getByRole("button", { name: "Count" }).click();
}

for (const javaScript of [true, false]) {
  test(`what failed is counted and delivered again, ${javaScript ? "by mouse" : "without JavaScript"}`, async (t) => {
    const { subject, events } = await failedOrders(3);
    const page = await tab(t, { javaScript });
    await open(page, "/replays");
    await page.getByRole("link", { name: "New replay…" }).click();
    await count(page, subject);
    assert.match(await page.getByRole("status").innerText(), /^3 deliveries would be made again: 3 to warehouse/);
    assert.equal(await page.getByRole("region", { name: "The first deliveries" }).getByRole("link").count(), 3);
    // To count is an address.
    await page.reload();
    assert.match(await page.getByRole("status").innerText(), /^3 deliveries/);
    await page.getByRole("button", { name: "Start the replay" }).click();
    await page.waitForURL(/\/replays\/[0-9a-f-]{36}$/);
    await Promise.all(events.map((event) => hasStatus(event, "processed")));
    const id = page.url().split("/").pop();
    await eventually("it is completed", async () => (await get(`replays/${id}`)).state === "Completed");
    await eventually("the page says so", async () => {
      if (!javaScript) await page.reload();
      return (await page.locator(".state").first().innerText()) === "completed";
    });
    await keepPicture(page, `replay-${javaScript}`);
    // What looks at the page is a script itself.
    if (!javaScript) return;
    await expectAccessible(page, "a replay");
    await expectNoOverflow(page, "a replay");
  });
}

test("it can be paused, made faster, resumed and cancelled", async (t) => {
  const { subject } = await failedOrders(20);
  const page = await tab(t);
  await open(page, "/replays/new");
  await count(page, subject, "1");
  await page.getByRole("button", { name: "Start the replay" }).click();
  await page.getByRole("button", { name: "Pause" }).click();
  await page.getByRole("button", { name: "Resume" }).waitFor();
  const id = page.url().split("/").pop();
  assert.equal((await get(`replays/${id}`)).state, "Paused");
  await page.getByLabel("Deliveries per second").fill("2");
  await page.getByRole("button", { name: "Change rate" }).click();
  await page.getByText("left, at 2/s").waitFor();
  await page.getByRole("button", { name: "Resume" }).click();
  await page.getByRole("button", { name: "Pause" }).waitFor();
  await page.getByRole("button", { name: "Cancel" }).click();
  await eventually("it is cancelled", async () => (await get(`replays/${id}`)).state === "Cancelled");
  const entries = await get("audit-entries?entityType=integration&pageSize=100");
  const actions = entries.filter(({ details }) => details.replayId === id).map(({ action }) => action);
  for (const action of ["created", "paused", "resumed"]) assert.ok(actions.includes(`replay.${action}`), actions.join(" "));
});

test("pages of replays are accessible, light and dark, at three widths", async (t) => {
  for (const scheme of ["light", "dark"]) {
    const page = await tab(t, { scheme });
    for (const path of ["/replays", "/replays/requests", "/replays/new", "/replays/new?reason=because&select=All&integration=shop/orders&receivedAfter=2026-01-01T00:00:00Z"]) {
      await open(page, path);
      for (const width of [360, 768, 1440]) {
        await page.setViewportSize({ width, height: 900 });
        await expectNoOverflow(page, `${path} at ${width}`);
        await expectAccessible(page, `${path}, ${scheme}, at ${width}`);
      }
      await keepPicture(page, `${path.replace(/\W+/g, "-").slice(1, 30)}-${scheme}`);
    }
  }
});

test("what cannot be counted names the field", async (t) => {
  const page = await tab(t);
  await open(page, "/replays/new?reason=because&select=Failed&integration=shop/orders");
  assert.match(await page.getByRole("alert").innerText(), /receivedAfter/);
});
