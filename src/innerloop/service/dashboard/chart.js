// A line chart in SVG: axes with round numbers, lines, bands and levels, and a crosshair that reads the values.

import { draw, make } from "./dom.js";
import { isShare, number, valueOf } from "./format.js";
import { logTicks, niceTicks, roomy, scaled, tickTexts } from "./scale.js";

const MARKED = 30; // lines of at most so many points show each of them
const LETTER = 6.7; // pixels, of the axes' font
const ROOMY = 620; // pixels from which on there is room beside the lines

/**
 * One chart. It fits the width of what it stands in.
 *
 * @param {object} options
 *   - name: of what is drawn, for those who hear the page.
 *   - unit: name of the metric, which says how its values are written.
 *   - x: what the horizontal axis counts.
 *   - height: pixels.
 *   - onCrosshair: is called with the step under the pointer, or null; charts that belong together share it.
 */
export class LineChart {
  constructor({ name, unit = name, x = "step", height = 190, onCrosshair = null }) {
    Object.assign(this, { name, unit, x, height, onCrosshair });
    this.series = [];
    this.log = false;
    this.at = null;
    this.svg = draw("svg", { class: "chart", height, role: "presentation" });
    this.tip = make("div.tip", { "aria-hidden": "true", hidden: true });
    this.element = make(
      "div.plot",
      { role: "img", tabindex: "0", "aria-label": `${name}, line chart` },
      this.svg,
      this.tip,
    );
    this.waiting = false;
    new ResizeObserver(() => this.render()).observe(this.element);
    this.listen();
  }

  /**
   * Draws something else.
   * @param {object[]} series lines, each with: name; style, a class of colour; points `[x, y]`, where a y of null is a
   *   gap; and, if there are, faint (points drawn behind), band (`[x, low, high]`), level (a y of its own, drawn across).
   * @param {boolean} log whether the vertical axis is logarithmic, where all values allow it.
   */
  set(series, log = false) {
    this.series = series;
    this.log = log;
    this.refresh();
  }

  /** Draws anew with the next frame, however often it is asked to. */
  refresh() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.render();
    });
  }

  render() {
    const width = this.element.clientWidth;
    if (!width) return; // folded away; it is drawn when it is seen
    this.describe();
    const plot = this.layout(width);
    this.plot = plot;
    this.svg.setAttribute("viewBox", `0 0 ${width} ${this.height}`);
    this.svg.setAttribute("width", width);
    this.svg.replaceChildren(axes(plot), lines(this.series, plot));
    this.crosshair = draw("g", {});
    this.svg.append(this.crosshair);
    this.showAt(this.at);
  }

  describe() {
    const drawn = this.series.filter((line) => line.points?.length);
    const told = drawn.slice(0, 6).map((line) => {
      const [x, y] = line.points.at(-1);
      return `${line.name ? `${line.name}: ` : ""}${valueOf(this.unit, y)} at ${this.x} ${number(x)}`;
    });
    this.element.setAttribute(
      "aria-label",
      `${this.name}, line chart. ${told.join("; ") || "no values yet"}`,
    );
    this.element.dataset.points = drawn.reduce((sum, line) => sum + line.points.length, 0);
  }

  layout(width) {
    const ys = this.series.flatMap((line) => [
      ...[...(line.points ?? []), ...(line.faint ?? [])].map(([, y]) => y),
      ...(line.band ?? []).flatMap(([, low, high]) => [low, high]),
      ...(line.level === undefined ? [] : [line.level]),
    ]);
    const finite = ys.filter((y) => y !== null && y !== undefined);
    const log = this.log && finite.length > 0 && finite.every((y) => y > 0);
    const [low, high] = roomy(finite, log);
    const xs = this.series.flatMap((line) => (line.points ?? []).map(([x]) => x));
    let [first, last] = xs.length
      ? [xs.reduce((a, b) => Math.min(a, b)), xs.reduce((a, b) => Math.max(a, b))]
      : [0, 1];
    if (first === last) [first, last] = [first - 1, last + 1];
    const yTicks = log ? logTicks(low, high) : niceTicks(low, high, this.height < 240 ? 5 : 7);
    const share = isShare(this.unit) && finite.every((y) => y >= 0 && y <= 1);
    const yTexts = share
      ? tickTexts(yTicks.map((tick) => 100 * tick)).map((text) => `${text} %`)
      : tickTexts(yTicks);
    const left = 10 + LETTER * Math.max(...yTexts.map((text) => text.length));
    // Levels are named where they end, if there is room for their names.
    const named = width < ROOMY ? [] : this.series.filter((line) => line.level !== undefined);
    const margin = named.length ? 22 + LETTER * Math.max(...named.map((line) => line.name.length)) : 10;
    const box = { left, right: width - margin, top: 8, bottom: this.height - 24 };
    const xTicks = niceTicks(first, last, Math.max(2, Math.floor((box.right - left) / 70)), true);
    return {
      ...box,
      named,
      yTicks: yTicks.map((tick, place) => [tick, yTexts[place]]),
      xTicks: xTicks.map((tick, place) => [tick, tickTexts(xTicks)[place]]),
      x: scaled([first, last], [box.left, box.right]),
      y: scaled([low, high], [box.bottom, box.top], log),
      steps: [...new Set(xs)].sort((a, b) => a - b),
    };
  }

  listen() {
    const tell = (step) => (this.onCrosshair ? this.onCrosshair(step) : this.showAt(step));
    this.element.addEventListener("pointermove", (event) => {
      if (!this.plot?.steps.length) return;
      const x = event.clientX - this.svg.getBoundingClientRect().left;
      tell(nearest(this.plot.steps, x, this.plot.x));
    });
    this.element.addEventListener("pointerleave", () => tell(null));
    this.element.addEventListener("blur", () => tell(null));
    this.element.addEventListener("keydown", (event) => {
      const steps = this.plot?.steps ?? [];
      const jumps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
      if (event.key === "Escape") tell(null);
      if (!(event.key in jumps) || !steps.length) return;
      event.preventDefault();
      const now = this.at === null ? (event.key === "ArrowLeft" ? steps.length : -1) : steps.indexOf(this.at);
      tell(steps[Math.min(Math.max(now + jumps[event.key], 0), steps.length - 1)]);
    });
  }

  /** Shows the values at a step, or at none. */
  showAt(step) {
    this.at = step;
    const { plot, crosshair } = this;
    if (!crosshair) return;
    crosshair.replaceChildren();
    const found =
      step === null
        ? []
        : this.series.map((line) => [line, valueAt(line, step)]).filter(([, y]) => y !== null);
    this.tip.hidden = !found.length;
    if (!found.length) return;
    const x = plot.x(step);
    crosshair.append(draw("path", { class: "rule", d: `M${x},${plot.top}V${plot.bottom}` }));
    for (const [line, y] of found)
      if (line.level === undefined)
        crosshair.append(draw("circle", { class: line.style, cx: x, cy: plot.y(y), r: 4 }));
    this.tip.replaceChildren(
      make("b", {}, `${this.x} ${number(step)}`),
      ...found.map(([line, y]) =>
        make(
          "span",
          {},
          this.series.length > 1 && swatch(line),
          line.name && `${line.name} `,
          make("b", {}, valueOf(this.unit, y)),
        ),
      ),
    );
    // On the side of the crosshair where there is more room.
    const right = x > (plot.left + plot.right) / 2;
    this.tip.style.left = right ? "auto" : `${x + 12}px`;
    this.tip.style.right = right ? `${this.element.clientWidth - x + 12}px` : "auto";
  }
}

function valueAt(line, step) {
  if (line.level !== undefined) return line.level;
  return line.points.find(([x]) => x === step)?.[1] ?? null;
}

function nearest(steps, pixel, x) {
  return steps.reduce((best, step) => (Math.abs(x(step) - pixel) < Math.abs(x(best) - pixel) ? step : best));
}

function axes(plot) {
  const group = draw("g", {});
  for (const [tick, text] of plot.yTicks) {
    const y = plot.y(tick);
    group.append(
      draw("path", { class: "grid", d: `M${plot.left},${y}H${plot.right}` }),
      draw("text", { class: "axis", x: plot.left - 7, y: y + 4, "text-anchor": "end" }, text),
    );
  }
  for (const [tick, text] of plot.xTicks) {
    const x = plot.x(tick);
    const anchor = x > plot.right - 12 ? "end" : "middle";
    group.append(
      draw(
        "text",
        {
          class: "axis",
          x: anchor === "end" ? plot.right + 8 : x,
          y: plot.bottom + 18,
          "text-anchor": anchor,
        },
        text,
      ),
    );
  }
  return group;
}

function lines(series, plot) {
  const group = draw("g", {});
  for (const line of series)
    if (line.band?.length) {
      const upper = line.band.map(([x, , high]) => `${plot.x(x)},${plot.y(high)}`);
      const lower = line.band.map(([x, low]) => `${plot.x(x)},${plot.y(low)}`).reverse();
      group.append(draw("path", { class: `band ${line.style}`, d: `M${[...upper, ...lower].join("L")}Z` }));
    }
  for (const line of series) {
    if (line.level !== undefined) {
      group.append(
        draw("path", {
          class: `line level ${line.style}`,
          d: `M${plot.left},${plot.y(line.level)}H${plot.right}`,
        }),
      );
      continue;
    }
    if (line.faint)
      group.append(draw("path", { class: `line behind ${line.style}`, d: path(line.faint, plot) }));
    group.append(draw("path", { class: `line ${line.style}`, d: path(line.points, plot) }));
    const finite = line.points.filter(([, y]) => y !== null);
    const marked = finite.length <= MARKED ? finite : finite.slice(-1);
    for (const [x, y] of marked)
      group.append(
        draw("circle", {
          class: `point ${line.style}`,
          cx: plot.x(x),
          cy: plot.y(y),
          r: marked.length > 12 ? 2.2 : 3,
        }),
      );
  }
  group.append(...labels(plot));
  return group;
}

/** The names of levels at their ends, moved apart where they would cover each other. */
function labels(plot) {
  const placed = plot.named
    .map((line) => ({ line, end: plot.y(line.level), y: plot.y(line.level) }))
    .sort((a, b) => a.y - b.y);
  for (let place = 1; place < placed.length; place += 1)
    placed[place].y = Math.max(placed[place].y, placed[place - 1].y + 15);
  const below = Math.max(0, (placed.at(-1)?.y ?? 0) - plot.bottom);
  return placed.flatMap(({ line, end, y }) => [
    draw("path", {
      class: `leader ${line.style}`,
      d: `M${plot.right},${end}L${plot.right + 12},${y - below}`,
    }),
    draw("text", { class: `label ${line.style}`, x: plot.right + 16, y: y - below + 4 }, line.name),
  ]);
}

function path(points, plot) {
  let down = false;
  return points
    .map(([x, y]) => {
      if (y === null) {
        down = false;
        return "";
      }
      const command = `${down ? "L" : "M"}${plot.x(x).toFixed(1)},${plot.y(y).toFixed(1)}`;
      down = true;
      return command;
    })
    .join("");
}

/** A short piece of a line, to say which one is meant. */
export function swatch(line) {
  const mark = draw("svg", { class: `mark ${line.style}`, viewBox: "0 0 26 10", "aria-hidden": "true" });
  mark.append(draw("path", { class: "line", d: "M0,5H26" }));
  return mark;
}

/** Which line is which. */
export function legend(series) {
  return make(
    "ul.legend",
    {},
    series.map((line) => make("li", {}, swatch(line), line.name)),
  );
}
