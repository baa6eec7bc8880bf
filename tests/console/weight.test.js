// What a first visit costs: at most five requests, and 40 KB as they go over the wire.

import assert from "node:assert/strict";
import { before, test } from "node:test";
import { open, tab } from "./lib/browser.js";
import { everyState } from "./lib/data.js";
import { postOrder } from "./lib/grapnel.js";

const MAX_BYTES = 40 * 1024;
const MAX_REQUESTS = 5;

let data;
before(async () => {
  data = await everyState();
  for (let n = 0; n < 60; n += 1) await postOrder({ data: { note: "a full page" } });
});

const paths = { overview: () => "/", events: () => "/events", event: () => `/events/${data.delivered}`, deliveries: () => "/deliveries" };

for (const [name, path] of Object.entries(paths)) {
  test(name, async (t) => {
    const page = await tab(t);
    const network = await page.context().newCDPSession(page);
    await network.send("Network.enable");
    const sizes = new Map();
    network.on("Network.responseReceived", ({ requestId, response }) => sizes.set(requestId, [response.url, 0]));
    network.on("Network.loadingFinished", ({ requestId, encodedDataLength }) => {
      const known = sizes.get(requestId);
      if (known) known[1] = encodedDataLength;
    });
    await open(page, path());
    await page.waitForLoadState("networkidle", { timeout: 1_500 }).catch(() => undefined);
    const loaded = [...sizes.values()].filter(([url]) => !url.startsWith("data:"));
    // A live part may have been asked for already.
    const first = loaded.filter(([url], index) => loaded.findIndex(([other]) => other === url) === index);
    const total = first.reduce((sum, [, bytes]) => sum + bytes, 0);
    assert.ok(first.length <= MAX_REQUESTS, JSON.stringify(first));
    assert.ok(total > 0 && total <= MAX_BYTES, `${total} bytes: ${JSON.stringify(first)}`);
    t.diagnostic(`${first.length} requests, ${total} bytes`);
  });
}
