// By keyboard and mouse through the grid.

function neighbour(cell, key) {
  if (key === "ArrowLeft" || key === "ArrowRight") return order[order.indexOf(cell) + (key === "ArrowLeft" ? -1 : 1)];
  const box = cell.figure.getBoundingClientRect(), step = key === "ArrowUp" ? -1 : 1;
  const away = order.map(other => {
    const there = other.figure.getBoundingClientRect(), aside = Math.abs(there.left - box.left);
    const apart = step * (there.top - box.top);
    return { other, distance: apart > 1 && aside < box.width / 2 ? apart : Infinity };
  });
  const nearest = away.reduce((a, b) => b.distance < a.distance ? b : a);
  return nearest.distance < Infinity ? nearest.other : undefined;
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
