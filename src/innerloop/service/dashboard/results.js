// What came of a job, drawn by what it looks like: curves with their intervals, marks before and after, tables, tiles.
// The explanations are those of the API's own description.

import { legend, LineChart } from "./chart.js";
import { make } from "./dom.js";
import { change, number, title, UNKNOWN, valueOf, words } from "./format.js";
import { resolved } from "./schema.js";
import { styleOf } from "./series.js";
import { table, tiles } from "./tables.js";

const LONG = 8; // tables of more rows are folded
const CURVES = { adaptation_curve: "trained policy", scratch_curve: "from scratch" };

/**
 * Draws results.
 * @param {object} results as the API gives them.
 * @param {object} schema of the results' view.
 * @param {object} whole the API's description.
 */
export function drawResults(results, schema, whole) {
  const view = resolved(schema, whole);
  const model = resolved(view.properties.results, whole);
  const about = (name) => resolved(model.properties?.[name] ?? {}, whole);
  const parts = [figures(results, about)];
  const left = new Map(Object.entries(results));
  if (isCurve(results.adaptation_curve)) {
    parts.push(curves(results));
    for (const name of [...Object.keys(CURVES), "baselines"]) left.delete(name);
  }
  if (results.before && results.after) {
    parts.push(beforeAndAfter(results.before, results.after, about("before").properties ?? {}));
    left.delete("before");
    left.delete("after");
  }
  const others = [...left].map(([name, value]) => other(name, value, about(name))).filter(Boolean);
  if (others.length) parts.push(make("div.halves", {}, others));
  return parts.filter(Boolean);
}

const isNumber = (value) => typeof value === "number" || value === null;
const isTable = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
const isCurve = (value) =>
  Array.isArray(value) && value.length > 0 && value.every((point) => "episodes" in point && "mean" in point);

/** Single figures, and those one level down that belong to a small group. */
function figures(results, about) {
  const found = [];
  const add = (label, name, value, detail) =>
    found.push({
      title: label,
      figure: typeof value === "string" ? words(value) : valueOf(name, value),
      detail: detail.replace(/\bnull\b/, UNKNOWN),
    });
  for (const [name, value] of Object.entries(results)) {
    const { description, properties } = about(name);
    if (isNumber(value) || typeof value === "string") add(title(name), name, value, description ?? "");
    else if (isTable(value) && properties && name !== "before" && name !== "after")
      for (const [inner, figure] of Object.entries(value))
        if (isNumber(figure))
          add(`${title(name)}: ${words(inner)}`, inner, figure, properties[inner]?.description ?? "");
  }
  return found.length ? tiles(found) : null;
}

function curves(results) {
  const drawn = Object.entries(CURVES).filter(([name]) => isCurve(results[name]));
  const lines = drawn.map(([name, label], place) => ({
    name: label,
    style: styleOf(place),
    points: results[name].map((point) => [point.episodes, point.mean]),
    band: results[name]
      .filter((point) => point.low !== null && point.high !== null)
      .map((point) => [point.episodes, point.low, point.high]),
  }));
  const baselines = Object.entries(results.baselines ?? {});
  const levels = baselines.map(([name, level], place) => ({
    name,
    level,
    style: `g${(place % 3) + 1}${place > 2 ? " again" : ""}`,
  }));
  const series = [...lines, ...levels];
  const chart = new LineChart({
    name: "Return by episodes of adaptation",
    unit: "return",
    x: "episodes",
    height: 320,
  });
  chart.set(series);
  const intervals = lines.some((line) => line.band.length);
  const rows = drawn.flatMap(([name, label]) =>
    results[name].map((point) => [
      label,
      number(point.episodes),
      number(point.mean),
      interval(point),
      valueOf("slo_violations", point.slo_violations),
    ]),
  );
  return make(
    "div.result",
    { "data-result": "curves" },
    make("h3", {}, "Return on held-out clusters"),
    make(
      "p.say",
      {},
      `By episodes of adaptation, the mean over clusters${intervals ? " with its 95\u00a0% interval" : ""}. Controllers that do not learn are drawn level.`,
    ),
    legend(series),
    chart.element,
    make(
      "div.sides",
      {},
      table(["policy", "episodes", "return", "95\u00a0% interval", "SLO violations"], rows),
      baselines.length
        ? table(
            ["baseline", "return"],
            baselines.sort(([, a], [, b]) => b - a).map(([name, level]) => [name, number(level)]),
          )
        : null,
    ),
  );
}

const interval = ({ low, high }) =>
  low === null || high === null ? UNKNOWN : `${number(low)} to ${number(high)}`;

function beforeAndAfter(before, after, properties) {
  const rows = Object.keys(after).map((name) => {
    const [was, is] = [before[name], after[name]];
    const told = make("span", { title: properties[name]?.description ?? "" }, title(name));
    return [
      told,
      valueOf(name, was),
      valueOf(name, is),
      was === null || is === null ? UNKNOWN : difference(name, is - was),
    ];
  });
  return make(
    "div.result",
    { "data-result": "marks" },
    make("h3", {}, "Before and after"),
    table(["on the test examples", "before", "after", "change"], rows),
  );
}

const difference = (name, value) =>
  /accuracy$/.test(name) ? `${change(Number((100 * value).toFixed(1)))} points` : change(value);

function other(name, value, { description = "", properties }) {
  const heading = [make("h3", {}, title(name)), description && make("p.say", {}, description)];
  if (Array.isArray(value) && value.length && value.every(isNumber)) {
    const chart = new LineChart({ name: title(name), unit: name });
    chart.set([{ name: "", style: "c1", points: value.map((y, place) => [place + 1, y]) }]);
    return make("div.result", { "data-result": name }, heading, chart.element);
  }
  if (!isTable(value))
    return Array.isArray(value) && value.length
      ? make("div.result", {}, heading, make("pre", {}, JSON.stringify(value, null, 2)))
      : null;
  const rows = Object.entries(value);
  if (!rows.length) return null;
  if (rows.every(([, row]) => isTable(row))) {
    const columns = Object.keys(rows[0][1]);
    const drawn = rows.map(([label, row]) => [
      label,
      ...columns.map((column) => valueOf(column, row[column])),
    ]);
    return make(
      "div.result.whole",
      { "data-result": name },
      heading,
      table(["", ...columns.map(words)], drawn),
    );
  }
  // A group's figures are among the tiles; what it holds besides is a table of its own.
  const inner = rows
    .filter(([, row]) => isTable(row))
    .map(([label, row]) => other(label, row, properties?.[label] ?? {}));
  const flat = properties ? [] : rows.filter(([, row]) => isNumber(row));
  if (!flat.length) return inner.length ? make("div", {}, inner) : null;
  const list = table(
    [],
    flat.map(([label, figure]) => [label, valueOf(label, figure)]),
  );
  // What is long is in the charts, too.
  const folded =
    flat.length > LONG ? make("details", {}, make("summary", {}, `${flat.length} figures`), list) : list;
  return make("div.result", { "data-result": name }, heading, folded, inner);
}
