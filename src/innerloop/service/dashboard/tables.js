// Tables of figures, and tiles for the few that matter most.

import { make } from "./dom.js";

/**
 * A table; its first column names the rows.
 * @param {string[]} head the columns' names; none leaves the head out.
 * @param {(string|Node)[][]} rows
 * @param {string} kind "text" sets the columns to the left.
 */
export function table(head, rows, kind = "") {
  return make(
    "div.scroll",
    { tabindex: "0", role: "region", "aria-label": head[0] ? `Table: ${head[0]}` : "Table" },
    make(
      "table",
      { class: kind },
      head.length
        ? make(
            "thead",
            {},
            make(
              "tr",
              {},
              head.map((name) => make("th", { scope: "col" }, name)),
            ),
          )
        : null,
      make(
        "tbody",
        {},
        rows.map(([first, ...others]) =>
          make(
            "tr",
            {},
            make("th", { scope: "row" }, first),
            others.map((cell) => make("td", {}, cell)),
          ),
        ),
      ),
    ),
  );
}

/** Tiles with a title, a figure and a line that explains it. */
export function tiles(entries) {
  return make(
    "div.tiles",
    {},
    entries.map(({ title, figure, detail }) =>
      make("div.tile", {}, make("span", {}, title), make("b", {}, figure), make("span", {}, detail)),
    ),
  );
}
