// A list of small texts, such as prompts with their responses: a table that grows, and takes what is pasted from a
// spreadsheet.

import { button, make } from "./dom.js";
import { Field } from "./field.js";
import { title } from "./format.js";
import { icon } from "./icons.js";

/** A field for a list of objects that hold texts. */
export class RowsField extends Field {
  constructor(about, item) {
    const rows = make("div.rows");
    super(about, rows, "fieldset");
    this.columns = Object.keys(item.properties);
    this.rows = rows;
    this.list = make("ol");
    this.count = make("span.say");
    rows.append(
      this.list,
      make(
        "div.buttons",
        {},
        button("Add a row", { onclick: () => this.add({}).querySelector("textarea").focus() }),
        this.count,
      ),
    );
    rows.setAttribute("role", "group");
    this.tell();
  }

  add(value) {
    const cells = this.columns.map((column) =>
      make("textarea", {
        rows: 1,
        "aria-label": title(column),
        placeholder: title(column),
        spellcheck: "false",
        value: value[column] ?? "",
        onpaste: (event) => this.paste(event, row),
      }),
    );
    const row = make(
      "li",
      {},
      cells,
      button(
        "",
        {
          class: "quiet icon-only",
          "aria-label": "Remove this row",
          title: "Remove this row",
          onclick: () => this.remove(row),
        },
        icon("remove"),
      ),
    );
    this.list.append(row);
    this.tell();
    return row;
  }

  remove(row) {
    const next = row.nextElementSibling ?? row.previousElementSibling;
    row.remove();
    this.tell();
    (next?.querySelector("button") ?? this.rows.querySelector(".buttons button")).focus();
  }

  /** Cells of a spreadsheet come as text with tabs; they fill rows from here on. */
  paste(event, row) {
    const text = event.clipboardData.getData("text");
    if (!text.includes("\t")) return;
    event.preventDefault();
    const lines = text.split(/\r?\n/).filter((line) => line.trim());
    let at = row;
    for (const line of lines) {
      at ??= this.add({});
      const cells = line.split("\t");
      [...at.querySelectorAll("textarea")].forEach((cell, place) => {
        cell.value = cells[place]?.trim() ?? "";
      });
      at = at.nextElementSibling;
    }
    this.tell();
  }

  tell() {
    const count = this.list.childElementCount;
    const { minItems: least, maxItems: most } = this.schema;
    const bounds = most ? `, ${least ? `${least} to ` : "at most "}${most} allowed` : "";
    this.count.textContent = `${count} ${count === 1 ? "row" : "rows"}${bounds}`;
  }

  read() {
    const rows = [...this.list.children].map((row) => {
      const cells = [...row.querySelectorAll("textarea")];
      return Object.fromEntries(this.columns.map((column, place) => [column, cells[place].value]));
    });
    return rows.length || this.required ? rows : undefined;
  }

  set(value) {
    this.list.replaceChildren();
    for (const row of value ?? []) this.add(row);
    this.tell();
  }

  complain(text, place = []) {
    const [row, ...rest] = place;
    // People count from one.
    super.complain(text, Number.isInteger(row) ? [`row ${row + 1}`, ...rest] : place);
    if (!text)
      for (const cell of this.list.querySelectorAll("[aria-invalid]")) cell.removeAttribute("aria-invalid");
    const column = this.columns.indexOf(rest[0]);
    this.list.children[row]
      ?.querySelectorAll("textarea")
      [Math.max(column, 0)]?.setAttribute("aria-invalid", "true");
  }

  focus() {
    (
      this.list.querySelector("[aria-invalid=true]") ??
      this.list.querySelector("textarea") ??
      this.rows.querySelector("button")
    ).focus();
  }
}
