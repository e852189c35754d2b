"use strict";

// What all pages' scripts are made of.
const find = (selector, root = document) => root.querySelector(selector);

function make(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

// Long names end a line after an underscore and the like or before a capital, and not in the middle of a word.
const SEAM = /(?<=[_,:=/])(?=\w)|(?<=[a-z\d])(?=[A-Z])/;

function soften(root) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT), long = [];
  while (walker.nextNode()) {
    const text = walker.currentNode;
    if (/\S{10}/.test(text.data) && !text.parentElement.closest("script, style, svg, pre, option")) long.push(text);
  }
  for (const text of long) {
    const [first, ...parts] = text.data.split(SEAM);
    if (parts.length) text.replaceWith(first, ...parts.flatMap(part => [make("wbr"), part]));
  }
}

soften(document.body);
