// The log-in of a management port that is not for everybody on this machine.

import assert from "node:assert/strict";
import { test } from "node:test";
import { CONSOLE_WITH_LOG_IN as CONSOLE, expectAccessible, expectNoOverflow, keepPicture, tab } from "./lib/browser.js";

const KEY = process.env.MANAGEMENT_API_KEY;

async function logIn(page, path = "/") {
  await page.goto(`${CONSOLE}${path}`);
  await page.waitForURL(/\/log-in/);
  await page.getByLabel("Management key").fill(KEY);
  await page.getByRole("button", { name: "Log in" }).click();
}

test("a link leads to the log-in and then to what it names", async (t) => {
  const page = await tab(t, { javaScript: false });
  await logIn(page, "/events?status=failed");
  await page.waitForURL(`${CONSOLE}/events?status=failed`);
  const [cookie] = await page.context().cookies();
  assert.equal(cookie.httpOnly, true);
  assert.equal(cookie.sameSite, "Lax");
  assert.ok(!(await page.content()).includes(KEY), "the key is in the page");
});

test("a cookie is of no use after the log-out", async (t) => {
  const page = await tab(t);
  await logIn(page);
  await page.waitForURL(`${CONSOLE}/`);
  const cookies = await page.context().cookies();
  await page.getByRole("button", { name: "Log out" }).click();
  await page.waitForURL(/\/log-in/);
  await page.context().addCookies(cookies);
  await page.goto(`${CONSOLE}/events`);
  await page.waitForURL(/\/log-in/);
});

test("nothing is kept in the browser's storage", async (t) => {
  const page = await tab(t);
  await logIn(page, "/events");
  await page.waitForURL(`${CONSOLE}/events`);
  const stored = await page.evaluate(() => JSON.stringify([{ ...localStorage }, { ...sessionStorage }]));
  assert.equal(stored, "[{},{}]");
});

test("the page is accessible", async (t) => {
  for (const scheme of ["light", "dark"]) {
    const page = await tab(t, { scheme });
    await page.goto(`${CONSOLE}/log-in`);
    for (const width of [360, 768, 1440]) {
      await page.setViewportSize({ width, height: 900 });
      await expectNoOverflow(page, `log-in at ${width}`);
      await expectAccessible(page, `log-in, ${scheme}, at ${width}`);
    }
    await keepPicture(page, `log-in-${scheme}`);
  }
});

test("no other site can put a page into a frame, or send a form", async () => {
  const response = await fetch(`${CONSOLE}/log-in`);
  assert.match(response.headers.get("content-security-policy"), /frame-ancestors 'none'/);
  const body = new URLSearchParams({ reason: "because", event: "x" });
  const forged = await fetch(`${process.env.CONSOLE}/events/replay`, { method: "POST", body, headers: { origin: "https://evil.example" } });
  assert.equal(forged.status, 403);
  assert.equal((await fetch(`${process.env.CONSOLE}/events/replay`, { method: "POST", body })).status, 403);
});
