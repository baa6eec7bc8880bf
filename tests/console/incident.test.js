// The way of an incident: a failed event, why, replay, delivered. By mouse, by keyboard alone, and without JavaScript.

import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { open, tab } from "./lib/browser.js";
import { behave, eventually, get, hasStatus, postOrder, unique } from "./lib/grapnel.js";

// Returns the id and the subject of an event that failed, whose receiver is repaired.
async function failedEvent() {
  const subject = unique("incident");
  await behave("warehouse", { status: 503, body: "<b>no stock</b>" });
  const event = await postOrder({ id: subject });
  await hasStatus(event, "failed");
  await behave("warehouse", { status: 200 });
  return { event, subject };
}

async function expectDelivered(page, event) {
  await page.waitForURL(`**/console/events/${event}`);
  await hasStatus(event, "processed");
}

describe("failed event, why, replay, delivered", () => {
  for (const javaScript of [true, false]) {
    test(javaScript ? "by mouse" : "without JavaScript", async (t) => {
      const { event, subject } = await failedEvent();
      const page = await tab(t, { javaScript });
      await open(page, "/");
      await page.getByRole("link", { name: "Events", exact: true }).click();
      await page.getByRole("link", { name: "Failed", exact: true }).click();
      const row = page.getByRole("row").filter({ hasText: subject });
      await row.getByRole("link").first().click();
      // Why: in the first lines, and in the receiver's own words when asked for.
      await page.getByText("503").first().waitFor();
      await page.getByRole("button", { name: "Show payload" }).click();
      await page.getByText("<b>no stock</b>").first().waitFor();
      assert.equal(await page.locator("pre b").count(), 0);
      const shown = (await get(`audit-entries?entityId=${event}&action=payload.shown`)).length;
      assert.equal(shown, 1);
      await page.getByLabel("Reason").fill("the warehouse is back");
      await page.getByRole("button", { name: "Replay", exact: true }).click();
      await expectDelivered(page, event);
      await eventually("the page says so", async () => {
        // Without JavaScript a page is loaded again by hand.
        if (!javaScript) await page.reload();
        return (await page.locator("#live .state").first().innerText()) === "processed";
      });
    });
  }

  test("by keyboard alone", async (t) => {
    const { event, subject } = await failedEvent();
    const page = await tab(t);
    await open(page, `/events?status=failed&subject=${subject}`);
    const focused = () => page.evaluate(() => document.activeElement?.innerText || document.activeElement?.name || "");
    // Tabs until something has the focus.
    const tabTo = async (what) => {
      for (let presses = 0; presses < 120; presses += 1) {
        await page.keyboard.press("Tab");
        if (what.test(await focused())) return;
      }
      assert.fail(`no way to ${what}`);
    };
    await tabTo(/^order\.created$/);
    await page.keyboard.press("Enter");
    await page.waitForURL(`**/events/${event}`);
    await tabTo(/^reason$/);
    await page.keyboard.type("by keyboard");
    await tabTo(/^Replay$/);
    await page.keyboard.press("Enter");
    await expectDelivered(page, event);
  });
});

test("the first press of Tab leads past the navigation", async (t) => {
  const page = await tab(t);
  await open(page, "/events");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
});

test("shortcut keys can be turned off", async (t) => {
  const page = await tab(t);
  await open(page, "/events");
  await page.keyboard.press("/");
  assert.equal(await page.evaluate(() => document.activeElement.name), "q");
  await page.getByLabel("Shortcut keys").uncheck();
  await page.reload();
  await page.keyboard.press("/");
  assert.notEqual(await page.evaluate(() => document.activeElement.name), "q");
});

test("chosen events are replayed together", async (t) => {
  const subject = unique("chosen");
  await behave("warehouse", { status: 500 });
  const events = await Promise.all(["a", "b", "c"].map((suffix) => postOrder({ id: `${subject}-${suffix}` })));
  await Promise.all(events.map((event) => hasStatus(event, "failed")));
  await behave("warehouse", { status: 200 });
  const page = await tab(t);
  await open(page, `/events?subject=${subject}`);
  await page.getByRole("checkbox", { name: "Choose all" }).check();
  await page.getByText("Replay the chosen events").click();
  await page.getByLabel("Reason").fill("all of them again");
  await page.getByRole("button", { name: "Replay chosen" }).click();
  await page.getByRole("heading", { name: /3 events/ }).waitFor();
  await Promise.all(events.map((event) => hasStatus(event, "processed")));
});

test("an event is erased after a question", async (t) => {
  const event = await postOrder({ data: { secret: "forget me" } });
  await hasStatus(event, "processed");
  const page = await tab(t);
  await open(page, `/events/${event}`);
  await page.getByRole("link", { name: /Erase/ }).click();
  await page.getByRole("link", { name: "Keep it" }).click();
  assert.equal((await get(`events/${event}`)).event.erasedAt, undefined);
  await page.getByRole("link", { name: /Erase/ }).click();
  await page.getByRole("button", { name: "Erase" }).click();
  await page.getByText("The content was erased").waitFor();
  assert.ok((await get(`events/${event}`)).event.erasedAt);
  assert.equal(await page.getByRole("button", { name: "Show payload" }).count(), 0);
});
