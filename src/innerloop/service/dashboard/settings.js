// What was asked of a job, as a table and as a request that can be made again.

import { make } from "./dom.js";
import { number, shortLines, UNKNOWN } from "./format.js";
import { resolved } from "./schema.js";
import { table } from "./tables.js";

/** What was asked of a job, as a body that the API would take again. */
export function askedOf(job, kind) {
  const names = Object.keys(resolved(kind.request, kind.schemas).properties);
  return Object.fromEntries(names.filter((name) => name in job).map((name) => [name, job[name]]));
}

/** Draws the settings of a job. */
export function drawSettings(job, kind) {
  const { name, description, ...asked } = askedOf(job, kind);
  const rows = Object.entries(asked).map(([key, value]) => [make("code", {}, key), shown(key, value)]);
  return table(["setting", "value"], rows, "text");
}

function shown(key, value) {
  if (value === null) return make("span.faint", {}, "not given");
  if (/_task_id$/.test(key)) return make("a", { href: `#/find/${encodeURIComponent(value)}` }, value);
  if (typeof value === "number") return number(value);
  if (typeof value !== "object") return String(value) || UNKNOWN;
  if (Array.isArray(value) && value.every((entry) => typeof entry !== "object"))
    return value.length ? value.map(String).join(", ") : "none";
  const summary = Array.isArray(value)
    ? `${value.length} ${value.length === 1 ? "entry" : "entries"}`
    : Object.keys(value).join(", ");
  return make("details", {}, make("summary", {}, summary), make("pre", {}, shortLines(value)));
}
