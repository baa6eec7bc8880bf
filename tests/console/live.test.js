// What is live: it follows, it can be paused, and it keeps one's place.

import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { open, tab } from "./lib/browser.js";
import { postOrder, unique } from "./lib/grapnel.js";

const rows = (page) => page.locator("#live tbody tr");

test("new events appear, and not while it is paused", async (t) => {
  const subject = unique("live");
  await postOrder({ id: `${subject}-1` });
  const page = await tab(t);
  await open(page, `/events?subject=${subject}`);
  assert.equal(await rows(page).count(), 1);
  await postOrder({ id: `${subject}-2` });
  await rows(page).nth(1).waitFor();
  const pause = page.getByRole("button", { name: "Live" });
  await pause.click();
  await page.getByRole("button", { name: "Paused", pressed: true }).waitFor();
  await postOrder({ id: `${subject}-3` });
  // Longer than two rounds would take.
  await sleep(5_000);
  assert.equal(await rows(page).count(), 2);
  await page.getByRole("button", { name: "Paused" }).click();
  await rows(page).nth(2).waitFor();
});

test("a chosen event stays chosen, and the focus and the scroll position stay where they are", async (t) => {
  const subject = unique("place");
  const events = [];
  for (let n = 0; n < 40; n += 1) events.push(await postOrder({ id: `${subject}-${n}` }));
  const page = await tab(t, { height: 500 });
  await open(page, `/events?subject=${subject}`);
  const box = page.locator(`#e-${events[5]} input[type=checkbox]`);
  await box.check();
  const link = page.locator(`#e-${events[20]} a`).first();
  await link.focus();
  const before = await link.boundingBox();
  const asked = page.waitForRequest((request) => request.headers()["hx-request"] === "true", { timeout: 6_000 }).catch(() => undefined);
  await postOrder({ id: `${subject}-new` });
  await asked;
  await sleep(1_000);
  assert.equal(await box.isChecked(), true);
  assert.equal(await link.evaluate((element) => element === document.activeElement), true);
  const after = await link.boundingBox();
  assert.ok(Math.abs(after.y - before.y) < 60, `moved from ${before.y} to ${after.y}`);
});

test("a page that is not the first one, or an old event, does not ask again", async (t) => {
  const subject = unique("still");
  const page = await tab(t);
  for (let n = 0; n < 3; n += 1) await postOrder({ id: `${subject}-${n}` });
  await open(page, `/events?subject=${subject}&pageSize=2`);
  await page.getByRole("link", { name: "Next page" }).click();
  await page.waitForURL(/cursor=/);
  assert.equal(await rows(page).count(), 1);
  let asked = 0;
  page.on("request", () => {
    asked += 1;
  });
  await sleep(5_000);
  assert.equal(asked, 0);
});
