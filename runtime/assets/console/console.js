// What HTML alone cannot do: keep relative times true, pause what is live, copy, and move by keyboard. Nothing here is needed to read or change anything.

const root = document.documentElement;
root.classList.add("js");

// Times

const units = [[172800, 86400, "days"], [3600, 3600, "h"], [60, 60, "min"], [0, 1, "s"]];

function relative(milliseconds) {
  const seconds = Math.trunc(milliseconds / 1000);
  if (seconds >= -1 && seconds < 2) return "now";
  const [, size, unit] = units.find(([from]) => Math.abs(seconds) >= from);
  const text = `${Math.floor(Math.abs(seconds) / size)} ${unit}`;
  return seconds < 0 ? `in ${text}` : `${text} ago`;
}

// The clock of this machine may differ from the server's, which the first time that is shown tells nothing about; so times only count on from the server's words.
const loadedAt = new WeakMap();

function tick() {
  for (const time of document.querySelectorAll("time[datetime]")) {
    const now = Date.now();
    const known = loadedAt.get(time);
    if (known?.text !== time.textContent) {
      loadedAt.set(time, { text: time.textContent, at: now, age: now - Date.parse(time.dateTime) });
      continue;
    }
    const text = relative(known.age + (now - known.at));
    if (text !== time.textContent && now - known.at > 5000) time.textContent = known.text = text;
  }
}
setInterval(tick, 5000);

// Live parts

let isPaused = false;
let failedSince = null;
const notice = document.getElementById("notice");

function say(text, lasts = 0) {
  if (!notice) return;
  notice.textContent = text;
  notice.hidden = !text;
  if (lasts) setTimeout(() => { if (notice.textContent === text) notice.hidden = true; }, lasts);
}

function showPause() {
  for (const button of document.querySelectorAll("[data-live-switch]")) {
    button.setAttribute("aria-pressed", String(isPaused));
    button.querySelector("[data-live-word]").textContent = isPaused ? "Paused" : "Live";
    button.title = isPaused ? "Go on (p)" : "Pause (p)";
  }
}

function isPolling(detail) {
  return ["live", "charts"].includes(detail?.ctx?.sourceElement?.id) && (detail.ctx.request?.method ?? "GET") === "GET";
}

function isBusy() {
  const selection = document.getSelection();
  const live = document.getElementById("live");
  const isSelecting = selection && !selection.isCollapsed && live?.contains(selection.anchorNode);
  return isSelecting || live?.querySelector("details[open] form, form details[open], tbody input:checked, :focus-visible:is(input, textarea, select)");
}

// Nobody looks at a hidden tab, and nothing moves under a selection.
document.addEventListener("htmx:before:request", (event) => {
  if (isPolling(event.detail) && (isPaused || document.hidden || isBusy())) event.preventDefault();
});
document.addEventListener("htmx:after:request", (event) => {
  if (!isPolling(event.detail)) return;
  if (failedSince) say("");
  failedSince = null;
});
document.addEventListener("htmx:error", (event) => {
  if (!isPolling(event.detail)) return;
  failedSince ??= new Date();
  say(`No answer since ${failedSince.toLocaleTimeString()}. What is shown is from then.`);
});

// Clicks

async function copy(button) {
  const source = document.getElementById(button.dataset.copy);
  const text = source?.dataset.text ?? source?.value ?? source?.textContent ?? "";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Over plain http there is no clipboard; the old way needs a field.
    const field = document.createElement("textarea");
    field.value = text;
    document.body.append(field);
    field.select();
    document.execCommand("copy");
    field.remove();
  }
  say("Copied", 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-copy], [data-live-switch], [data-check-all]");
  if (!button) return;
  if (button.matches("[data-copy]")) copy(button);
  if (button.matches("[data-live-switch]")) { isPaused = !isPaused; showPause(); }
  if (button.matches("[data-check-all]")) {
    for (const box of document.querySelectorAll(`input[name="${button.dataset.checkAll}"]`)) box.checked = button.checked;
  }
});

// Keys

function moveTo(step) {
  const rows = [...document.querySelectorAll("main tbody tr")].filter((row) => row.querySelector("a[href]"));
  if (!rows.length) return;
  const at = rows.indexOf(document.activeElement?.closest("tr"));
  rows[Math.min(Math.max(at + step, 0), rows.length - 1)].querySelector("a[href]").focus();
}

const keys = {
  j: () => moveTo(1),
  k: () => moveTo(-1),
  "/": () => document.querySelector("main input[type=search], main .filters input")?.focus(),
  p: () => document.querySelector("[data-live-switch]")?.click(),
  r: () => location.reload(),
  "?": () => say("j k rows · enter opens · / search · p pause · r load again", 6000),
};

// Whoever speaks to the machine, or presses keys by mistake, can do without (WCAG 2.1.4).
const keySwitch = document.querySelector("[data-keys]");
if (keySwitch) {
  keySwitch.checked = localStorage.getItem("keys") !== "off";
  keySwitch.addEventListener("change", () => (keySwitch.checked ? localStorage.removeItem("keys") : localStorage.setItem("keys", "off")));
}

document.addEventListener("keydown", (event) => {
  if (!keySwitch?.checked || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, [contenteditable]")) return;
  const act = keys[event.key];
  if (!act) return;
  event.preventDefault();
  act();
});

showPause();
tick();
