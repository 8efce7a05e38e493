// What went wrong, above the page, with what can be done about it. One banner for each cause.

import { button, make } from "./dom.js";

const place = () => document.getElementById("banner");

/**
 * Shows a banner in place of an earlier one of the same cause.
 * @param {string} cause by which it is cleared.
 * @param {string} text what went wrong.
 * @param {{label: string, run: () => void}|null} remedy a button.
 */
export function showBanner(cause, text, remedy = null) {
  const banner = make(
    "div.banner",
    { "data-cause": cause },
    make("p", {}, text),
    remedy && button(remedy.label, { onclick: remedy.run }),
    button("Dismiss", { class: "quiet", onclick: () => banner.remove() }),
  );
  clearBanner(cause);
  place().append(banner);
}

/** Takes banners away: those of a cause, or all. */
export function clearBanner(cause) {
  for (const banner of [...place().children])
    if (cause === undefined || banner.dataset.cause === cause) banner.remove();
}
