// Events that several tests look at, made once in each process.

import { erase, eventually, get, hasStatus, postAsset, postForgedOrder, postHostile, postMessages, postOrder, behave } from "./grapnel.js";

// Returns events in every state, and the ids of what pages are about.
export async function everyState() {
  await behave("inventory", { status: 503, body: "upstream connect error" });
  const [delivered, failed, retrying, sibling, erased] = await Promise.all([
    postOrder({ data: { total: 250, customer: { name: "Zoë", vip: true }, lines: [{ sku: "a-1", count: 2 }, { sku: "b-2", count: 1 }] } }),
    postOrder({ type: "order.cancelled", data: { receiver: { status: 500, body: "no stock" } } }),
    postAsset(),
    postMessages(["first", "second", "third"]),
    postOrder(),
    postForgedOrder(),
  ]);
  const hostile = await postHostile({ headers: { "x-subject": "subject" }, body: "plain" });
  await Promise.all([
    hasStatus(delivered, "processed"),
    hasStatus(failed, "failed"),
    hasStatus(retrying, "retrying"),
    hasStatus(sibling, "processed"),
    hasStatus(erased, "processed"),
  ]);
  await erase(erased);
  const integrations = await get("integrations?pageSize=100");
  const idOf = (name) => integrations.find((integration) => integration.name === name).id;
  await eventually("the refusal is noted", async () => (await get("rejections?route=orders")).length > 0);
  return { delivered, failed, retrying, sibling, erased, hostile, idOf };
}
