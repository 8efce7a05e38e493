// Making elements. Text is always set as text: nothing that a job says of itself is ever read as HTML.

const DRAWING = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false),
  );
  return element;
}

/**
 * An HTML element.
 * @param {string} tag of it, with classes: `div.tile.wide`.
 * @param {object} attributes by name; `onclick` and the like take functions; null and false leave one out.
 * @param {...(Node|string|Array|null)} children in their order; lists are laid flat, null is left out.
 */
export function make(tag, attributes, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  return fill(element, attributes, children);
}

/** An element of a drawing; as `make`, with the class among the attributes. */
export function draw(tag, attributes, ...children) {
  return fill(document.createElementNS(DRAWING, tag), attributes, children);
}

/** A button that does no submitting. */
export function button(label, attributes, ...more) {
  const { class: classes, ...others } = attributes;
  return make(classes ? `button.${classes}` : "button", { type: "button", ...others }, ...more, label);
}

/** Puts text where it changed only, so that a selection in the page and screen readers are left in peace. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Tells those who hear the page what has changed. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

let count = 0;

/** An id that no other element of the page has. */
export function freshId(prefix) {
  count += 1;
  return `${prefix}-${count}`;
}
