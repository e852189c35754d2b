// Two pictures in one place: under a slider, each alone, or their difference.
const compared = find(".compared"), wipe = find(".wipe", compared), slider = find("input", compared);
const said = find("output", compared), gain = find(".gain select", compared);
const modes = [...compared.querySelectorAll("[data-mode]")];

function show(mode) {
  wipe.dataset.shown = mode;
  for (const button of modes) button.ariaPressed = button.dataset.mode === mode;
  find(".gain", compared).hidden = mode !== "difference";
  said.textContent = { wipe: "", a: "a is shown", b: "b is shown", difference: "|a − b| is shown" }[mode];
}

function cut(percent) {
  slider.value = percent;
  wipe.style.setProperty("--cut", slider.value + "%");
  slider.setAttribute("aria-valuetext", `a in the left ${slider.value} %, b in the rest`);
  show("wipe");
}

function flip() { show(wipe.dataset.shown === "a" ? "b" : "a"); }

function amplify() { wipe.dataset.gain = gain.value; }

function drag(event) {
  if (!event.buttons) return;
  const box = wipe.getBoundingClientRect();
  wipe.setPointerCapture(event.pointerId);
  cut(100 * (event.clientX - box.left) / box.width);
}

slider.addEventListener("input", () => cut(slider.value));
for (const kind of ["pointerdown", "pointermove"]) wipe.addEventListener(kind, drag);
wipe.addEventListener("pointerup", () => slider.focus());
for (const button of modes) button.addEventListener("click", () => show(button.dataset.mode));
find(".flip", compared).addEventListener("click", flip);
gain.addEventListener("change", amplify);
(compared.closest("dialog") ?? compared).addEventListener("keydown", event => {
  if (event.key !== " " || event.target.closest("button, select, summary")) return;  // these have their own use for it
  event.preventDefault();
  flip();
});
amplify();
cut(50);
