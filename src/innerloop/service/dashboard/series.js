// The values of a job's metrics: kept by name, put together into charts, smoothed and thinned to be drawn.

const DRAWN = 400; // a line of more points is averaged down to about this many
const MOST_LINES = 12; // as many as can be told apart in one chart

/** All values of a job. */
export class Metrics {
  constructor() {
    this.byName = new Map();
    this.last = 0;
  }

  /**
   * Adds values, and passes over those that are here.
   * @param {{number: number, step: number, name: string, value: number|null}[]} values in the order of their numbers.
   * @returns {Set<string>} the names that have new ones.
   */
  add(values) {
    const touched = new Set();
    for (const { number, step, name, value } of values) {
      if (number <= this.last) continue;
      this.last = number;
      if (!this.byName.has(name)) this.byName.set(name, []);
      this.byName.get(name).push([step, value]);
      touched.add(name);
    }
    return touched;
  }
}

/**
 * The chart that a metric belongs to, and the line within it: metrics of the same thing for several tasks are lines
 * of one chart. `fomaml/eval/word-order/query_loss` is the line `word-order` of the chart `eval/query_loss`.
 * @returns {{section: string, chart: string, label: string, line: string}}
 */
export function placeOf(name) {
  const [, ...rest] = name.split("/");
  const parts = rest.length ? rest : [name];
  const label = parts.at(-1);
  if (parts[0] === "perf")
    return { section: "Computing", chart: parts.join("/"), label: parts.slice(1).join(" "), line: "" };
  if (parts.length === 1) return { section: "Training", chart: label, label, line: "" };
  const heldOut = parts[0] === "eval";
  const section = heldOut ? "Held-out tasks" : "Tasks";
  return { section, chart: `${section}/${label}`, label, line: parts.slice(heldOut ? 1 : 0, -1).join("/") };
}

export const SECTIONS = ["Training", "Held-out tasks", "Tasks", "Computing"];

/** A name without what its kind of run puts before it, so that runs of different kinds can be compared. */
export const bareName = (name) => name.replace(/^[^/]+\//, "");

/**
 * An exponential moving average that is not pulled towards its beginning.
 * @param {number[][]} points steps and values; null breaks the line and starts afresh.
 * @param {number} weight of what was before, from 0 to below 1.
 */
export function smoothed(points, weight) {
  if (!weight) return points;
  let mean = 0;
  let seen = 0;
  return points.map(([x, y]) => {
    if (y === null) {
      mean = seen = 0;
      return [x, y];
    }
    mean = weight * mean + (1 - weight) * y;
    seen = weight * seen + (1 - weight);
    return [x, mean / seen];
  });
}

/** Points averaged down to about as many as a chart can show; the line still ends at the last step. */
export function thinned(points) {
  const size = Math.ceil(points.length / DRAWN);
  if (size <= 1) return points;
  const found = [];
  for (let from = 0; from < points.length; from += size) {
    const some = points.slice(from, from + size);
    const finite = some.filter(([, y]) => y !== null);
    const isLast = from + size >= points.length;
    const step = isLast ? some.at(-1)[0] : some[some.length >> 1][0];
    found.push([step, finite.length ? finite.reduce((sum, [, y]) => sum + y, 0) / finite.length : null]);
  }
  return found;
}

/** The look of the line at a place: a colour, dashed the second time round. */
export const styleOf = (place) => `c${(place % 6) + 1}${Math.floor(place / 6) % 2 ? " again" : ""}`;

/**
 * Lines for a chart.
 * @param {[string, number[][]][]} named points by the lines' names.
 * @param {number} smoothing see `smoothed`.
 * @returns {{series: object[], left: number}} what the chart takes, and how many lines were too many.
 */
export function linesOf(named, smoothing) {
  const series = named.slice(0, MOST_LINES).map(([name, points], place) => ({
    name,
    style: styleOf(place),
    points: thinned(smoothed(points, smoothing)),
    faint: smoothing ? thinned(points) : null,
  }));
  return { series, left: Math.max(0, named.length - MOST_LINES) };
}
