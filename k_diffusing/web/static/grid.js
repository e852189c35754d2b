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

build();
readHash();
arrange();
addEventListener("hashchange", () => { readHash(); arrange(); });
