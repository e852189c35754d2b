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

const varying = varyingSettings();  // the names of those that are not the same in all pictures

function varyingSettings() {
  const seen = grouped(cells.flatMap(cell => cell.settings), ([name]) => name);
  return new Set([...seen.keys()].filter(name => new Set(seen.get(name).map(([, text]) => text)).size > 1));
}

const pairs = entries => entries.flatMap(([name, text]) => [make("dt", {}, name), make("dd", {}, text)]);

function open(cell) {
  opened = cell;
  find("h2", view).textContent = cell.label;
  find(".missing", view).textContent = find("[role=status]", view).textContent = "";
  sized(find(".full", view), cell);
  picture(find("img", view), cell);
  find(".differing", view).replaceChildren(...pairs(cell.settings.filter(([name]) => varying.has(name))));
  find(".results", view).replaceChildren(...pairs(cell.results));
  find(".settings", view).replaceChildren(...pairs(cell.settings));
  find("summary", view).textContent = `All ${cell.settings.length} settings`;
  find("pre", view).textContent = cell.command;
  find(".beside-converged", view).hidden = !referenceOf(cell);
  const i = order.indexOf(cell);
  find(".previous", view).disabled = i <= 0;
  find(".next", view).disabled = i < 0 || i === order.length - 1;
  soften(view);
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
find(".beside-converged", view).onclick = () => {
  view.close();
  marked = [opened, referenceOf(opened)];
  showMarks();
  openComparison();
};
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

function openComparison() {
  find(".missing", compare).textContent = "";
  sized(compared, ...marked);
  wipe.querySelectorAll("img").forEach((image, i) => picture(image, marked[i]));
  compared.querySelectorAll(".names > span").forEach((name, i) => name.replaceChildren(tag("ab"[i], marked[i])));
  const same = find(".same", compare);
  for (const kind of ["settings", "results"]) {
    const lines = differences(...marked.map(cell => new Map(cell[kind])));
    const section = find(`.${kind}`, compare);
    section.hidden = !lines.length;
    find("tbody", section).replaceChildren(...lines);
    if (kind === "settings") same.hidden = lines.length > 0;
  }
  cut(50);
  soften(compare);
  compare.showModal();
  slider.focus();
}

function differences(a, b) {
  return [...new Set([...a.keys(), ...b.keys()])].filter(name => a.get(name) !== b.get(name)).map(name => make("tr", {},
    make("th", { scope: "row" }, name), make("td", {}, a.get(name) ?? ""), make("td", {}, b.get(name) ?? "")));
}

compare.addEventListener("keydown", event => { if (event.key === "d" && plain(event)) show("difference"); });
compare.addEventListener("close", () => focus(order.includes(marked[1]) ? marked[1] : current));
find(".again").onclick = openComparison;
find(".clear").onclick = () => { marked = []; showMarks(); focus(current); };
