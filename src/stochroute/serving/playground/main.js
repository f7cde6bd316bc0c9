// The page: what is asked, what has come, and what can be done with it.

import * as api from "./api.js";
import { draw, summary } from "./tree.js";
import { otherLanguage, translate, word } from "./words.js";

const $ = (id) => document.getElementById(id);
const field = (name) => document.querySelector(`[data-field="${name}"]`);

let card = null; // the model, with what it can do
let runs = []; // {arms: [{name, request, rows, seed, error}]}
let shown = -1;
let pins = JSON.parse(localStorage.getItem("pins") || "[]"); // {request, path, text, finish}
let walking = null; // AbortController of the walk under way
let drawAgain = false;

// -- settings

const number = (id) => Number($(id).value);
const byBudget = () => card?.fields.budget.on && number("budget") >= card.fields.budget.reach[0];

// Why a setting does nothing; null when it does something.
function why(name) {
  const own = card?.fields[name];
  if (own && !own.on) return own.why;
  const silent = !byBudget() && number("strength") === 0;
  if (name === "strength" && byBudget()) return word("byBudget");
  if ((name === "hold" || name === "span") && silent) return word("noNoise");
  if ((name === "top_p" || name === "spread") && number("temperature") === 0) return word("zero");
  if (name === "compare" && (silent || !card?.fields.strength.on)) return card?.fields.strength.why ?? word("nothing");
  return null;
}

function showSettings() {
  for (const output of document.querySelectorAll("output")) {
    const name = output.htmlFor.value;
    const value = number(name);
    output.textContent = name === "budget" ? `${value} ${word("unit")}` : String(value);
  }
  for (const label of document.querySelectorAll("[data-field]")) {
    const reason = why(label.dataset.field);
    label.classList.toggle("off", Boolean(reason));
    label.title = reason ?? "";
    label.querySelector("input, select").disabled = Boolean(reason);
    const output = label.querySelector("output");
    if (reason && output) output.textContent = word("off");
  }
  const unset = field("budget").querySelector("output");
  if (!byBudget()) unset.textContent = word("off");
}

function request(prompt) {
  const asked = { model: card.id, prompt, n: number("n"), max_tokens: number("max_tokens"), temperature: number("temperature") };
  if (!why("top_p") && number("top_p") < 1) asked.top_p = number("top_p");
  if (!why("spread") && $("spread").checked) asked.spread = true;
  if (byBudget()) asked.budget = number("budget");
  else if (!why("strength")) asked.strength = number("strength");
  if (!why("hold")) asked.hold = $("hold").value === "sequence" ? "sequence" : number("hold");
  if (!why("span")) asked.span = $("span").value;
  if ($("seed").value.trim()) asked.seed = Number($("seed").value);
  // with temperature 0 and no noise all texts are one
  if (asked.temperature === 0 && (asked.strength === 0 || why("strength")) && !asked.budget) asked.n = 1;
  if (asked.strength === 0) { delete asked.hold; delete asked.span; }
  return asked;
}

// The same draws of tokens without noise in the model.
function withoutNoise(asked, seed) {
  const { budget, hold, span, ...rest } = asked;
  return { ...rest, seed, strength: 0, n: asked.temperature === 0 ? 1 : asked.n };
}

// -- walking

async function walk(prompt) {
  if (!card || walking || !prompt) return;
  $("prompt").value = prompt;
  const arm = { name: "along", request: request(prompt), rows: [] };
  const run = { arms: [arm] };
  runs = [...runs.slice(0, shown + 1), run];
  show(runs.length - 1);
  const compares = $("compare").checked && !why("compare");
  await busy(async (signal) => {
    await follow(arm, signal);
    if (compares) {
      const plain = { name: "plain", request: withoutNoise(arm.request, Number(arm.seed)), rows: [] };
      run.arms.push(plain);
      await follow(plain, signal);
    }
  });
}

async function follow(arm, signal) {
  await api.complete(arm.request, signal, (chunk) => {
    arm.seed = chunk.seed;
    for (const choice of chunk.choices) {
      arm.rows[choice.index] ??= { index: choice.index, path: choice.path, text: "" };
      take(arm.rows[choice.index], choice);
    }
    redraw();
  });
}

function take(row, choice) {
  row.text += choice.text;
  if (choice.finish_reason) Object.assign(row, { finish: choice.finish_reason, receipt: choice.receipt });
}

// The request that walks one path of an arm again.
function alone(arm, row) {
  const { n, seed, ...rest } = arm.request;
  return { ...rest, paths: [row.path] };
}

async function replay(arm, row) {
  const again = { text: "" };
  await busy(async (signal) => {
    await api.complete(alone(arm, row), signal, (chunk) => take(again, chunk.choices[0]));
    row.replayed = again.text === row.text;
  });
}

// The same path for more tokens: the text so far comes out again, and goes on.
async function goOn(arm, row) {
  const asked = alone(arm, row);
  const used = row.receipt?.decoding.max_new_tokens ?? asked.max_tokens;
  asked.max_tokens = used + number("max_tokens");
  const longer = { text: "" };
  await busy(async (signal) => {
    row.finish = null;
    const before = row.text;
    await api.complete(asked, signal, (chunk) => {
      take(longer, chunk.choices[0]);
      if (longer.text.length > before.length || longer.finish) Object.assign(row, longer);
      redraw();
    });
  });
  row.finish ??= "length";
}

async function busy(work) {
  if (walking) return;
  walking = new AbortController();
  showBusy();
  say("");
  try {
    await work(walking.signal);
  } catch (error) {
    if (error.name === "AbortError") say(word("stopped"));
    else if (error.status === 401) askForKey();
    else say(error instanceof api.Refused ? error.message : word("gone"), true);
  }
  walking = null;
  for (const arm of runs[shown]?.arms ?? []) for (const row of arm.rows) if (row) row.finish ??= "cut";
  showBusy();
  redraw();
}

function showBusy() {
  $("run").disabled = Boolean(walking) || !card;
  $("stop").hidden = !walking;
  document.body.classList.toggle("walking", Boolean(walking));
}

// -- drawing

function redraw() {
  if (drawAgain) return;
  drawAgain = true;
  setTimeout(() => { drawAgain = false; drawRun(); }, walking ? 60 : 0);
}

function show(index) {
  shown = index;
  $("earlier").disabled = shown < 1;
  $("later").disabled = shown >= runs.length - 1;
  drawRun();
}

function drawRun() {
  const run = runs[shown];
  if (!run) {
    $("trees").replaceChildren(made("p", "welcome", word("welcome")));
    return;
  }
  $("trees").replaceChildren(...run.arms.map((arm) => {
    const rows = arm.rows.filter(Boolean);
    const section = made("article", `arm ${arm.name}`);
    const heading = made("h2", "", word(arm.name));
    const ended = rows.filter((row) => row.finish).length;
    const found = rows.length ? summary(rows) : null;
    const state = !found ? "" : ended < rows.length ? word("walking")(ended, rows.length)
      : word("done")(found.n, found.distinct, found.shared);
    const notes = [arm.name === "plain" ? word("plainWhy") : "", state, arm.seed ? word("seedWas")(arm.seed) : "",
      rows.length && !walking ? word("hint") : ""];
    heading.append(made("small", "", notes.filter(Boolean).join(" · ")));
    section.append(heading);
    if (rows.length) section.append(draw({ ...arm, rows }, (row) => actions(arm, row), walk));
    return section;
  }));
}

function made(name, className, text = "") {
  return Object.assign(document.createElement(name), { className, textContent: text });
}

function button(label, act, title = "") {
  const element = made("button", "small", label);
  element.type = "button";
  element.title = title;
  element.addEventListener("click", (event) => { event.stopPropagation(); act(); });
  return element;
}

function actions(arm, row) {
  const bar = made("div", "path");
  bar.dataset.path = row.path;
  const id = button(row.path, () => copy(row.path), word("copyId"));
  id.classList.add("id");
  bar.append(id);
  if (!row.finish) return bar;
  const again = button(word("replay"), () => replay(arm, row));
  const more = button(word("continue"), () => goOn(arm, row), row.finish === "stop" ? word("ended") : "");
  again.disabled = row.finish === "cut";
  more.disabled = row.finish === "stop";
  bar.append(button(word("pin"), () => pin(arm, row)), again, more);
  if (row.replayed !== undefined) {
    const badge = made("span", row.replayed ? "badge good" : "badge bad", word(row.replayed ? "identical" : "differs"));
    badge.title = word(row.replayed ? "same" : "notSame");
    bar.append(badge);
  }
  return bar;
}

// -- pins

function pin(arm, row) {
  const asked = alone(arm, row);
  asked.max_tokens = row.receipt?.decoding.max_new_tokens ?? asked.max_tokens;
  if (!pins.some((old) => JSON.stringify(old.request) === JSON.stringify(asked))) {
    pins = [...pins, { request: asked, text: row.text, path: row.path, finish: row.finish }];
  }
  keepPins();
}

function keepPins() {
  localStorage.setItem("pins", JSON.stringify(pins));
  $("pins").hidden = !pins.length;
  $("pins").querySelector(".cards").replaceChildren(...pins.map((old) => {
    const text = made("p", "text");
    text.append(made("span", "given", old.request.prompt), old.text);
    const arm = { name: "along", request: old.request };
    const again = button(word("replay"), async () => { await replay(arm, old); keepPins(); });
    const bar = made("div", "path");
    bar.append(button(old.path, () => copy(old.path), word("copyId")));
    bar.firstChild.classList.add("id");
    bar.append(again, button(word("copyPython"), () => copy(api.asPython(old.request))),
      button(word("unpin"), () => { pins = pins.filter((other) => other !== old); keepPins(); }));
    if (old.replayed !== undefined) {
      bar.append(made("span", old.replayed ? "badge good" : "badge bad", word(old.replayed ? "identical" : "differs")));
    }
    const box = made("div", "card");
    box.append(text, bar);
    return box;
  }));
}

// -- the rest of the page

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // pages without a secure context have no clipboard
    const area = made("textarea", "offscreen");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  say(word("copied"));
}

// The request as it is now; after a walk with the seed that it had, so that it gives the same texts.
function requestToCopy() {
  const asked = request($("prompt").value);
  const last = runs[shown]?.arms[0];
  if (last?.seed && !("seed" in asked)) asked.seed = Number(last.seed);
  return asked;
}

function askForKey() {
  $("key-row").hidden = false;
  $("key").focus();
  say(word("needsKey"), true);
}

async function load() {
  try {
    card = await api.model();
  } catch (error) {
    if (error.status === 401) askForKey();
    else say(error instanceof api.Refused ? error.message : word("gone"), true);
    return;
  }
  say("");
  $("model").textContent = card.id;
  $("n").max = Math.min(16, card.most_choices);
  const own = card.fields.strength.default;
  if (typeof own === "number") {
    $("strength").max = Math.max(1, 2 * own);
    $("strength").value = own;
  }
  if (card.fields.budget.on) $("budget").max = Math.min(0.5, card.fields.budget.reach[1]).toFixed(3);
  $("hold").value = String(card.fields.hold.default ?? "sequence");
  if (!$("hold").value) $("hold").value = "sequence";
  $("span").value = card.fields.span.default ?? "generated";
  if (card.context) $("max_tokens").max = Math.floor(card.context / 8) * 8 - 32;
  if (!$("prompt").value) $("prompt").value = "Once upon a time";
  showSettings();
  showBusy();
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("theme", theme);
}

function moveWord(step) {
  const all = [...document.querySelectorAll(".word")];
  const next = all[all.indexOf(document.activeElement) + step];
  if (!next) return;
  document.activeElement.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

function actOnFocused(act) {
  const path = document.activeElement.dataset?.path;
  for (const arm of runs[shown]?.arms ?? []) {
    const tree = document.activeElement.closest(".arm")?.classList.contains(arm.name);
    const row = arm.rows.find((other) => other?.path === path);
    if (tree && row?.finish) act(arm, row);
  }
}

const onWord = {
  ArrowRight: () => moveWord(1),
  ArrowLeft: () => moveWord(-1),
  Enter: () => document.activeElement.click(),
  p: () => actOnFocused(pin),
  r: () => actOnFocused(replay),
  c: () => actOnFocused((arm, row) => row.finish !== "stop" && goOn(arm, row)),
};

document.addEventListener("keydown", (event) => {
  const typing = event.target.matches("input:not([type=range], [type=checkbox]), textarea, select");
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) walk($("prompt").value);
  else if (event.key === "Escape" && walking) walking.abort();
  else if (event.altKey && event.key === "ArrowLeft" && shown > 0) show(shown - 1);
  else if (event.altKey && event.key === "ArrowRight" && shown < runs.length - 1) show(shown + 1);
  else if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  else if (event.key === "/") $("prompt").focus();
  else if (event.key === "?") $("keys").showModal();
  else if (event.target.matches(".word") && onWord[event.key.length === 1 ? event.key.toLowerCase() : event.key]) {
    onWord[event.key.length === 1 ? event.key.toLowerCase() : event.key]();
  } else return;
  event.preventDefault();
});

$("composer").addEventListener("submit", (event) => { event.preventDefault(); walk($("prompt").value); });
$("composer").addEventListener("input", showSettings);
$("key").addEventListener("change", () => { api.setKey($("key").value); load(); });
$("stop").addEventListener("click", () => walking?.abort());
$("earlier").addEventListener("click", () => show(shown - 1));
$("later").addEventListener("click", () => show(shown + 1));
$("help").addEventListener("click", () => $("keys").showModal());
$("copy-curl").addEventListener("click", () => card && copy(api.asCurl(requestToCopy())));
$("copy-python").addEventListener("click", () => card && copy(api.asPython(requestToCopy())));
$("language").addEventListener("click", () => { otherLanguage(); showSettings(); drawRun(); keepPins(); });
$("theme").addEventListener("click", () => {
  const dark = document.documentElement.dataset.theme
    ? document.documentElement.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  setTheme(dark ? "light" : "dark");
});

if (localStorage.getItem("theme")) setTheme(localStorage.getItem("theme"));
translate();
showSettings();
showBusy();
keepPins();
drawRun();
load();
