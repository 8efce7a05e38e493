// Asking before something that cannot be taken back.

import { button, make } from "./dom.js";

/**
 * Asks.
 * @param {string} question the title.
 * @param {string} consequence what happens then.
 * @param {string} label of the button that does it.
 * @returns {Promise<boolean>} whether it was wanted; Escape says no.
 */
export function confirm(question, consequence, label) {
  return new Promise((resolve) => {
    const no = button("Keep it", { class: "quiet", onclick: () => dialog.close() });
    const dialog = make(
      "dialog",
      { "aria-labelledby": "question", "aria-describedby": "consequence" },
      make("h2", { id: "question" }, question),
      make("p.say", { id: "consequence" }, consequence),
      make("div.buttons", {}, no, button(label, { class: "danger", onclick: () => dialog.close("yes") })),
    );
    const before = document.activeElement;
    dialog.addEventListener("close", () => {
      dialog.remove();
      before?.focus();
      resolve(dialog.returnValue === "yes");
    });
    document.body.append(dialog);
    dialog.showModal();
    no.focus();
  });
}
