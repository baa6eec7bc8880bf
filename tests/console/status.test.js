// What the controller reported about objects: readiness and its reason, conditions, workers; and where none has reported. The rows are written here as a
// controller writes them.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { after, before, describe, test } from "node:test";
import {
  CONSOLE_OF_A_CLUSTER,
  SCHEMES,
  WIDTHS,
  expectAccessible,
  expectNoOverflow,
  keepPicture,
  logInWithToken,
  open,
  tab,
} from "./lib/browser.js";
import { get } from "./lib/grapnel.js";

const MESSAGE = "the Secret orders has no key secret <b>\u202e";

let orders;
let assets;

const sql = (text) => execFileSync("psql", [process.env.DATABASE_URL, "--quiet", "--no-psqlrc", "--set", "ON_ERROR_STOP=1", "--command", text]);
const quoted = (text) => `'${text.replaceAll("'", "''")}'`;

function report(id, { ready, reason, message = "", age = "1 second" }) {
  const at = new Date(Date.now() - 600_000).toISOString();
  const conditions = [
    { type: "Accepted", status: "True", reason: "AsDesired", message: "", lastTransitionTime: at },
    { type: "SecretsResolved", status: ready, reason, message, lastTransitionTime: at },
    { type: "Ready", status: ready, reason, message, lastTransitionTime: at },
    { type: "ScalingActive", status: "False", reason: "NotAutomatic", message: "", lastTransitionTime: at },
  ];
  const lastScaling = { time: at, from: 0, to: 3, reason: "Activated", message: "0→3: backlog 300" };
  sql(`INSERT INTO integration_statuses (integration_id, writer_epoch, reported_at, ready, ready_reason, ready_message, ready_since, desired_workers,
         workers, ready_workers, limited_by, backlog, last_scaling, conditions)
       VALUES ('${id}', 1, now() - interval '${age}', '${ready}', '${reason}', ${quoted(message)}, '${at}', 3, 3, 1, 'MaxReplicas', 300,
         ${quoted(JSON.stringify(lastScaling))}, ${quoted(JSON.stringify(conditions))})
       ON CONFLICT (integration_id) DO UPDATE SET reported_at = excluded.reported_at, ready = excluded.ready, ready_reason = excluded.ready_reason,
         ready_message = excluded.ready_message, conditions = excluded.conditions`);
}

const forget = () => sql("TRUNCATE integration_statuses, status_confirmed, worker_minutes");

before(async () => {
  const integrations = await get("integrations?pageSize=100");
  const idOf = (name) => integrations.find((integration) => integration.name === name).id;
  [orders, assets] = [idOf("orders"), idOf("assets")];
});
after(forget);

const row = (page, id) => page.locator(`#i-${id}`);

describe("without a controller", () => {
  before(forget);

  test("everything says that it was not reported", async (t) => {
    const page = await tab(t);
    await open(page, "/");
    assert.match(await row(page, orders).innerText(), /not reported/);
    assert.doesNotMatch(await page.locator("#live").innerText(), /not ready|controller has not reported/);
    await open(page, `/integrations/${orders}`);
    assert.match(await page.locator("main").innerText(), /no controller has reported about this Integration[\s\S]*Workers\s+Not reported in this window/);
    assert.equal(await page.getByRole("region", { name: "Conditions" }).count(), 0);
  });
});

describe("with a controller", () => {
  before(() => {
    forget();
    report(orders, { ready: "False", reason: "SecretKeyMissing", message: MESSAGE });
    sql(`INSERT INTO worker_minutes SELECT '${orders}', date_trunc('minute', now()) - n * interval '1 minute', 40 * n, 3, 1 FROM generate_series(1, 30) n`);
  });

  test("what is not ready is where one looks first, with its reason and the way to more", async (t) => {
    const page = await tab(t);
    await open(page, "/");
    const item = page.locator(".attention li").filter({ hasText: "SecretKeyMissing" });
    assert.match(await item.innerText(), /not ready[\s\S]*orders[\s\S]*SecretKeyMissing, for 10 min: the Secret orders has no key secret <b>\[U\+202E\]/);
    assert.match(await row(page, orders).innerText(), /not ready\s+SecretKeyMissing/);
    assert.match(await row(page, orders).locator("td").last().innerText(), /^1 of 3$/);
    assert.match(await row(page, assets).innerText(), /not reported/);
    await item.getByRole("link", { name: "See why" }).click();
    await page.waitForURL(new RegExp(`/integrations/${orders}#conditions$`));

    const table = page.getByRole("region", { name: "Conditions" });
    const first = await table.getByRole("row").nth(1).innerText();
    assert.match(first, /^Ready\s+False\s+SecretKeyMissing\s+the Secret orders has no key secret <b>\[U\+202E\]\s+the Secret has no such key → add the key, or correct key/);
    assert.match(await table.innerText(), /NotAutomatic[\s\S]*scaling\.mode is Manual or External/);
    const facts = await page.locator("main").innerText();
    assert.match(facts, /1 of 3, limited by MaxReplicas/);
    assert.match(facts, /0→3: backlog 300/);
    await open(page, `/integrations/${orders}?window=1h`);
    await page.getByRole("img", { name: "queued deliveries: at most 1,200" }).waitFor();
    await page.getByRole("img", { name: "asked for: at most 3; ready: at most 1" }).waitFor();
  });

  test("a change appears by itself", async (t) => {
    const page = await tab(t);
    await open(page, "/");
    t.after(() => report(orders, { ready: "False", reason: "SecretKeyMissing", message: MESSAGE }));
    report(orders, { ready: "True", reason: "AsDesired" });
    await row(page, orders).locator(".state.ok", { hasText: /^ready$/ }).waitFor();
    assert.equal(await page.locator(".attention li", { hasText: "SecretKeyMissing" }).count(), 0);
  });

  test("a controller that has not reported for long is named, and what it said is still shown", async (t) => {
    const page = await tab(t);
    t.after(() => report(orders, { ready: "False", reason: "SecretKeyMissing", message: MESSAGE }));
    report(orders, { ready: "True", reason: "AsDesired", age: "12 minutes" });
    for (const path of ["/", `/integrations/${orders}`]) {
      await open(page, path);
      assert.match(await page.locator("#live").innerText(), /The controller has not reported for 12 min/);
    }
    sql("INSERT INTO status_confirmed (writer_epoch, confirmed_at) VALUES (1, now())");
    t.after(() => sql("TRUNCATE status_confirmed"));
    await open(page, "/");
    assert.doesNotMatch(await page.locator("#live").innerText(), /has not reported/);
  });

  test("who sees one namespace sees no state of another", async (t) => {
    t.after(() => sql(`DELETE FROM integration_statuses WHERE integration_id = '${assets}'`));
    report(assets, { ready: "False", reason: "WorkersFailing", message: "message-of-the-platform" });
    const page = await logInWithToken(t, "token-of-a-viewer");
    const overview = await page.content();
    assert.match(overview, /SecretKeyMissing/);
    assert.doesNotMatch(overview, /WorkersFailing|message-of-the-platform/);
    const hidden = await page.goto(`${CONSOLE_OF_A_CLUSTER}/integrations/${assets}`);
    assert.equal(hidden.status(), 404);
    assert.doesNotMatch(await page.content(), /WorkersFailing|message-of-the-platform/);
    page.complaints.splice(0);
  });

  for (const scheme of SCHEMES) {
    test(`the pages are accessible, ${scheme}`, async (t) => {
      const page = await tab(t, { scheme });
      for (const [name, path] of [["overview", "/"], ["integration", `/integrations/${orders}`]]) {
        await open(page, path);
        for (const width of WIDTHS) {
          await page.setViewportSize({ width, height: 900 });
          await expectNoOverflow(page, `${name} at ${width}`);
          await expectAccessible(page, `${name}, ${scheme}, at ${width}`);
          if (scheme === "light" || width === 1440) await keepPicture(page, `${name}-reported-${scheme}-${width}`);
        }
      }
    });
  }
});
