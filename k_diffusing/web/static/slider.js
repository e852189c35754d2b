// Two pictures in one place: a left of the line, b right of it.
const compared = document.querySelector(".compared"), wipe = compared.querySelector(".wipe");
const slider = compared.querySelector("input"), alone = compared.querySelector("output");

function cut(percent) {
  slider.value = percent;
  wipe.style.setProperty("--cut", slider.value + "%");
  alone.textContent = { 0: "b alone", 100: "a alone" }[slider.value] ?? "";
  slider.setAttribute("aria-valuetext", alone.textContent || `a in the left ${slider.value} %, b in the rest`);
}

function flip() { cut(slider.value === "100" ? 0 : 100); }

function drag(event) {
  if (!event.buttons) return;
  const box = wipe.getBoundingClientRect();
  wipe.setPointerCapture(event.pointerId);
  cut(100 * (event.clientX - box.left) / box.width);
}

slider.addEventListener("input", () => cut(slider.value));
for (const kind of ["pointerdown", "pointermove"]) wipe.addEventListener(kind, drag);
wipe.addEventListener("pointerup", () => slider.focus());
document.querySelector(".flip").addEventListener("click", flip);
(compared.closest("dialog") ?? compared).addEventListener("keydown", event => {
  if (event.key !== " " || event.target.closest("button")) return;  // a button has its own use for the key
  event.preventDefault();
  flip();
});
cut(50);
