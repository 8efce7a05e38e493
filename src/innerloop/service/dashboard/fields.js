// The fields of a form: one for each kind of value that a request may hold. Each has a name, an element, and
//   read()         the value, or undefined where nothing was given; throws where there is none to read;
//   set(value)     fills it in;
//   complain(text, place)  shows what is wrong with it; an empty text takes that back.
// What is right is the service's to say: words that are no number are sent as they are, and its answer is shown.

import { make } from "./dom.js";
import { Field, usualOf } from "./field.js";
import { shortLines } from "./format.js";
import { RowsField } from "./rows_field.js";
import { isScalar, resolved } from "./schema.js";

const LONG = 1000; // texts that may have more letters get more room
const GROUPED = 8; // objects of more fields are written as JSON

/**
 * The field for a schema.
 * @param {string} name of it in the request.
 * @param {object} written its schema.
 * @param {boolean} required whether it must be given.
 * @param {object} whole the document that the schema's references point into.
 */
export function fieldFor(name, written, required, whole) {
  const schema = resolved(written, whole);
  const about = { name, schema, required };
  if (schema.enum)
    return new ChoiceField(
      about,
      schema.enum.map((value) => [value, String(value).replaceAll("_", " ")]),
    );
  if (schema.type === "boolean")
    return new ChoiceField(
      about,
      [
        ["true", "yes"],
        ["false", "no"],
      ],
      (text) => text === "true",
    );
  if (schema.type === "integer" || schema.type === "number") return new NumberField(about);
  if (schema.type === "string") return new TextField(about, schema.maxLength > LONG);
  if (schema.type === "array" && isTexts(resolved(schema.items ?? {}, whole), whole))
    return new RowsField(about, resolved(schema.items, whole));
  if (schema.type === "object" && isSmall(schema, whole)) return new GroupField(about, whole);
  return new JsonField(about);
}

const isTexts = (item) =>
  item.type === "object" &&
  item.properties &&
  Object.values(item.properties).every(({ type }) => type === "string");

function isSmall({ properties }, whole) {
  const all = Object.values(properties ?? {}).map((property) => resolved(property, whole));
  return (
    all.length > 0 &&
    all.length <= GROUPED &&
    all.every(
      (inner) => isScalar(inner) || (inner.type === "array" && isScalar(resolved(inner.items, whole))),
    )
  );
}

class TextField extends Field {
  constructor(about, long) {
    super(
      about,
      long
        ? make("textarea", { rows: 2 })
        : make("input", {
            type: "text",
            autocomplete: "off",
            spellcheck: "false",
            placeholder: usualOf(about.schema),
          }),
    );
  }

  read() {
    return this.control.value === "" && !this.required ? undefined : this.control.value;
  }

  set(value) {
    this.control.value = value ?? "";
  }
}

class NumberField extends TextField {
  constructor(about) {
    super(about, false);
    this.control.inputMode = about.schema.type === "integer" ? "numeric" : "decimal";
  }

  read() {
    const text = this.control.value.trim();
    if (text === "") return undefined;
    const value = Number(text.replace("\u2212", "-"));
    return Number.isFinite(value) ? value : text;
  }
}

class ChoiceField extends Field {
  constructor(about, choices, from = (text) => text) {
    const usual = about.schema.default;
    const open = about.schema.nullable || usual === undefined || usual === null;
    super(
      about,
      make(
        "select",
        {},
        open && make("option", { value: "" }, about.required ? "choose one" : "not given"),
        choices.map(([value, label]) => make("option", { value }, label)),
      ),
    );
    this.from = from;
    if (!open) this.control.value = String(usual);
  }

  read() {
    return this.control.value === "" ? undefined : this.from(this.control.value);
  }

  set(value) {
    this.control.value = value === null || value === undefined ? "" : String(value);
  }
}

class JsonField extends Field {
  constructor(about) {
    const listed = about.schema.type === "array" && !about.schema.items?.$ref;
    super(
      about,
      make(listed ? "input" : "textarea", {
        class: "json",
        spellcheck: "false",
        autocomplete: "off",
        rows: 3,
        placeholder: usualOf(about.schema),
      }),
    );
  }

  read() {
    const text = this.control.value.trim();
    if (text === "") return undefined;
    try {
      return JSON.parse(text);
    } catch (error) {
      throw new Error(`This is no JSON: ${error.message}`);
    }
  }

  set(value) {
    const short = JSON.stringify(value);
    const isLine = this.control.tagName === "INPUT" || short.length < 60;
    const text =
      value === undefined || value === null ? "" : isLine ? short.replaceAll(",", ", ") : shortLines(value);
    this.control.value = text;
    if (!isLine) this.control.rows = Math.min(text.split("\n").length + 1, 18);
  }
}

/** A small object: a frame with a field for each of its own. */
class GroupField extends Field {
  constructor(about, whole) {
    const inner = Object.entries(about.schema.properties).map(([name, schema]) =>
      fieldFor(name, schema, false, whole),
    );
    super(
      about,
      make(
        "div.fields",
        {},
        inner.map(({ element }) => element),
      ),
      "fieldset",
    );
    this.inner = inner;
  }

  read() {
    const given = this.inner
      .map((field) => [field.name, field.read()])
      .filter(([, value]) => value !== undefined);
    return given.length || this.required ? Object.fromEntries(given) : undefined;
  }

  set(value) {
    for (const field of this.inner) field.set(value?.[field.name]);
  }

  complain(text, place = []) {
    const [first, ...rest] = place;
    const field = this.inner.find(({ name }) => name === first);
    if (text && field) field.complain(text, rest);
    else super.complain(text, place);
    if (!text) for (const each of this.inner) each.complain("");
  }

  focus() {
    const wrong = this.inner.find(({ control }) => control.getAttribute("aria-invalid") === "true");
    (wrong ?? this.inner[0]).focus();
  }
}

/** Another job, chosen from those that the description allows. */
export class JobField extends Field {
  /**
   * @param {object} about as of every field.
   * @param {object[]} jobs to choose from, newest first.
   * @param {string} missing what to do where there are none.
   */
  constructor(about, jobs, missing) {
    const none = jobs.length ? (about.required ? "choose a job" : "none") : missing;
    const select = make(
      "select",
      {},
      make("option", { value: "" }, none),
      jobs.map((job) => make("option", { value: job.id }, `${job.name} (${job.kind}, ${job.state})`)),
    );
    super(about, select);
    // What must be chosen is most often the newest.
    if (about.required && jobs.length) select.value = jobs[0].id;
  }

  read() {
    return this.control.value === "" && !this.required ? undefined : this.control.value;
  }

  set(value) {
    if (!value) return;
    if (![...this.control.options].some((option) => option.value === value))
      this.control.append(make("option", { value }, value));
    this.control.value = value;
  }
}
