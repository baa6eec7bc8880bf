// Users of a cluster see their namespace and no trace of another, and are offered what they may do.

import assert from "node:assert/strict";
import { before, describe, test } from "node:test";
import { logInWithToken } from "./lib/browser.js";
import { everyState } from "./lib/data.js";
import { postAsset } from "./lib/grapnel.js";

const CONSOLE = process.env.CONSOLE_OF_A_CLUSTER;
const OTHERS = /platform|support|zoo|\bassets\b|\bmessages\b|hostile|inventory|\binbox\b|mirror/i;

let data;
let foreign;
before(async () => {
  data = await everyState();
  foreign = await postAsset();
});

// Opens every page that the navigation offers, and returns them with their texts.
async function everyPage(page) {
  const paths = await page.locator("nav[aria-label=Main] a").evaluateAll((links) => links.map((link) => link.href));
  const more = ["/tools/verify", "/tools/filter", "/tools/test-event", "/replays/new", `/events/${data.delivered}`, `/integrations/${data.idOf("orders")}`];
  const found = [];
  for (const url of [...paths, ...more.map((path) => `${CONSOLE}${path}`)]) {
    const response = await page.goto(url);
    found.push([url, response.status(), await page.content()]);
  }
  // The browser itself reports what was refused.
  page.complaints.splice(0, page.complaints.length, ...page.complaints.filter((text) => !/status of 40[34]/.test(text)));
  return found;
}

describe("a viewer", () => {
  test("sees its namespace and no trace of another", async (t) => {
    const page = await logInWithToken(t, "token-of-a-viewer");
    const pages = await everyPage(page);
    assert.ok(pages.some(([, status, html]) => status === 200 && html.includes("orders")));
    for (const [url, , html] of pages) {
      // The providers that Verify offers are Grapnel's, and a token of a form is random.
      const own = html.replaceAll(/<option[^>]*>[^<]*<\/option>|\/console\/assets\/|name="csrf" value="[^"]*"/g, "");
      assert.ok(!OTHERS.test(own), `${url}: ${own.match(OTHERS)}`);
      assert.ok(!html.includes("token-of-a-viewer"), url);
    }
    for (const path of [`/events/${foreign}`, `/integrations/${data.idOf("assets")}`, "/rejections?route=assets", "/events?integration=platform/assets"]) {
      const response = await page.goto(`${CONSOLE}${path}`);
      const text = await page.locator("#live, main").first().innerText();
      assert.ok(response.status() === 404 || /No event matches/.test(text), `${path}: ${response.status()} ${text}`);
    }
    page.complaints.splice(0, page.complaints.length, ...page.complaints.filter((text) => !/status of 404/.test(text)));
  });

  test("is offered nothing that it may not do", async (t) => {
    const page = await logInWithToken(t, "token-of-a-viewer");
    await page.goto(`${CONSOLE}/events/${data.delivered}`);
    for (const name of ["Replay", "Show payload"]) assert.equal(await page.getByRole("button", { name }).count(), 0, name);
    assert.equal(await page.getByRole("link", { name: /Erase/ }).count(), 0);
    assert.match(await page.locator("main").innerText(), /\[\d+ bytes\]/);
    await page.goto(`${CONSOLE}/events`);
    assert.equal(await page.locator("main").getByRole("checkbox").count(), 0);
  });
});

test("an editor is offered payloads and replays, and no erasure", async (t) => {
  const page = await logInWithToken(t, "token-of-an-editor");
  await page.goto(`${CONSOLE}/events/${data.delivered}`);
  await page.getByRole("button", { name: "Replay", exact: true }).waitFor();
  assert.equal(await page.getByRole("link", { name: /Erase/ }).count(), 0);
  await page.getByRole("button", { name: "Show payload" }).click();
  await page.getByText("Zoë").first().waitFor();
  await page.getByText("user:edith").first().waitFor();
});
