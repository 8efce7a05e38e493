// The live charts of a job: one for each thing that is measured, in sections, with smoothing.

import { LineChart, legend } from "./chart.js";
import { button, freshId, make, setText } from "./dom.js";
import { number, title, valueOf } from "./format.js";
import { icon } from "./icons.js";
import { linesOf, placeOf, SECTIONS } from "./series.js";

/** All charts of a job; they are drawn anew as values come. */
export class MetricCharts {
  /** @param {Metrics} metrics of the job. */
  constructor(metrics) {
    this.metrics = metrics;
    this.panels = new Map();
    this.sections = new Map();
    this.smoothing = 0;
    this.log = false;
    this.empty = make("p.say", {}, "No values yet. They appear here while the job runs.");
    this.tools = this.toolbar();
    this.tools.hidden = true;
    this.body = make("div", {});
    this.element = make(
      "section",
      { "aria-label": "Metrics" },
      make("div.heading", {}, make("h2", {}, "Metrics"), this.tools),
      this.empty,
      this.body,
    );
  }

  /** Has the charts drawn that the named metrics belong to. */
  touch(names) {
    const touched = new Set();
    for (const name of names) {
      const place = placeOf(name);
      if (!this.panels.has(place.chart)) this.panels.set(place.chart, this.panel(place));
      const panel = this.panels.get(place.chart);
      panel.names.add(name);
      touched.add(panel);
    }
    for (const panel of touched) this.draw(panel);
    if (this.panels.size) this.empty.remove();
    this.tools.hidden = !this.panels.size;
  }

  /** Says that no values follow, where there are none. */
  closed() {
    setText(this.empty, "No values were written.");
  }

  toolbar() {
    const id = freshId("smoothing");
    const shown = make("output", { for: id }, "off");
    const range = make("input", {
      type: "range",
      id,
      min: 0,
      max: 0.95,
      step: 0.05,
      value: 0,
      oninput: () => {
        this.smoothing = Number(range.value);
        setText(shown, this.smoothing ? this.smoothing.toFixed(2) : "off");
        this.all();
      },
    });
    const log = make("input", { type: "checkbox", onchange: () => ((this.log = log.checked), this.all()) });
    return make(
      "div.tools.inline",
      {},
      make("label", { for: id }, "Smoothing"),
      range,
      shown,
      make("label", {}, log, "Log scale"),
    );
  }

  panel({ section, chart: key, label }) {
    const chart = new LineChart({
      name: title(label),
      unit: label,
      onCrosshair: (step) => {
        for (const panel of this.panels.values()) panel.chart.showAt(step);
      },
    });
    const newest = make("b.newest");
    const legendPlace = make("div");
    const figure = make(
      "figure.panel",
      { "data-chart": key },
      make("figcaption", {}, title(label), newest, this.widener(chart, title(label))),
      chart.element,
      legendPlace,
    );
    this.sectionOf(section).append(figure);
    return { chart, label, newest, legendPlace, names: new Set() };
  }

  widener(chart, name) {
    const wide = button("", {
      class: "quiet icon-only",
      "aria-label": `Show ${name} large`,
      "aria-pressed": "false",
      title: "Show large",
      onclick: () => {
        const large = wide.closest("figure").classList.toggle("large");
        wide.setAttribute("aria-pressed", String(large));
        chart.height = large ? 380 : 190;
        chart.refresh();
      },
    });
    wide.append(icon("widen"));
    return wide;
  }

  sectionOf(name) {
    if (!this.sections.has(name)) {
      const grid = make("div.panels");
      // What a run costs is seldom looked at.
      const whole = make("details", { open: name !== "Computing" }, make("summary", {}, name), grid);
      const after = SECTIONS.slice(SECTIONS.indexOf(name) + 1).find((later) => this.sections.has(later));
      this.body.insertBefore(whole, after ? this.sections.get(after).parentElement : null);
      this.sections.set(name, grid);
    }
    return this.sections.get(name);
  }

  all() {
    for (const panel of this.panels.values()) this.draw(panel);
  }

  draw(panel) {
    const named = [...panel.names].map((name) => [placeOf(name).line, this.metrics.byName.get(name)]);
    const { series, left } = linesOf(named, this.smoothing);
    panel.chart.set(series, this.log);
    const [only] = named;
    setText(
      panel.newest,
      named.length === 1 ? valueOf(panel.label, only[1].at(-1)[1]) : `${number(named.length)} lines`,
    );
    if (named.length < 2 || panel.drawnLegend === named.length) return;
    panel.drawnLegend = named.length;
    panel.legendPlace.replaceChildren(
      legend(series),
      left ? make("p.say", {}, `and ${left} more that are not drawn`) : "",
    );
  }
}
