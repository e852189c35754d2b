// The grid: the figures are made once, with the page, and moved about.

function arrange() {
  const shown = visible();
  main.dataset.size = size;
  main.replaceChildren(!shown.length ? nothing() : rows < 0 && columns < 0 ? gallery(shown) : table(shown));
  order = [...main.querySelectorAll("figure")].map(figure => cellOf.get(figure));
  if (order.length && !order.includes(current)) current = order[0];
  for (const cell of cells) cell.link.tabIndex = cell === current ? 0 : -1;
  find("output", form).textContent = `${order.length} of ${cells.length}`;
  controls();
}

function nothing() {
  const empty = names.filter((_, axis) => axes[axis].values.every(value => hidden[axis].has(value)));
  const why = empty.length ? `every value of ${empty.join(" and ")} is off` : "none was rendered with these values";
  const all = make("button", { type: "button", textContent: "Show all", onclick: showAll });
  return make("p", { className: "empty" }, `No picture: ${why}. `, all);
}

function showAll() { hidden.forEach(values => values.clear()); change(); }

function gallery(shown) {
  const telling = tellingAxes(shown);
  for (const cell of shown) caption(cell, telling, true);
  return make("div", { className: "gallery" }, ...shown.map(cell => cell.figure));
}

function table(shown) {
  const own = shown.filter(cell => !cell.reference), references = shown.filter(cell => cell.reference);
  const [down, across] = [used(rows, own), used(columns, own)];
  const [inRow, inColumn] = [rows, columns].map(axis => references.some(cell => cell.at[axis] === ALL));
  if (inColumn) across.push(ALL); else if (inRow) down.push(ALL);
  const places = grouped(shown, cell => `${cell.at[rows]} ${cell.at[columns]}`);
  const data = (row, column) => {
    const beside = inRow && column === ALL;  // one place beside all rows
    if (beside && row !== down[0]) return [];
    const place = placed(places.get(`${beside ? ALL : row} ${column}`) ?? []);
    return [make("td", beside ? { rowSpan: down.length, className: "beside" } : {}, place)];
  };
  const top = make("tr", {}, corner(), ...across.map(column => head(columns, column, "col")));
  const body = down.map(row => make("tr", {}, head(rows, row, "row"), ...across.flatMap(column => data(row, column))));
  return make("table", { className: columns < 0 ? "wide" : "" }, make("thead", {}, top), make("tbody", {}, ...body));
}

function used(axis, shown) {  // where there is no axis, its one value is undefined, as is every cell.at[-1]
  return axis < 0 ? [undefined] : [...new Set(shown.map(cell => cell.at[axis]))].sort((a, b) => a - b);
}

function grouped(all, key) {
  const groups = new Map();
  for (const one of all) {
    if (!groups.has(key(one))) groups.set(key(one), []);
    groups.get(key(one)).push(one);
  }
  return groups;
}

function head(axis, value, scope) {
  const text = axis < 0 ? "" : axes[axis].heads[value] ?? "converged";
  const inside = make("span", { textContent: text, title: axes[axis]?.values[value] ?? "" });
  soften(inside);
  return make("th", { scope }, inside);
}

function corner() {
  const named = [rows < 0 ? "" : names[rows] + " ↓", columns < 0 ? "" : names[columns] + " →"];
  return make("td", { className: "quiet corner" }, ...named.filter(Boolean).map(name => make("div", {}, name)));
}

// The pictures of one place: under each is what tells it from its neighbours, over them what they share as a group.

function placed(inside) {
  const telling = tellingAxes(inside), under = telling.filter(axis => axis === shortest(telling));
  const over = telling.filter(axis => !under.includes(axis));
  const place = make("div", { className: inside.length > 1 ? "place several" : "place" });
  if (inside.length > 1) place.append(...keptBy(inside));
  for (const group of grouped(inside, cell => over.map(axis => cell.at[axis]).join()).values()) {
    const heading = make("p", { className: "over", textContent: labels(group[0], over) });
    soften(heading);
    if (heading.textContent) place.append(heading);
    place.append(make("div", { className: "figures" }, ...group.map(cell => cell.figure)));
  }
  const mixed = inside.some(cell => cell.reference !== inside[0].reference);
  for (const cell of inside) caption(cell, under, mixed);
  return place;
}

const longest = axis => Math.max(...axes[axis].labels.map(label => label.length));
const shortest = chosen => chosen.reduce((a, b) => longest(b) < longest(a) ? b : a, chosen[0]);

function keptBy(inside) {  // of the words of their captions, by what is not a reference beside them
  const own = inside.filter(cell => cell.reference === inside[0].reference);
  const [kept, known] = [0, 1].map(i => own.reduce((sum, cell) => sum + cell.kept[i], 0));
  return known ? [make("p", { className: "sum" }, `${kept} of ${known} words kept`)] : [];
}

function tellingAxes(inside) {  // what tells pictures apart, in as few axes as will do
  const told = chosen => new Set(inside.map(cell => chosen.map(axis => cell.at[axis]).join())).size;
  let telling = names.map((_, axis) => axis).filter(axis => told([axis]) > 1);
  for (const axis of [...telling].reverse()) {
    const others = telling.filter(other => other !== axis);
    if (told(others) === told(telling)) telling = others;
  }
  return telling;
}

const labels = (cell, chosen) => chosen.filter(axis => cell.at[axis] !== ALL)
  .map(axis => axes[axis].labels[cell.at[axis]]).join(", ");

function caption(cell, telling, mixed) {
  const label = find(".differs", cell.figure), text = labels(cell, telling);
  label.textContent = [...mixed && cell.reference ? ["converged"] : [], ...text ? [text] : []].join(", ");
  label.hidden = !label.textContent;
  soften(label);
}
