// Every page: with axe, light and dark, at three widths, without anything that is wider than the window, and as a picture.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { SCHEMES, WIDTHS, expectAccessible, expectNoOverflow, keepPicture, open, tab } from "./lib/browser.js";
import { everyState } from "./lib/data.js";

let data;
before(async () => {
  data = await everyState();
});

// By name: the path, and what is done before the page is looked at.
const pages = {
  overview: () => "/",
  integration: () => `/integrations/${data.idOf("orders")}`,
  events: () => "/events",
  "events-failed": () => "/events?status=failed&httpStatus=500",
  "events-none": () => "/events?integration=shop/orders&externalEventId=nothing",
  "events-wrong-query": () => "/events?receivedFrom=yesterday",
  "event-delivered": () => `/events/${data.delivered}`,
  "event-payload": () => [`/events/${data.delivered}`, (page) => page.getByRole("button", { name: "Show payload" }).click()],
  "event-failed": () => `/events/${data.failed}`,
  "event-retrying": () => `/events/${data.retrying}`,
  "event-sibling": () => `/events/${data.sibling}`,
  "event-erased": () => `/events/${data.erased}`,
  "event-erase": () => `/events/${data.delivered}/erase`,
  deliveries: () => "/deliveries",
  rejections: () => "/rejections?route=orders",
  "rejections-choose": () => "/rejections",
  audit: () => "/audit",
  tools: () => "/tools",
  verify: () => "/tools/verify",
  filter: () => `/tools/filter?integration=${data.idOf("orders")}&expression=payload.total+%3E+100`,
  "test-event": () => `/tools/test-event?integration=${data.idOf("orders")}`,
};

for (const [name, where] of Object.entries(pages)) {
  describe(name, () => {
    for (const scheme of SCHEMES) {
      test(scheme, async (t) => {
        const page = await tab(t, { scheme });
        const [path, act] = [where()].flat();
        await open(page, path);
        await act?.(page);
        assert.match(await page.title(), /\S · Grapnel$/);
        assert.equal(await page.locator("h1").count(), 1);
        for (const width of WIDTHS) {
          await page.setViewportSize({ width, height: 900 });
          await expectNoOverflow(page, `${name} at ${width}`);
          await expectAccessible(page, `${name}, ${scheme}, at ${width}`);
          if (scheme === "light" || width === 1440) await keepPicture(page, `${name}-${scheme}-${width}`);
        }
      });
    }
  });
}

test("a page that is not there says so", async (t) => {
  const page = await tab(t);
  const response = await page.goto(`${process.env.CONSOLE}/events/00000000-0000-7000-8000-000000000000`);
  assert.equal(response.status(), 404);
  assert.match(await page.locator("main").innerText(), /no such event/i);
  await expectAccessible(page, "not found");
  // The browser itself reports the status.
  page.complaints.splice(0);
});
