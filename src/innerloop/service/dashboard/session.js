// The token of a service that asks for one. It is kept for this tab alone, and gone when the tab is closed.

import { button, make } from "./dom.js";

const PLACE = "innerloop-token";

let asked = null;

/** The token, if there is one. */
export function token() {
  return sessionStorage.getItem(PLACE);
}

/**
 * Asks for the token, once for all requests that wait for it.
 * @param {string|null} refused the token that was not accepted.
 * @returns {Promise<boolean>} whether there is another one now.
 */
export function askForToken(refused) {
  // Another request may have asked already, while this one was on its way.
  if (token() !== refused) return Promise.resolve(true);
  asked ??= prompt(refused !== null).finally(() => {
    asked = null;
  });
  return asked;
}

function prompt(wrong) {
  return new Promise((resolve) => {
    const input = make("input", {
      type: "password",
      id: "token",
      autocomplete: "current-password",
      required: true,
      "aria-describedby": "token-help",
    });
    const dialog = make(
      "dialog",
      { "aria-labelledby": "token-title" },
      make(
        "form",
        { method: "dialog", onsubmit: () => sessionStorage.setItem(PLACE, input.value.trim()) },
        make("h2", { id: "token-title" }, "This service asks for a token"),
        make(
          "p",
          { id: "token-help", class: wrong ? "wrong" : "say" },
          wrong
            ? "That token was not accepted. Try again."
            : "Whoever runs the service set it as INNERLOOP_TOKEN. It stays in this tab.",
        ),
        make("label", { for: "token" }, "Token"),
        input,
        make(
          "div.buttons",
          {},
          button("Not now", { class: "quiet", onclick: () => dialog.close() }),
          make("button.primary", { type: "submit", value: "given" }, "Continue"),
        ),
      ),
    );
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "given");
    });
    document.body.append(dialog);
    dialog.showModal();
    input.focus();
  });
}
