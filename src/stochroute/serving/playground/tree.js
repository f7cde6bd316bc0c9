// Texts as a tree: what they share is drawn once, and they branch where they part.

import { word } from "./words.js";

// A word with the white space before it; a Chinese or Japanese character is a word of its own.
const WORD = /\s*[\p{sc=Han}\p{sc=Hira}\p{sc=Kana}]|\s*[^\s\p{P}\p{sc=Han}\p{sc=Hira}\p{sc=Kana}]+|\s*\p{P}|\s+$/gu;

export const wordsOf = (text) => text.match(WORD) ?? [];

// What is drawn of a text that is still being written: its last word may not be whole.
const shown = (row) => (row.finish ? wordsOf(row.text) : wordsOf(row.text).slice(0, -1));

// {words, rows, children}: the words that these rows share from `depth` on, and how they go on.
export function branch(rows, lists = new Map(rows.map((row) => [row, shown(row)])), depth = 0) {
  let end = depth;
  const at = (row) => lists.get(row)[end];
  while (rows.every((row) => at(row) !== undefined && at(row) === at(rows[0]))) end += 1;
  const groups = new Map();
  for (const row of rows) groups.set(at(row), [...(groups.get(at(row)) ?? []), row]);
  const words = lists.get(rows[0]).slice(depth, end);
  if (rows.length === 1 || (groups.size === 1 && at(rows[0]) === undefined)) return { words, rows, children: [] };
  return { words, rows, children: [...groups.values()].map((group) => branch(group, lists, end)) };
}

export function summary(rows) {
  const lists = rows.map((row) => wordsOf(row.text));
  const shared = lists.map((own, i) => Math.max(0, ...lists.map((other, j) => (i === j ? 0 : common(own, other)))));
  const mean = shared.reduce((sum, length) => sum + length, 0) / rows.length;
  return { n: rows.length, distinct: new Set(rows.map((row) => row.text)).size, shared: mean.toFixed(1) };
}

function common(one, other) {
  let length = 0;
  while (length < one.length && one[length] === other[length]) length += 1;
  return length;
}

const element = (name, className, ...children) => {
  const made = document.createElement(name);
  made.className = className;
  made.append(...children);
  return made;
};

// The drawn tree of an arm. `actions(row)` makes the buttons of a path, `fork(text)` is called at a word.
export function draw(arm, actions, fork) {
  const root = branch(arm.rows);
  const tree = element("div", "tree", drawNode(root, "", arm, actions, fork, true));
  const first = tree.querySelector(".word");
  if (first) first.tabIndex = 0;
  return tree;
}

function drawNode(node, before, arm, actions, fork, isRoot = false) {
  const text = element("span", "seen"); // stays in sight while a wide tree is moved sideways
  if (isRoot) text.append(element("span", "given", arm.request.prompt));
  let so_far = before;
  for (const [place, piece] of node.words.entries()) {
    so_far += piece;
    const upTo = arm.request.prompt + so_far;
    // the space before a branch's first word stays in the text, but would only look like an indent
    const span = element("span", "word", place || isRoot ? piece : piece.trimStart() || piece);
    span.tabIndex = -1;
    span.role = "button";
    span.title = word("forkHere");
    span.dataset.path = node.rows[0].path ?? "";
    span.addEventListener("click", () => fork(upTo));
    text.append(span);
  }
  const drawn = element("div", "node", element("p", "text", text));
  drawn.style.setProperty("--leaves", leaves(node));
  if (node.children.length) {
    drawn.append(element("div", "branches",
      ...node.children.map((child) => drawNode(child, so_far, arm, actions, fork))));
    return drawn;
  }
  drawn.classList.add("leaf");
  for (const row of node.rows) {
    if (!row.finish) text.append(element("span", "cursor"));
    drawn.style.setProperty("--hue", String((row.index * 137.5) % 360)); // golden angle: neighbours differ most
    drawn.append(actions(row));
  }
  return drawn;
}

const leaves = (node) => node.children.reduce((sum, child) => sum + leaves(child), 0) || 1;
