// What all fields of a form have in common.

import { freshId, make } from "./dom.js";
import { title } from "./format.js";

/** What frames every field: its label, what it means, and what is wrong with it. */
export class Field {
  constructor({ name, schema, required }, control, tag = "div") {
    Object.assign(this, { name, schema, required, control });
    const id = freshId(name);
    this.error = make("p.wrong", { id: `${id}-error` });
    const help = helpOf(schema);
    const label = [
      title(name),
      required && make("span.star", { title: "required", "aria-hidden": "true" }, "*"),
      make("code", {}, name),
    ];
    this.element =
      tag === "fieldset"
        ? make(
            "fieldset.field.group",
            { "data-field": name },
            make("legend", {}, label),
            help && make("p.help", { id: `${id}-help` }, help),
            this.error,
            control,
          )
        : make(
            "div.field",
            { "data-field": name },
            make("label", { for: id }, label),
            control,
            help && make("p.help", { id: `${id}-help` }, help),
            this.error,
          );
    control.id = id;
    control.setAttribute("aria-describedby", [help && `${id}-help`, `${id}-error`].filter(Boolean).join(" "));
    if (required) control.setAttribute("aria-required", "true");
  }

  complain(text, place = []) {
    const where = place.length ? `${place.join(".")}: ` : "";
    this.error.textContent = text ? [this.error.textContent, where + text].filter(Boolean).join("; ") : "";
    this.control.setAttribute("aria-invalid", String(Boolean(text)));
  }

  focus() {
    this.control.focus();
  }
}

function helpOf({ description = "", default: usual }) {
  const told = description.replace(/null takes/, "empty takes");
  const shown =
    usual !== undefined && usual !== null && usual !== "" && typeof usual !== "object"
      ? `usually ${usual}`
      : "";
  return [told, shown].filter(Boolean).join("; ");
}

/** What is taken where nothing is given, as text. */
export const usualOf = ({ default: usual }) =>
  usual === undefined || usual === null
    ? ""
    : typeof usual === "object"
      ? JSON.stringify(usual)
      : String(usual);
