// The browser. Whatever it complains about fails the test: reports of the content security policy, errors on the console, requests to other
// hosts.

import assert from "node:assert/strict";
import { after } from "node:test";
import AxeBuilder from "@axe-core/playwright";
import { chromium } from "playwright-core";

export const { CONSOLE, CONSOLE_WITH_LOG_IN, CONSOLE_OF_A_CLUSTER, PICTURES } = process.env;
export const WIDTHS = [360, 768, 1440];
export const SCHEMES = ["light", "dark"];

// Debian's; the browsers that Playwright would bring are not needed. Chromium's own sandbox does not work as root.
const browser = await chromium.launch({
  executablePath: "/usr/bin/chromium",
  args: process.getuid() === 0 ? ["--no-sandbox"] : [],
});
after(() => browser.close());

// Opens a tab of its own, without the cookies of others, which is closed at the end of the test. `complaints` may be emptied by a test that expects some.
export async function tab(t, { javaScript = true, scheme = "light", width = 1440, height = 900, ...options } = {}) {
  const context = await browser.newContext({
    javaScriptEnabled: javaScript,
    colorScheme: scheme,
    viewport: { width, height },
    ...options,
  });
  const page = await context.newPage();
  page.complaints = [];
  const complain = (text) => page.complaints.push(`${page.url()}: ${text}`);
  await page.exposeFunction("complain", complain);
  await page.addInitScript(() => {
    document.addEventListener("securitypolicyviolation", (event) =>
      window.complain(`${event.violatedDirective} forbids ${event.blockedURI} ${event.sample}`),
    );
  });
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type())) complain(message.text());
  });
  page.on("pageerror", (error) => complain(String(error)));
  page.on("dialog", (dialog) => {
    complain(`a dialog: ${dialog.message()}`);
    dialog.dismiss();
  });
  const own = new URL(CONSOLE).hostname;
  page.on("request", (request) => {
    const url = new URL(request.url());
    if (url.protocol !== "data:" && url.hostname !== own) complain(`a request to ${request.url()}`);
  });
  page.setDefaultTimeout(15_000);
  t.after(async () => {
    await context.close();
    assert.deepEqual(page.complaints, []);
  });
  return page;
}

// Opens a path of the console, and expects the page.
export async function open(page, path) {
  const response = await page.goto(`${CONSOLE}${path}`);
  assert.equal(response.status(), 200, `${path}: ${response.status()}`);
  return response;
}

// Logs in to the console of the cluster, and returns a tab with its overview.
export async function logInWithToken(t, token) {
  const page = await tab(t);
  await page.goto(`${CONSOLE_OF_A_CLUSTER}/`);
  await page.getByLabel("a Kubernetes token").check();
  await page.getByLabel("Token or key").fill(token);
  await page.getByRole("button", { name: "Log in" }).click();
  await page.waitForURL(`${CONSOLE_OF_A_CLUSTER}/`);
  return page;
}

// WCAG 2.2, levels A and AA.
export async function expectAccessible(page, what) {
  const { violations } = await new AxeBuilder({ page })
    .withTags(["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"])
    .analyze();
  const found = violations.map(({ id, nodes }) => `${id}: ${nodes.map((node) => `${node.html} (${node.failureSummary})`).join("\n  ")}`);
  assert.deepEqual(found, [], what);
}

// A page is never wider than the window; what is wide scrolls in its own box.
export async function expectNoOverflow(page, what) {
  const wide = await page.evaluate(() => {
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return [];
    const scrolls = (element) => element && (["auto", "scroll", "hidden"].includes(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
    return [...document.querySelectorAll("body *")]
      .filter((element) => element.getBoundingClientRect().right > width + 0.5 && !scrolls(element.parentElement))
      .map((element) => element.outerHTML.slice(0, 120))
      .concat(`${document.documentElement.scrollWidth} > ${width}`);
  });
  assert.deepEqual(wide, [], what);
}

// Keeps a picture of the whole page.
export async function keepPicture(page, name) {
  if (PICTURES) await page.screenshot({ path: `${PICTURES}/${name}.png`, fullPage: true, caret: "initial" });
}
