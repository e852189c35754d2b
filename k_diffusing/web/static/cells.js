// The pictures of the page, and the view of them that the address keeps.

const page = JSON.parse(find("#data").textContent), axes = page.axes, names = axes.map(axis => axis.name);
const main = find("main"), form = find("form"), tray = find("#tray"), view = find("#view"), compare = find("#compare");
const ALL = -1;  // the place, on an axis, of a picture that stands beside all its values: a converged reference
const SIZES = ["small", "medium", "large"];

const cells = [...document.querySelectorAll("figure")].map((figure, i) => ({
  ...page.cells[i], reference: page.cells[i].at.includes(ALL),
  figure, link: find("a", figure), mark: find(".mark", figure),
})).sort(inOrder);
const cellOf = new Map(cells.map(cell => [cell.figure, cell]));

let rows, columns;  // axes, or -1 for none
let hidden;  // for each axis the values that are off
let beside, size;  // whether references are shown, and one of SIZES
let order = cells, current = cells[0], opened, marked = [];

function inOrder(a, b) {  // by the first axis, then the second, ...; references at the end
  if (a.reference !== b.reference) return a.reference ? 1 : -1;
  const axis = a.at.findIndex((value, axis) => value !== b.at[axis]);
  return axis < 0 ? 0 : a.at[axis] - b.at[axis];
}

function readHash() {
  const hash = new URLSearchParams(location.hash.slice(1));
  const axis = kind => names.indexOf(hash.has(kind) ? hash.get(kind) : page[kind]);
  [rows, columns] = [axis("rows"), axis("columns")];
  if (rows === columns) columns = -1;
  hidden = names.map(name => new Set(hash.getAll("hide." + name)));
  beside = hash.get("converged") !== "off";
  size = SIZES.includes(hash.get("size")) ? hash.get("size") : "medium";
}

function writeHash() {
  const hash = new URLSearchParams();
  for (const [kind, axis] of [["rows", rows], ["columns", columns]])
    if (axis !== names.indexOf(page[kind])) hash.set(kind, names[axis] ?? "");
  names.forEach((name, axis) => hidden[axis].forEach(value => hash.append("hide." + name, value)));
  if (!beside) hash.set("converged", "off");
  if (size !== "medium") hash.set("size", size);
  history.replaceState(null, "", "#" + hash);
}

function change() { writeHash(); arrange(); }

function visible() {
  const on = (value, axis) => value === ALL || !hidden[axis].has(axes[axis].values[value]);
  const found = cells.filter(cell => cell.at.every(on)), own = found.filter(cell => !cell.reference);
  if (!own.length) return cells.some(cell => !cell.reference) ? [] : found;
  return beside ? found : own;
}

function referenceOf(cell) {  // what it converges to
  return cells.find(other => other.reference && other !== cell
    && other.at.every((value, axis) => value === ALL || value === cell.at[axis]));
}
