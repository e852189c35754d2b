// What a page looks like, as a browser lays it out.
(() => {
  const visible = element => element.checkVisibility({ opacityProperty: true, visibilityProperty: true })
    && element.getClientRects().length > 0;

  function texts() {
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
    while (walker.nextNode()) {
      const parent = walker.currentNode.parentElement;
      if (walker.currentNode.data.trim() && !parent.closest("script, style, option, svg") && visible(parent)) found.push(walker.currentNode);
    }
    return found;
  }

  function brokenWords() {  // those of which one part is on another line; <wbr> parts texts, and a hyphen words
    const broken = [];
    for (const text of texts()) {
      for (const word of text.data.matchAll(/[^\s-]+-?/g)) {
        const range = document.createRange();
        range.setStart(text, word.index);
        range.setEnd(text, word.index + word[0].length);
        const lines = new Set([...range.getClientRects()].filter(box => box.width).map(box => Math.round(box.top)));
        if (lines.size > 1 && !text.parentElement.closest("pre")) broken.push(word[0]);
      }
    }
    return broken;
  }

  function luminance([r, g, b]) {
    const linear = [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  }

  const numbers = colour => colour.match(/[\d.]+/g).map(Number);

  function paper(element) {
    for (let one = element; one; one = one.parentElement) {
      const [r, g, b, alpha = 1] = numbers(getComputedStyle(one).backgroundColor);
      if (alpha > 0.7) return [r, g, b];
    }
  }

  function ratio(element) {
    const [a, b] = [numbers(getComputedStyle(element).color), paper(element)].map(luminance);
    return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  }

  function faint() {  // texts below the contrast of WCAG's level AA: 4.5 to 1, or 3 to 1 where they are large
    return texts().filter(text => {
      const element = text.parentElement, style = getComputedStyle(element), size = parseFloat(style.fontSize);
      if (element.closest(":disabled")) return false;
      const large = size >= 24 || size >= 18.66 && style.fontWeight >= 700;
      return ratio(element) < (large ? 3 : 4.5);
    }).map(text => [text.data.trim(), ratio(text.parentElement)]);
  }

  const named = element => element === document.body ? "BODY" : [element.tagName,
    element.ariaLabel || element.textContent.trim() || element.name || element.value || element.href].join(" ");

  function focused() {  // what has the focus, and how wide its outline, or that of the words beside a hidden box, is
    const element = document.activeElement, shown = element.matches(".chip input") ? element.nextElementSibling : element;
    const style = getComputedStyle(shown);
    return [named(element), style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth)];
  }

  const stops = () => [...document.querySelectorAll("button, a, input, select, summary, [tabindex]")]
    .filter(one => one.tabIndex >= 0 && !one.disabled && one.checkVisibility()).map(named);

  const moving = () => document.getAnimations().length + [...document.querySelectorAll("*")].filter(one => {
    const style = getComputedStyle(one);
    return style.animationName !== "none" || parseFloat(style.transitionDuration) > 0 || style.scrollBehavior === "smooth";
  }).length;

  return { brokenWords, faint, focused, moving, stops };
})()
