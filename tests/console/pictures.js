// Makes the pictures of the README: run by scripts/pictures.

import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { open, tab } from "./lib/browser.js";
import { behave, eventually, get, hasStatus, postAsset, postForgedOrder, postMessages, postOrder } from "./lib/grapnel.js";

const OUTPUT = process.env.PICTURES_OUTPUT;
const TYPES = ["order.created", "order.created", "order.paid", "order.shipped", "order.cancelled"];

const DOWN = { status: 503, body: "upstream connect error or disconnect/reset before headers" };

test("pictures", { skip: !OUTPUT, timeout: 180_000 }, async (t) => {
  // Some minutes of a shop in half a minute.
  for (let round = 0; round < 30; round += 1) {
    await behave("warehouse", round % 10 === 7 ? DOWN : { status: 200, delayMs: 20 });
    await behave("inventory", round === 25 ? { status: 503, body: "maintenance" } : { status: 200, delayMs: 5 });
    const type = TYPES[round % TYPES.length];
    await postOrder(order(type, 40 + ((round * 37) % 400)));
    if (round % 3 === 0) await postAsset({ resource: { place: "Basel" } });
    if (round % 5 === 0) await postMessages(["When will it arrive?", "Thank you"]);
    await sleep(500);
  }
  await postForgedOrder();
  // Down for longer than the retries last.
  await behave("warehouse", DOWN);
  const failed = await postOrder(order("order.created", 86));
  await hasStatus(failed, "failed");
  await behave("warehouse", { status: 200 });
  const orders = (await get("integrations?pageSize=100")).find((integration) => integration.name === "orders").id;
  await eventually("the refusal is noted", async () => (await get("rejections?route=orders")).length > 0);
  // Statistics are written every five seconds.
  await sleep(6_000);
  const pages = { overview: "/", integration: `/integrations/${orders}`, events: "/events", event: `/events/${failed}` };
  for (const scheme of ["light", "dark"]) {
    const page = await tab(t, { scheme, width: 1440, height: 900, deviceScaleFactor: 1 });
    for (const [name, path] of Object.entries(pages)) {
      if (scheme === "dark" && name !== "event") continue;
      await open(page, path);
      if (name === "event") await page.getByRole("button", { name: "Show payload" }).click();
      // It has jumped to the payload.
      await page.evaluate(() => window.scrollTo({ top: 0, behavior: "instant" }));
      await page.screenshot({ path: `${OUTPUT}/${name}${scheme === "dark" ? "-dark" : ""}.png` });
    }
  }
});

function order(type, total) {
  return { type, data: { total, currency: "eur", customer: { name: "Zoë Müller", country: "CH" }, lines: [{ sku: "tea-100", count: 2 }] } };
}
