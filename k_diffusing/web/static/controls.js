// Rows, columns, values and filters.

function build() {
  const several = names.length > 1;
  const keys = make("span", { className: "quiet keys" },
    "Enter: full size · c: mark to compare · arrows: move · in the filter double click or Enter: that value alone");
  const wide = matchMedia("(min-width: 700px) and (min-height: 600px)").matches;
  const filters = make("details", { open: wide },
    make("summary", {}, "Filter: ", make("output", {}), " shown"),
    make("div", { className: "axes" }, ...axes.map(filter)));
  const ones = tellingAxes(cells).map(one);  // an axis that follows from others needs no choice of its own
  form.append(...several ? [laid("rows"), laid("columns"), ...ones] : [], sizes(), besideAll(), keys, filters);
  form.hidden = cells.length < 2;
}

function choice(name, options, chosen) {
  const select = make("select", { name }, ...options);
  select.onchange = () => { chosen(select.value); change(); };
  return make("label", {}, name + " ", select);
}

function laid(kind) {
  const offered = [...names.map((name, axis) => new Option(name, axis)), new Option("none", -1)];
  return choice(kind, offered, value => lay(kind, Number(value)));
}

function lay(kind, axis) {  // the axis of the other kind changes places
  const before = [rows, columns];
  if (kind === "rows") rows = axis; else columns = axis;
  if (axis >= 0 && rows === columns) [rows, columns] = before.reverse();
}

function one(i) {  // of an axis that is neither: all its values, or one
  const axis = axes[i];
  const some = make("option", { value: "some", hidden: true });
  const values = axis.heads.map((head, place) => new Option(head, place));
  const label = choice(axis.name, [new Option("all", ""), some, ...values], place => only(i, axis.values[place]));
  label.className = "one";
  label.dataset.axis = i;
  return label;
}

function only(axis, value) {  // all of them if it is none of them
  const { values } = axes[axis];
  hidden[axis] = new Set(values.includes(value) ? values.filter(other => other !== value) : []);
}

const alone = (axis, value) => !hidden[axis].has(value) && hidden[axis].size === axes[axis].values.length - 1;

function sizes() {
  const label = choice("size", SIZES.map(name => new Option(name)), value => { size = value; });
  label.className = "size";
  return label;
}

function besideAll() {
  const button = make("button", { type: "button", className: "beside-all", textContent: "Converged" });
  button.title = "what the samplers converge to, beside their pictures";
  button.hidden = !cells.some(cell => cell.reference) || cells.every(cell => cell.reference);
  button.onclick = () => { beside = !beside; change(); };
  return button;
}

function filter(axis, i) {
  const all = make("button", { type: "button", className: "all" });
  all.onclick = () => { hidden[i] = new Set(hidden[i].size ? [] : axis.values); change(); };
  const chips = axis.values.map((value, place) => chip(i, value, axis.heads[place]));
  const group = make("div", { className: "axis", role: "group", ariaLabel: axis.name });
  group.append(make("span", { className: "quiet" }, axis.name), make("div", { className: "chips" }, ...chips, all));
  return group;
}

function chip(axis, value, text) {
  const box = make("input", { type: "checkbox", value });
  const isolate = () => { only(axis, alone(axis, value) ? undefined : value); change(); };
  box.onchange = () => { hidden[axis][box.checked ? "delete" : "add"](value); change(); };
  box.onkeydown = event => { if (event.key === "Enter") { event.preventDefault(); isolate(); } };
  return make("label", { className: "chip", title: value, ondblclick: isolate }, box, make("span", {}, text));
}

// Each control shows what is so, whatever changed it.

function controls() {
  const [down, across] = form.querySelectorAll("select");
  if (names.length > 1) [down.value, across.value] = [rows, columns];
  form.querySelectorAll(".one").forEach(sayOne);
  find(".size select", form).value = size;
  find(".beside-all", form).ariaPressed = beside;
  form.querySelectorAll(".axis").forEach(sayFilter);
}

function sayOne(label) {
  const axis = Number(label.dataset.axis), select = find("select", label);
  const { values } = axes[axis], on = values.filter(value => !hidden[axis].has(value));
  label.hidden = axis === rows || axis === columns;
  find("[value=some]", select).textContent = `${on.length} of ${values.length}`;
  select.value = on.length === values.length ? "" : on.length === 1 ? values.indexOf(on[0]) : "some";
}

function sayFilter(group, axis) {
  for (const box of group.querySelectorAll("input")) box.checked = !hidden[axis].has(box.value);
  const all = find(".all", group);
  all.textContent = hidden[axis].size ? "all" : "none";
  all.ariaLabel = `${names[axis]}: show ${all.textContent}`;
}
