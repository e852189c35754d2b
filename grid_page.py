"""A grid of rendered pictures as one HTML page: rows, columns, filters, full size, and two pictures compared.

grid_page("sdxl-shapes", cells)    # str: thumbnails are inside, the pictures themselves lie beside the page
"""

import base64
import io
import json
from html import escape
from pathlib import Path
from urllib.parse import quote

from PIL import Image

THUMBNAIL = 256  # pixels, the longest side; smaller pictures are embedded as they are
NARROWEST = 160  # CSS pixels: narrower thumbnails are enlarged to this
LABEL = 60  # letters of a value that label a picture; the whole value is among its settings
EMBEDDED_AS_THEY_ARE = ("PNG", "WEBP", "JPEG", "GIF")
# file: because a page opened as a file has no origin that 'self' must match; a page from a server cannot use it.
POLICY = (
    "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)

CSS = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b1f24; --quiet: #58616b; --line: #d5dae0; --raised: #f3f5f7;
  --a: #2166ac; --b: #c4571a; }
@media (prefers-color-scheme: dark) { :root { --paper: #15181c; --ink: #e4e7eb; --quiet: #9aa4af; --line: #363d45;
  --raised: #20252b; --a: #74b3f0; --b: #f2a15f; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
:focus-visible { outline: 3px solid var(--a); outline-offset: 1px; }
body { display: flex; flex-direction: column; height: 100vh; height: 100dvh; margin: 0; background: var(--paper);
  color: var(--ink); font: 1rem/1.45 system-ui, sans-serif; overflow-wrap: anywhere; }
h1 { margin: 0; font-size: 1.35rem; line-height: 1.25; }
h2 { margin: 0; font-size: 1.1rem; }
p { margin: .25rem 0; }
code, pre { font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .85em; }
small, .quiet { color: var(--quiet); font-size: .85rem; }
button, select { font: inherit; font-size: .9rem; padding: .3rem .7rem; border: 1px solid var(--line);
  border-radius: .4rem; background: var(--raised); color: inherit; cursor: pointer; max-width: 100%; }
button:disabled { color: var(--quiet); cursor: default; }
header { padding: .8rem 1rem .5rem; max-height: 60dvh; overflow: auto; flex: none;
  border-bottom: 1px solid var(--line); }
.fixed { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 2; overflow: hidden; }
form, .axes, .chips { display: flex; flex-wrap: wrap; align-items: center; gap: .25rem 1.25rem; }
details { flex-basis: 100%; min-width: 0; }
summary { cursor: pointer; padding: .3rem 0; }
.axis { display: flex; align-items: baseline; gap: .6rem; }
.axis > span { flex: none; }
.axis { max-width: 100%; }
.chips { min-width: 0; gap: .3rem; max-height: 8rem; overflow: auto; padding: 4px; }
.axis button { font-size: .8rem; padding: .1rem .5rem; background: none; color: var(--quiet); }
.chip input { position: absolute; opacity: 0; width: 1px; height: 1px; }
.chip { position: relative; cursor: pointer; max-width: 100%; }
.chip span { display: block; padding: .1rem .65rem; border: 1px solid var(--line); border-radius: 1rem;
  font-size: .85rem; color: var(--quiet); text-decoration: line-through; max-width: 22rem; white-space: nowrap;
  overflow: hidden; text-overflow: ellipsis; }
.chip input:checked + span { color: var(--ink); background: var(--raised); border-color: var(--quiet);
  text-decoration: none; }
.chip input:focus-visible + span { outline: 3px solid var(--a); outline-offset: 1px; }
main { flex: 1; min-height: 0; overflow: auto; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(11.5rem, 46%), 1fr)); gap: .5rem;
  padding: .75rem; }
figure { position: relative; margin: 0; padding: .25rem; }
.gallery figure { content-visibility: auto; contain-intrinsic-size: auto 12rem auto 15rem; }
.place figure { width: calc(var(--w) * 1px + .5rem); }
.place figure:not(:only-child) { --w: 160 !important; }
figure > a { display: block; }
figure img { display: block; width: 100%; height: auto; border-radius: 2px; background: var(--raised); }
figcaption { padding-top: .2rem; font-size: .9rem; line-height: 1.3; }
.differs { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 3; overflow: hidden; }
.mark { position: absolute; top: .55rem; right: .55rem; display: grid; place-items: center; width: 2rem; height: 2rem;
  padding: 0; border: 1px solid #fff8; border-radius: .4rem; background: #15181ccc; color: #fff; opacity: 0;
  font-weight: 700; }
.mark:empty::before { content: ""; width: 1rem; height: .8rem; border: 2px solid;
  background: linear-gradient(90deg, currentColor 50%, transparent 50%); }
figure:hover .mark, figure:focus-within .mark, .mark[aria-pressed="true"] { opacity: 1; }
@media (hover: none) { .mark { opacity: .8; } }
.mark[aria-pressed="true"], .letter { background: var(--tone); color: var(--paper); }
.letter { padding: 0 .45rem; border-radius: .3rem; font-weight: 700; }
.a { --tone: var(--a); } .b { --tone: var(--b); }
figure.a, figure.b { box-shadow: inset 0 0 0 3px var(--tone); border-radius: .3rem; }
main table { border-collapse: separate; border-spacing: 0; width: max-content; }
main th { position: sticky; z-index: 1; background: var(--paper); padding: .4rem .6rem; text-align: left;
  font-weight: 600; font-size: .9rem; }
main thead th { top: 0; z-index: 2; border-bottom: 1px solid var(--line); }
main tbody th, main thead th:first-child { left: 0; border-right: 1px solid var(--line); }
main thead th:first-child { z-index: 3; font-weight: 400; }
main tbody th, main td { vertical-align: top; border-bottom: 1px solid var(--line); }
main td { padding: .25rem; }
main th span { display: -webkit-box; -webkit-box-orient: vertical; -webkit-line-clamp: 6; overflow: hidden;
  width: max-content; max-width: 12rem; }
.place { display: flex; flex-wrap: wrap; gap: .25rem; width: max-content; max-width: 34rem; }
.wide .place { max-width: calc(100vw - 14rem); }
.empty { padding: 2rem 1rem; }
#tray { display: flex; flex-wrap: wrap; align-items: center; gap: .4rem .8rem; padding: .5rem 1rem; flex: none;
  border-top: 1px solid var(--line); background: var(--raised); font-size: .9rem; }
#tray [role="status"] { display: flex; flex-wrap: wrap; gap: .2rem 1rem; flex: 1 1 10rem; }
dialog { padding: 0; border: 1px solid var(--line); border-radius: .6rem; background: var(--paper); color: inherit;
  max-width: min(96vw, 90rem); max-height: 96dvh; overflow: auto; }
dialog::backdrop { background: #000b; }
dialog > div { padding: 1rem; }
dialog .bar { display: flex; flex-wrap: wrap; align-items: center; gap: .5rem; margin-bottom: .75rem; }
dialog .bar h2 { flex: 1 1 12rem; }
.columns { display: grid; gap: 1rem 2rem; --room: 100%; }
@media (min-width: 900px) { .columns { grid-template-columns: auto 22rem; --room: 96vw - 27rem; } }
.full, .compared { width: min(var(--room), max(24rem, var(--w) * 1px), 78dvh * var(--w) / var(--h)); }
.full img, .wipe { display: block; width: 100%; aspect-ratio: var(--w) / var(--h); }
.told { min-width: 0; }
.told h3 { margin: 1rem 0 .3rem; font-size: .95rem; }
.told h3:first-child { margin-top: 0; }
dl { display: grid; grid-template-columns: fit-content(45%) minmax(0, 1fr); gap: .15rem 1rem; margin: 0;
  font-size: .9rem; }
dt { color: var(--quiet); }
dd { margin: 0; white-space: pre-wrap; }
pre { margin: 0 0 .4rem; padding: .5rem .7rem; background: var(--raised); border-radius: .4rem; white-space: pre-wrap; }
.wipe { position: relative; cursor: ew-resize; touch-action: pan-y; user-select: none; --cut: 50%; }
.wipe img { position: absolute; width: 100%; height: 100%; object-fit: contain; }
.wipe img + img { clip-path: inset(0 0 0 var(--cut)); }
.wipe img:first-child { clip-path: inset(0 calc(100% - var(--cut)) 0 0); }
.wipe::after { content: ""; position: absolute; inset: 0 auto 0 var(--cut); width: 2px; margin-left: -1px;
  background: #fff; box-shadow: 0 0 0 1px #0008; }
.compared input { display: block; width: calc(100% + 16px); height: 1.5rem; margin: .4rem -8px;
  accent-color: var(--ink); cursor: ew-resize; }
.names { display: grid; grid-template-columns: 1fr 1fr; gap: 1.5rem; font-size: .9rem; }
.names > :last-child { text-align: right; }
.told table { border-collapse: collapse; table-layout: fixed; width: 100%; margin-bottom: .8rem; font-size: .9rem; }
.told th, .told td { padding: .25rem .5rem .25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); font-weight: 400; white-space: pre-wrap; }
.told th:first-child { width: max(25%, 6rem); }
.told tbody th { color: var(--quiet); }
@media (max-width: 600px) {
  main th { padding: .4rem; font-size: .8rem; }
  main th span { max-width: 5.5rem; }
  form { gap: .35rem .6rem; }
  select { max-width: 6.5rem; padding-inline: .3rem; }
  .place { max-width: 22rem; }
  .wide .place { max-width: calc(100vw - 7rem); }
  .keys { display: none; }
}
@media (max-height: 500px) { body { height: auto; } main { flex: none; height: 100dvh; } header { max-height: none; } }
@media print { body { height: auto; } main { overflow: visible; } form, #tray, .mark { display: none; } }
"""

SCRIPT = """
const find = (selector, root = document) => root.querySelector(selector);
const page = JSON.parse(find("#data").textContent), axes = page.axes, names = axes.map(axis => axis.name);
const main = find("main"), form = find("form"), tray = find("#tray"), view = find("#view"), compare = find("#compare");
const cells = [...document.querySelectorAll("figure")].map((figure, i) =>
  ({ ...page.cells[i], figure, link: find("a", figure), mark: find(".mark", figure) }));
const cellOf = new Map(cells.map(cell => [cell.figure, cell]));
let rows, columns, hidden;  // axes, or -1 for none; for each axis the values that are off
let order = cells, current = cells[0], opened, marked = [];

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// The view, and the hash that keeps it.

function readHash() {
  const hash = new URLSearchParams(location.hash.slice(1));
  const axis = (kind) => names.indexOf(hash.has(kind) ? hash.get(kind) : page[kind]);
  [rows, columns] = [axis("rows"), axis("columns")];
  if (rows === columns) columns = -1;
  hidden = names.map(name => new Set(hash.getAll("hide." + name)));
}

function writeHash() {
  const hash = new URLSearchParams();
  for (const [kind, axis] of [["rows", rows], ["columns", columns]])
    if (axis !== names.indexOf(page[kind])) hash.set(kind, names[axis] ?? "");
  names.forEach((name, axis) => hidden[axis].forEach(value => hash.append("hide." + name, value)));
  history.replaceState(null, "", "#" + hash);
}

function change() { writeHash(); arrange(); }

// The grid: the figures are made once, with the page, and moved about.

function arrange() {
  const shown = cells.filter(cell => cell.at.every((value, axis) => !hidden[axis].has(axes[axis].values[value])));
  const laidOut = !shown.length ? nothing() : rows < 0 && columns < 0 ? gallery(shown) : table(shown);
  main.replaceChildren(laidOut);
  order = [...main.querySelectorAll("figure")].map(figure => cellOf.get(figure));
  if (shown.length && !shown.includes(current)) current = order[0];
  for (const cell of cells) cell.link.tabIndex = cell === current ? 0 : -1;
  find("output", form).textContent = `${shown.length} of ${cells.length}`;
  controls();
}

function nothing() {
  const empty = names.filter((_, axis) => axes[axis].values.every(value => hidden[axis].has(value)));
  const why = empty.length ? `every value of ${empty.join(" and ")} is off` : "none was rendered with these values";
  const all = make("button", { type: "button", textContent: "Show all", onclick: showAll });
  return make("p", { className: "empty" }, `No picture: ${why}. `, all);
}

function showAll() { hidden.forEach(values => values.clear()); change(); }

function gallery(shown) { return make("div", { className: "gallery" }, ...labelled(shown)); }

function labelled(inside) {  // figures that share a place, each with what sets it apart, in as few axes as will do
  const told = chosen => new Set(inside.map(cell => chosen.map(axis => cell.at[axis]).join())).size;
  let differing = names.map((_, axis) => axis).filter(axis => told([axis]) > 1);
  for (const axis of [...differing].reverse()) {
    const others = differing.filter(other => other !== axis);
    if (told(others) === told(differing)) differing = others;
  }
  for (const cell of inside) {
    const label = find(".differs", cell.figure);
    label.textContent = label.title = differing.map(axis => axes[axis].labels[cell.at[axis]]).join(", ");
  }
  return inside.map(cell => cell.figure);
}

function table(shown) {
  // Where there is no axis, its one value is undefined, as is every cell.at[-1].
  const used = axis => axis < 0 ? [undefined] : [...new Set(shown.map(cell => cell.at[axis]))].sort((a, b) => a - b);
  const head = (axis, value, scope) => {
    const text = axis < 0 ? "" : axes[axis].values[value];
    return make("th", { scope }, make("span", { textContent: text, title: text }));
  };
  const [down, across] = [used(rows), used(columns)], places = new Map();
  for (const cell of shown) {
    const place = `${cell.at[rows]} ${cell.at[columns]}`;
    places.set(place, [...places.get(place) ?? [], cell]);
  }
  const place = (row, column) => make("div", { className: "place" }, ...labelled(places.get(`${row} ${column}`) ?? []));
  const named = [rows < 0 ? "" : names[rows] + " ↓", columns < 0 ? "" : names[columns] + " →"];
  const corner = make("th", { className: "quiet" }, make("span", {}, named.filter(Boolean).join(" ")));
  const top = make("tr", {}, corner, ...across.map(column => head(columns, column, "col")));
  const body = down.map(row => make("tr", {}, head(rows, row, "row"),
    ...across.map(column => make("td", {}, place(row, column)))));
  return make("table", { className: columns < 0 ? "wide" : "" }, make("thead", {}, top), make("tbody", {}, ...body));
}

// Rows, columns and filters.

function build() {
  const choice = kind => {
    const offered = names.map((name, axis) => new Option(name, axis));
    const select = make("select", { name: kind }, ...offered, new Option("none", -1));
    select.onchange = () => choose(kind, Number(select.value));
    return make("label", {}, kind + " ", select);
  };
  const filters = make("details", { open: matchMedia("(min-width: 700px) and (min-height: 600px)").matches },
    make("summary", {}, "Filter: ", make("output", {}), " shown"),
    make("div", { className: "axes" }, ...axes.map(filter)));
  const keys = make("span", { className: "quiet keys" }, "Enter: full size · c: mark to compare · arrows: move");
  form.append(...names.length > 1 ? [choice("rows"), choice("columns")] : [], keys, filters);
  form.hidden = cells.length < 2;
}

function filter(axis, i) {
  const chips = axis.values.map(value => {
    const box = make("input", { type: "checkbox", value });
    box.onchange = () => { hidden[i][box.checked ? "delete" : "add"](value); change(); };
    return make("label", { className: "chip", title: value }, box, make("span", {}, value));
  });
  const all = make("button", { type: "button" });
  all.onclick = () => { hidden[i] = new Set(hidden[i].size ? [] : axis.values); change(); };
  const group = make("div", { className: "axis", role: "group", ariaLabel: axis.name });
  group.append(make("span", { className: "quiet" }, axis.name), make("div", { className: "chips" }, ...chips, all));
  return group;
}

function choose(kind, axis) {  // the axis of the other kind changes places
  const before = [rows, columns];
  if (kind === "rows") rows = axis; else columns = axis;
  if (axis >= 0 && rows === columns) [rows, columns] = before.reverse();
  change();
}

function controls() {
  for (const select of form.querySelectorAll("select")) select.value = select.name === "rows" ? rows : columns;
  form.querySelectorAll(".axis").forEach((group, axis) => {
    for (const box of group.querySelectorAll("input")) box.checked = !hidden[axis].has(box.value);
    const all = find("button", group);
    all.textContent = hidden[axis].size ? "all" : "none";
    all.ariaLabel = `${names[axis]}: show ${all.textContent}`;
  });
}

// By keyboard through the grid.

function neighbour(cell, key) {
  const i = order.indexOf(cell);
  if (key === "ArrowLeft" || key === "ArrowRight") return order[i + (key === "ArrowLeft" ? -1 : 1)];
  const step = key === "ArrowUp" ? -1 : 1, place = cell.figure.closest("td");
  const inLine = other => other.figure.offsetTop === order[0].figure.offsetTop;
  if (!place) return order[i + step * order.filter(inLine).length];
  const nth = [...place.querySelectorAll("figure")].indexOf(cell.figure), lines = [...find("tbody", main).rows];
  for (let line = lines.indexOf(place.parentNode) + step; lines[line]; line += step) {
    const found = lines[line].cells[place.cellIndex].querySelectorAll("figure");
    if (found.length) return cellOf.get(found[Math.min(nth, found.length - 1)]);
  }
}

function focus(cell) {
  current.link.tabIndex = -1;
  current = cell;
  current.link.tabIndex = 0;
  current.link.focus({ preventScroll: true });
  current.figure.scrollIntoView({ block: "nearest", inline: "nearest" });
}

const plain = event => !(event.ctrlKey || event.metaKey || event.altKey || event.shiftKey);
const touched = event => cellOf.get(event.target.closest("figure"));

main.addEventListener("keydown", event => {
  const cell = touched(event);
  if (!cell || !plain(event)) return;
  if (event.key === "c") mark(cell);
  if (!event.key.startsWith("Arrow")) return;
  event.preventDefault();
  const next = neighbour(cell, event.key);
  if (next) focus(next);
});
main.addEventListener("click", event => {
  const cell = touched(event);
  if (cell && event.target.closest(".mark")) mark(cell);
  else if (cell && event.target.closest("a") && plain(event)) { event.preventDefault(); open(cell); }
});
main.addEventListener("focusin", event => {
  const cell = touched(event);
  if (cell) { current.link.tabIndex = -1; current = cell; cell.link.tabIndex = 0; }
});

// One picture at full size.

function picture(image, cell) {
  const missing = find(".missing", image.closest("dialog"));
  image.onerror = () => {
    image.onerror = null;
    image.src = find("img", cell.figure).src;
    missing.textContent = "A picture's file is not beside this page: its thumbnail is shown. ";
  };
  image.src = cell.link.href;
  image.alt = cell.label;
}

function sized(element, ...shown) {
  const [width, height] = shown.map(cell => cell.size).sort((a, b) => b[0] * b[1] - a[0] * a[1])[0];
  element.style.setProperty("--w", width);
  element.style.setProperty("--h", height);
}

const pairs = entries => entries.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]);

function open(cell) {
  opened = cell;
  find("h2", view).textContent = cell.label;
  find(".missing", view).textContent = find("[role=status]", view).textContent = "";
  sized(find(".full", view), cell);
  picture(find("img", view), cell);
  find(".settings", view).replaceChildren(...pairs(cell.settings));
  find(".results", view).replaceChildren(...pairs(cell.results));
  find("pre", view).textContent = cell.command;
  const i = order.indexOf(cell);
  find(".previous", view).disabled = i <= 0;
  find(".next", view).disabled = i < 0 || i === order.length - 1;
  if (!view.open) { view.showModal(); view.focus(); }
}

function step(key) {
  const next = neighbour(opened, key);
  if (next) open(next);
}

view.addEventListener("keydown", event => {
  if (!plain(event)) return;
  if (event.key === "ArrowLeft" || event.key === "ArrowRight") { event.preventDefault(); step(event.key); }
  if (event.key === "c") markOpen();
});
view.addEventListener("close", () => { if (!compare.open) focus(opened); });
find(".previous", view).onclick = () => step("ArrowLeft");
find(".next", view).onclick = () => step("ArrowRight");
find(".mark-open", view).onclick = markOpen;
find(".copy", view).onclick = async () => {
  const command = find("pre", view), said = find("[role=status]", view);
  try {
    await navigator.clipboard.writeText(command.textContent);
    said.textContent = "copied";
  } catch {  // no permission, or an old browser
    getSelection().selectAllChildren(command);
    said.textContent = "selected: copy it with Ctrl+C or Cmd+C";
  }
};
for (const dialog of [view, compare]) {
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });  // the backdrop
  find(".close", dialog).onclick = () => dialog.close();
}

// Two pictures compared: a stays, b is replaced.

function markOpen() { view.close(); mark(opened); }

function mark(cell) {
  marked = marked.includes(cell) ? marked.filter(other => other !== cell) : [...marked.slice(0, 1), cell];
  showMarks();
  if (marked.length === 2 && marked[1] === cell) openComparison();
}

function showMarks() {
  cells.forEach(cell => {
    const letter = "ab"[marked.indexOf(cell)] ?? "";
    cell.figure.className = cell.mark.textContent = letter;
    cell.mark.ariaPressed = letter !== "";
  });
  tray.hidden = !marked.length;
  find(".again", tray).hidden = marked.length < 2;
  find("[role=status]", tray).replaceChildren(...marked.map((cell, i) => tag("ab"[i], cell)),
    marked.length < 2 ? "Mark another picture to compare it with." : "");
}

const tag = (letter, cell) => make("span", {}, make("b", { className: `letter ${letter}` }, letter), ` ${cell.label}`);

const wipe = find(".wipe"), slider = find(".compared input");
function showCut() {
  const [a, b] = [slider.value == 100, slider.value == 0];
  wipe.style.setProperty("--cut", slider.value + "%");
  const both = `a in the left ${slider.value} %, b in the rest`;
  slider.setAttribute("aria-valuetext", a ? "a alone" : b ? "b alone" : both);
}
function flip() { slider.value = slider.value == 100 ? 0 : 100; showCut(); }
function drag(event) {
  if (!event.buttons) return;
  const box = wipe.getBoundingClientRect();
  wipe.setPointerCapture(event.pointerId);
  slider.value = 100 * (event.clientX - box.left) / box.width;
  showCut();
}

function openComparison() {
  find(".missing", compare).textContent = "";
  sized(find(".compared"), ...marked);
  wipe.querySelectorAll("img").forEach((image, i) => picture(image, marked[i]));
  find(".names").replaceChildren(...marked.map((cell, i) => tag("ab"[i], cell)));
  const same = find(".same", compare);
  for (const kind of ["settings", "results"]) {
    const lines = differences(...marked.map(cell => new Map(cell[kind])));
    const section = find(`.${kind}`, compare);
    section.hidden = !lines.length;
    find("tbody", section).replaceChildren(...lines);
    if (kind === "settings") same.hidden = lines.length > 0;
  }
  slider.value = 50;
  showCut();
  compare.showModal();
  slider.focus();
}

function differences(a, b) {
  return [...new Set([...a.keys(), ...b.keys()])].filter(name => a.get(name) !== b.get(name)).map(name => make("tr", {},
    make("th", { scope: "row" }, name), make("td", {}, a.get(name) ?? ""), make("td", {}, b.get(name) ?? "")));
}

slider.oninput = showCut;
for (const kind of ["pointerdown", "pointermove"]) wipe.addEventListener(kind, drag);
wipe.addEventListener("pointerup", () => slider.focus());
compare.addEventListener("keydown", event => {
  if (event.key !== " " || event.target.closest("button")) return;  // a button has its own use for the key
  event.preventDefault();
  flip();
});
find(".flip").onclick = flip;
find(".again").onclick = openComparison;
find(".clear").onclick = () => { marked = []; showMarks(); focus(current); };

build();
readHash();
arrange();
addEventListener("hashchange", () => { readHash(); arrange(); });
"""

DIALOGS = """
<div id="tray" hidden><span role="status"></span><button type="button" class="again">Compare</button>
<button type="button" class="clear">Clear</button></div>
<dialog id="view" aria-labelledby="viewed" tabindex="-1"><div>
<div class="bar"><h2 id="viewed"></h2><button type="button" class="mark-open" title="c">Mark to compare</button>
<button type="button" class="previous" aria-label="previous picture" title="left arrow">←</button>
<button type="button" class="next" aria-label="next picture" title="right arrow">→</button>
<button type="button" class="close" title="Escape">Close</button></div>
<div class="columns"><div class="full"><img alt=""><p class="quiet missing" role="alert"></p></div>
<div class="told"><h3>Settings</h3><dl class="settings"></dl><h3>Result</h3><dl class="results"></dl>
<h3>Rendered again by</h3><pre></pre><button type="button" class="copy">Copy</button>
<span class="quiet" role="status"></span></div></div>
</div></dialog>
<dialog id="compare" aria-labelledby="both"><div>
<div class="bar"><h2 id="both">Two pictures</h2><button type="button" class="flip" title="space">Flip</button>
<button type="button" class="close" title="Escape">Close</button></div>
<div class="columns"><div class="compared">
<div class="wipe"><img alt="" draggable="false"><img alt="" draggable="false"></div>
<input type="range" aria-label="Wipe: a left of the line, b right of it"><div class="names"></div>
<p class="quiet missing" role="alert"></p></div>
<div class="told"><h3>What differs</h3><p class="same">Their settings are the same.</p>
<table class="settings"><thead><tr><th>setting</th><th scope="col"><b class="letter a">a</b></th>
<th scope="col"><b class="letter b">b</b></th></tr></thead><tbody></tbody></table>
<table class="results"><thead><tr><th>result</th><th scope="col"><b class="letter a">a</b></th>
<th scope="col"><b class="letter b">b</b></th></tr></thead><tbody></tbody></table></div></div>
</div></dialog>
"""


def grid_page(title: str, cells: list[dict]) -> str:
    """One HTML page that shows every cell's picture; nothing is fetched but the pictures' own files, at full size.

    A cell: `file`, the picture's path relative to the page; `picture`, where it is now; `axes`, `settings` and
    `result`, each {name: value}; `command`, which renders it again. An axis is offered as rows, columns and filter
    if it has several values; a cell without it has None there. Raises ValueError if there are no cells or a `file`
    is not a relative path, OSError if a picture cannot be read.
    """
    if not cells:
        raise ValueError("cells is empty: a page needs at least one picture")
    axes = _axes(cells)
    rows, columns = _rows_and_columns(cells, axes)
    figures, records = [], []
    for cell in cells:
        uri, size = _thumbnail(cell["picture"])
        record = {**_record(cell, axes), "size": size}
        figures.append(_figure(cell, record, uri))
        records.append(record)
    offered = [{"name": name, "values": list(found), "labels": list(found.values())} for name, found in axes.items()]
    data = {"axes": offered, "rows": rows, "columns": columns, "cells": records}
    return "\n".join(
        [
            '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f'<link rel="icon" href="data:,">\n<title>{escape(title)}</title>\n<style>{CSS}</style>',
            "<noscript><style>.mark { display: none; }</style></noscript>\n</head>\n<body>",
            f"<header>\n<h1>{escape(title)}</h1>\n{_fixed(cells, axes)}\n<form hidden></form>\n</header>",
            '<main aria-label="Pictures">\n<div class="gallery">',
            *figures,
            f"</div>\n</main>{DIALOGS}",
            f'<script type="application/json" id="data">{_json(data)}</script>',
            f"<script>{SCRIPT}</script>\n</body>\n</html>\n",
        ]
    )


def _axes(cells: list[dict]) -> dict[str, dict[str, str]]:
    """The axes with several values, {name: {value: its label}}: numbers by size, others as they come."""
    axes = {}
    for name in dict.fromkeys(name for cell in cells for name in cell["axes"]):
        values = list(dict.fromkeys(cell["axes"].get(name) for cell in cells))
        if all(isinstance(value, int | float | None) for value in values):
            values.sort(key=lambda value: (value is not None, value or 0))
        labels = {_text(value): _label(name, value) for value in values}
        if len(labels) > 1:
            axes[name] = labels
    return axes


def _label(name: str, value) -> str:
    """A value under a picture: a number needs the axis's name, a word says itself what it is."""
    text = _text(value) if isinstance(value, str) else f"{name} {_text(value)}"
    return text if len(text) <= LABEL else f"{text[: LABEL - 1]}…"


def _rows_and_columns(cells: list[dict], axes: dict) -> tuple[str | None, str | None]:
    """Samplers against the first axis of which a sampler has several values; if there is none, a plain gallery."""
    rows = "sampler" if "sampler" in axes else next(iter(axes), None)
    for name in axes:
        pairs = {(cell["axes"].get(rows), cell["axes"].get(name)) for cell in cells}
        if len(pairs) > len(axes[rows]):
            return rows, name
    return None, None


def _text(value, digits: int = 10) -> str:
    """A value as a reader would write it."""
    match value:
        case None:
            return "(none)"
        case "":
            return "(empty)"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.{digits}g}"
        case dict():
            return ", ".join(f"{name}: {_text(inner, digits)}" for name, inner in value.items())
        case list() | tuple():
            return ", ".join(_text(inner, digits) for inner in value)
    return str(value)


def _record(cell: dict, axes: dict) -> dict:
    """What the script is told of a cell, all of it text; at: the place of its value on each axis."""
    texts = {name: _text(cell["axes"].get(name)) for name in axes}
    settings = {name: _text(value) for name, value in {**cell["axes"], **cell["settings"]}.items()}
    return {
        "at": [list(axes[name]).index(text) for name, text in texts.items()],
        "label": ", ".join(axes[name][text] for name, text in texts.items()) or Path(cell["file"]).name,
        "settings": list(settings.items()),
        "results": [(name, _text(value, digits=4)) for name, value in cell["result"].items()],
        "command": cell["command"],
    }


def _thumbnail(path: Path) -> tuple[str, tuple[int, int]]:
    """A data URI and the picture's own size. A small picture of a kind that browsers know is embedded as it is."""
    with Image.open(path) as picture:
        size, kind, small = picture.size, picture.format, max(picture.size) <= THUMBNAIL
        if small and kind in EMBEDDED_AS_THEY_ARE:
            return _data_uri(path.read_bytes(), kind), size
        shown = picture.convert("RGBA" if picture.has_transparency_data else "RGB")
    shown.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, reducing_gap=3)
    buffer = io.BytesIO()
    shown.save(buffer, format="WEBP", quality=82, method=2)
    return _data_uri(buffer.getvalue(), "WEBP"), size


def _data_uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind.lower()};base64,{base64.b64encode(data).decode()}"


def _figure(cell: dict, record: dict, uri: str) -> str:
    """A picture, a link to its file, the button that marks it, and its caption."""
    width, height = record["size"]
    shown = max(NARROWEST, round(width * min(1, THUMBNAIL / max(width, height))))
    label = escape(record["label"])
    evaluations = cell["result"].get("evaluations")
    note = "" if evaluations is None else f"<small>{escape(_text(evaluations))} evaluations</small>"
    return f"""<figure style="--w: {shown}"><a href="{_address(cell["file"])}">\
<img loading="lazy" decoding="async" width="{width}" height="{height}" alt="{label}" src="{uri}"></a>\
<button type="button" class="mark" tabindex="-1" aria-pressed="false" aria-label="compare: {label}" \
title="compare (c)"></button><figcaption><span class="differs">{label}</span>{note}</figcaption></figure>"""


def _address(file: str) -> str:
    """A relative path as a URL that cannot name another host or a scheme."""
    if file.startswith("/") or not file:
        raise ValueError(f"file {file!r} is not relative: give the picture's path from the page's folder")
    return escape(quote(file))


def _fixed(cells: list[dict], axes: dict) -> str:
    """How many pictures, and what they share."""
    first = cells[0]["axes"].items()
    shared = [f"{name} {_text(value)}" for name, value in first if name not in axes and value is not None]
    count = f"{len(cells)} picture" + "s" * (len(cells) > 1)
    text = escape(" · ".join([count, *shared]))
    return f'<p class="quiet fixed" title="{text}">{text}</p>'


def _json(data: dict) -> str:
    """JSON that cannot end the script element it stands in."""
    return json.dumps(data, separators=(",", ":")).replace("<", "\\u003c")
