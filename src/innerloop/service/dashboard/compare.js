// The page that lays one metric of several jobs over each other, and says in what the jobs differ.

import { getJob, getMetrics, listJobs, Refused } from "./api.js";
import { LineChart, legend } from "./chart.js";
import { make } from "./dom.js";
import { age, number, title, UNKNOWN, valueOf } from "./format.js";
import { loadKinds } from "./kinds.js";
import { bareName, linesOf, Metrics } from "./series.js";
import { askedOf } from "./settings.js";
import { isActive, pageOf, StateBadge } from "./state.js";
import { table } from "./tables.js";
import { repeat } from "./waiting.js";

const OFFERED = 100; // newest jobs to choose from
const BUSY = 2000; // milliseconds between two looks while something is going on
const CALM = 10_000;

/** Draws the page. */
export async function show(view, query, signal) {
  document.title = "Compare · innerloop";
  const kinds = await loadKinds();
  new Comparison(view, kinds, query, signal);
}

class Comparison {
  constructor(view, kinds, query, signal) {
    this.kinds = kinds;
    this.chosen = new Map(); // by id: kind, job, values by metric
    for (const pair of (query.get("jobs") ?? "").split(",").filter(Boolean)) {
      const [kind, id] = pair.split(":");
      if (kinds.has(kind) && id) this.chosen.set(id, { kind, id, job: null, values: new Map() });
    }
    this.metric = query.get("metric") ?? "";
    this.build(view);
    this.wake = repeat((either) => this.load(either), signal);
  }

  build(view) {
    this.find = make("input", {
      type: "search",
      id: "search",
      "aria-label": "Search by name",
      placeholder: "Search by name",
      oninput: () => this.offer(),
    });
    this.offers = make("ul.offers");
    this.select = make("select", { id: "metric", onchange: () => this.choose(this.select.value) });
    this.smoothing = make("input", {
      type: "range",
      id: "smooth",
      min: 0,
      max: 0.95,
      step: 0.05,
      value: 0,
      oninput: () => this.draw(),
    });
    this.log = make("input", { type: "checkbox", onchange: () => this.draw() });
    this.chart = new LineChart({ name: "Comparison", height: 380 });
    this.legend = make("div");
    this.differences = make("section", { "aria-label": "Differences" });
    this.hint = make("p.say");
    this.board = make(
      "div.board",
      {},
      make(
        "div.tools.inline",
        {},
        make("label", { for: "metric" }, "Metric"),
        this.select,
        make("label", { for: "smooth" }, "Smoothing"),
        this.smoothing,
        make("label", {}, this.log, "Log scale"),
      ),
      this.legend,
      make("figure.panel.large", {}, this.chart.element),
      this.differences,
    );
    view.replaceChildren(
      make("h1", { tabindex: "-1" }, "Compare"),
      this.hint,
      make(
        "div.compare",
        {},
        make(
          "fieldset.picker",
          {},
          make("legend", {}, "Jobs"),
          make("div.search", {}, this.find, make("kbd", { "aria-hidden": "true" }, "/")),
          this.offers,
        ),
        this.board,
      ),
    );
  }

  async load(signal) {
    const { items } = await listJobs([...this.kinds.keys()], [], 0, OFFERED, signal);
    this.jobs = items;
    await Promise.all([...this.chosen.values()].map((entry) => this.update(entry, signal)));
    this.offer();
    this.showMetrics();
    await this.values(signal);
    this.draw();
    return items.some((job) => isActive(job.state)) ? BUSY : CALM;
  }

  async update(entry, signal) {
    try {
      // Settings do not change; the rest is in the list already.
      const listed = this.jobs.find((job) => job.id === entry.id);
      entry.job =
        entry.job && listed ? { ...entry.job, ...listed } : await getJob(entry.kind, entry.id, signal);
    } catch (error) {
      if (!(error instanceof Refused)) throw error;
      this.chosen.delete(entry.id);
    }
  }

  /** Brings the values of the metric of all chosen jobs up to date. */
  async values(signal) {
    const wanted = [...this.chosen.values()].flatMap((entry) =>
      this.namesIn(entry).map((name) => [entry, name]),
    );
    await Promise.all(
      wanted.map(async ([entry, name]) => {
        if (!entry.values.has(name)) entry.values.set(name, new Metrics());
        const metrics = entry.values.get(name);
        metrics.add(await getMetrics(entry.kind, entry.id, metrics.last, name, signal));
      }),
    );
  }

  namesIn({ job }) {
    return Object.keys(job?.metrics ?? {}).filter((name) => bareName(name) === this.metric);
  }

  offer() {
    const text = this.find.value.trim().toLowerCase();
    const listed = [...(this.jobs ?? [])];
    for (const { job } of this.chosen.values())
      if (job && !listed.some(({ id }) => id === job.id)) listed.unshift(job);
    const shown = listed.filter((job) => job.name.toLowerCase().includes(text));
    const key = JSON.stringify(shown.map((job) => [job.id, job.state, this.chosen.has(job.id)]));
    if (this.offers.dataset.key === key) return; // nothing may move under the reader's hands without need
    this.offers.dataset.key = key;
    const focused = document.activeElement?.closest?.(".offers li")?.dataset.id;
    this.offers.replaceChildren(
      ...shown.map((job) => {
        const check = make("input", {
          type: "checkbox",
          checked: this.chosen.has(job.id),
          onchange: () => this.toggle(job, check.checked),
        });
        return make(
          "li",
          { "data-id": job.id },
          make(
            "label",
            {},
            check,
            make(
              "span.what",
              {},
              make("span.name", {}, job.name),
              new StateBadge(job.state).element,
              make("span.about", { title: `created ${age(job.created_at)}` }, this.kinds.get(job.kind).one),
            ),
          ),
        );
      }),
      ...(shown.length
        ? []
        : [make("li.say", {}, listed.length ? "No job matches." : "There are no jobs yet.")]),
    );
    if (focused) this.offers.querySelector(`li[data-id="${focused}"] input`)?.focus();
  }

  toggle(job, on) {
    if (on) this.chosen.set(job.id, { kind: job.kind, id: job.id, job: null, values: new Map() });
    else this.chosen.delete(job.id);
    this.remember();
    this.wake();
  }

  choose(metric) {
    this.metric = metric;
    this.remember();
    this.wake();
  }

  /** Keeps the choice in the address. */
  remember() {
    const query = new URLSearchParams();
    if (this.chosen.size)
      query.set("jobs", [...this.chosen.values()].map(({ kind, id }) => `${kind}:${id}`).join(","));
    if (this.metric) query.set("metric", this.metric);
    // A colon and a comma are no trouble in an address, and easier to read.
    history.replaceState(
      null,
      "",
      `#/compare${query.size ? `?${query.toString().replaceAll("%3A", ":").replaceAll("%2C", ",")}` : ""}`,
    );
  }

  showMetrics() {
    const counts = new Map();
    for (const { job } of this.chosen.values())
      for (const name of new Set(Object.keys(job?.metrics ?? {}).map(bareName)))
        counts.set(name, (counts.get(name) ?? 0) + 1);
    // Those that most of the jobs have come first; what a run costs comes last.
    const names = [...counts.keys()].sort(
      (a, b) => /^perf/.test(a) - /^perf/.test(b) || counts.get(b) - counts.get(a),
    );
    if (!counts.has(this.metric))
      this.metric = names.find((name) => /^(return|loss|meta_loss)$/.test(name)) ?? names[0] ?? "";
    const key = names.map((name) => name + counts.get(name)).join();
    if (this.select.dataset.key !== key) {
      this.select.dataset.key = key;
      const some = (name) =>
        counts.get(name) < this.chosen.size ? ` (${counts.get(name)} of ${this.chosen.size})` : "";
      this.select.replaceChildren(
        ...names.map((name) =>
          make("option", { value: name }, title(name.replaceAll("/", ": ")) + some(name)),
        ),
      );
    }
    this.select.value = this.metric;
  }

  draw() {
    const entries = [...this.chosen.values()].filter(({ job }) => job);
    this.board.hidden = !entries.length;
    this.hint.textContent = entries.length
      ? "One metric of several jobs, step by step. A job that runs goes on as you look."
      : "Choose two jobs or more to lay their curves over each other.";
    const named = entries.flatMap((entry) =>
      this.namesIn(entry).map((name) => [entry.job.name, entry.values.get(name)?.byName.get(name) ?? []]),
    );
    const told = named.map(([name], place) =>
      named.some(([other], at) => other === name && at !== place) ? `${name} (${place + 1})` : name,
    );
    const { series } = linesOf(
      named.map(([, points], place) => [told[place], points]),
      Number(this.smoothing.value),
    );
    this.chart.name = title(this.metric.replaceAll("/", ": "));
    this.chart.unit = this.metric;
    this.chart.set(series, this.log.checked);
    this.legend.replaceChildren(legend(series));
    this.tell(entries);
  }

  /** The table of what is not the same in all jobs. */
  tell(entries) {
    if (entries.length < 2) {
      this.differences.replaceChildren();
      return;
    }
    const flat = entries.map(({ kind, job }) => flattened(askedOf(job, this.kinds.get(kind))));
    const names = [...new Set(flat.flatMap(Object.keys))].filter(
      (name) => name !== "name" && new Set(flat.map((row) => row[name] ?? UNKNOWN)).size > 1,
    );
    const newest = entries.map((entry) =>
      valueOf(this.metric, this.namesIn(entry).map((name) => entry.job.metrics[name])[0]),
    );
    const rows = [
      ["state", ...entries.map(({ job }) => job.state)],
      [
        "episode",
        ...entries.map(({ job }) => `${number(job.current_episode)} / ${number(job.total_episodes)}`),
      ],
      [`${title(this.metric.replaceAll("/", ": "))}, newest`, ...newest],
      ...names.map((name) => [make("code", {}, breakable(name)), ...flat.map((row) => row[name] ?? UNKNOWN)]),
    ];
    const key = JSON.stringify([entries.map(({ id }) => id), newest, rows.slice(0, 2), names]);
    if (this.differences.dataset.key === key) return;
    this.differences.dataset.key = key;
    const links = entries.map(({ job }) => make("a", { href: pageOf(job) }, job.name));
    this.differences.replaceChildren(make("h2", {}, "In what they differ"), table(["", ...links], rows));
  }
}

/** A long name that may be broken where its parts begin. */
const breakable = (name) => name.split(/(?<=[._])/).flatMap((part) => [part, make("wbr")]);

/** Nested settings as lines: `evaluation.clusters`. */
function flattened(value, place = "", lines = {}) {
  if (value !== null && typeof value === "object" && !Array.isArray(value))
    for (const [name, inner] of Object.entries(value))
      flattened(inner, place ? `${place}.${name}` : name, lines);
  else if (Array.isArray(value) && value.some((entry) => entry !== null && typeof entry === "object"))
    lines[place] = `${value.length} entries`;
  else
    lines[place] =
      value === null
        ? UNKNOWN
        : typeof value === "number"
          ? number(value)
          : Array.isArray(value)
            ? value.join(", ")
            : String(value);
  return lines;
}
