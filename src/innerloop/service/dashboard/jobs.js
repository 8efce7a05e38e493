// The page of all jobs: filters, search, pages, and rows that keep themselves up to date.

import { listJobs } from "./api.js";
import { button, make, setText } from "./dom.js";
import { number } from "./format.js";
import { JobRow } from "./job_row.js";
import { loadKinds } from "./kinds.js";
import { GROUPS, isActive, STATES } from "./state.js";
import { runExample } from "./starting.js";
import { repeat } from "./waiting.js";

const PAGE = 25;
const SEARCHED = 2000; // newest jobs of each kind that a search looks through
const BUSY = 1500; // milliseconds between two looks while something is going on
const CALM = 5000;

const chosen = new Map(); // jobs to be compared; they stay chosen while the reader looks elsewhere

/** Draws the page. */
export async function show(view, query, signal) {
  document.title = "Jobs · innerloop";
  const kinds = await loadKinds();
  const filter = {
    text: query.get("search") ?? "",
    kind: kinds.has(query.get("kind")) ? query.get("kind") : "",
    state: query.get("state") ?? "",
    page: Math.max(0, Number(query.get("page") ?? 1) - 1) || 0,
  };
  const list = new JobList(kinds);
  const tools = toolbar(filter, kinds, () => {
    remember(filter);
    wake();
  });
  const pages = make("nav.pages", { "aria-label": "Pages of jobs" });
  const count = make("p.say.count", { role: "status" });
  view.replaceChildren(
    make(
      "div.heading",
      {},
      make("h1", { tabindex: "-1" }, "Jobs"),
      make("a.button.primary", { href: "#/new" }, "New job"),
    ),
    tools,
    count,
    list.element,
    pages,
  );

  const wake = repeat(async (either) => {
    const found = await load(filter, [...kinds.keys()], either);
    // The last job of the last page may be gone.
    const last = Math.max(0, Math.ceil(found.total / PAGE) - 1);
    if (filter.page > last) {
      filter.page = last;
      return 1;
    }
    const bare = !filter.text && !filter.kind && !filter.state;
    list.show(found.items, found.total ? null : bare ? welcome() : nothing(filter, tools));
    setText(count, found.total ? counted(found.total, filter.page) : "");
    showPages(pages, filter, last, () => {
      remember(filter);
      wake();
      view.querySelector("h1").focus();
    });
    return found.items.some((job) => isActive(job.state)) ? BUSY : CALM;
  }, signal);
}

async function load(filter, all, signal) {
  const kinds = filter.kind ? [filter.kind] : all;
  const states = GROUPS[filter.state] ?? (STATES.includes(filter.state) ? [filter.state] : []);
  if (!filter.text) return listJobs(kinds, states, filter.page * PAGE, PAGE, signal);
  const { items } = await listJobs(kinds, states, 0, SEARCHED, signal);
  const words = filter.text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = items.filter((job) => {
    const text = `${job.name} ${job.description}`.toLowerCase();
    // Few letters of an id are in many ids.
    return words.every((word) => text.includes(word) || (word.length >= 6 && job.id.startsWith(word)));
  });
  return { items: found.slice(filter.page * PAGE, (filter.page + 1) * PAGE), total: found.length };
}

const counted = (total, page) =>
  total <= PAGE
    ? `${number(total)} ${total === 1 ? "job" : "jobs"}, newest first`
    : `${number(page * PAGE + 1)}\u2013${number(Math.min((page + 1) * PAGE, total))} of ${number(total)} jobs, newest first`;

/** Keeps the filter in the address, so that it survives a reload and can be passed on. */
function remember(filter) {
  const query = new URLSearchParams();
  if (filter.text) query.set("search", filter.text);
  if (filter.kind) query.set("kind", filter.kind);
  if (filter.state) query.set("state", filter.state);
  if (filter.page) query.set("page", filter.page + 1);
  history.replaceState(null, "", `#/jobs${query.size ? `?${query}` : ""}`);
}

function toolbar(filter, kinds, onChange) {
  let typing;
  const changed = () => {
    filter.page = 0;
    onChange();
  };
  const search = make("input", {
    type: "search",
    id: "search",
    placeholder: "Search by name",
    "aria-label": "Search by name",
    "aria-keyshortcuts": "/",
    value: filter.text,
    oninput: () => {
      clearTimeout(typing);
      typing = setTimeout(() => {
        filter.text = search.value.trim();
        changed();
      }, 150);
    },
  });
  const kind = make(
    "select",
    { "aria-label": "Kind", onchange: () => ((filter.kind = kind.value), changed()) },
    make("option", { value: "" }, "All kinds"),
    [...kinds.values()].map(({ kind: name, title }) => make("option", { value: name }, title)),
  );
  kind.value = filter.kind;
  const state = make(
    "select",
    { "aria-label": "State", onchange: () => ((filter.state = state.value), changed()) },
    make("option", { value: "" }, "All states"),
    Object.entries(GROUPS).map(([name, states]) =>
      make(
        "option",
        { value: name },
        `${name}: ${states.slice(0, 2).join(", ")}…`.replace("paused…", "paused"),
      ),
    ),
    make("hr", {}),
    STATES.map((name) => make("option", { value: name }, name)),
  );
  state.value = filter.state;
  const form = make(
    "form.tools",
    { role: "search", onsubmit: (event) => event.preventDefault() },
    make("div.search", {}, search, make("kbd", { "aria-hidden": "true" }, "/")),
    kind,
    state,
  );
  form.reset = () => {
    search.value = kind.value = state.value = "";
    Object.assign(filter, { text: "", kind: "", state: "" });
    changed();
    search.focus();
  };
  return form;
}

/** The rows; those of jobs that are shown already are kept, so that nothing is lost under the reader's hands. */
class JobList {
  constructor(kinds) {
    this.kinds = kinds;
    this.rows = new Map();
    this.list = make("ul.jobs", {});
    this.empty = make("div", {});
    this.choice = make("div.choice", { role: "region", "aria-label": "Comparison", hidden: true });
    this.element = make("div", {}, this.list, this.empty, this.choice);
    this.showChoice();
  }

  show(jobs, empty) {
    const rows = new Map();
    for (const job of jobs) {
      const row =
        this.rows.get(job.id) ??
        new JobRow(job, this.kinds, chosen.has(job.id), (on) => this.choose(row.job, on));
      row.set(job);
      rows.set(job.id, row);
    }
    const wanted = [...rows.values()].map((row) => row.element);
    for (const [id, row] of this.rows) if (!rows.has(id)) row.element.remove();
    wanted.forEach((element, place) => {
      if (this.list.children[place] !== element)
        this.list.insertBefore(element, this.list.children[place] ?? null);
    });
    this.rows = rows;
    if (!empty) this.empty.replaceChildren();
    else if (!this.empty.hasChildNodes() || this.empty.dataset.kind !== empty.dataset.kind) {
      this.empty.replaceChildren(empty);
      this.empty.dataset.kind = empty.dataset.kind;
    }
  }

  choose(job, on) {
    if (on) chosen.set(job.id, { kind: job.kind, id: job.id });
    else chosen.delete(job.id);
    this.showChoice();
  }

  showChoice() {
    this.choice.hidden = !chosen.size;
    const jobs = [...chosen.values()].map(({ kind, id }) => `${kind}:${id}`).join(",");
    this.choice.replaceChildren(
      make(
        "span",
        {},
        chosen.size === 1 ? "1 job chosen; choose another one to compare" : `${chosen.size} jobs chosen`,
      ),
      button("Clear", {
        class: "quiet",
        onclick: () => {
          chosen.clear();
          for (const row of this.rows.values()) row.choose(false);
          this.showChoice();
        },
      }),
      chosen.size > 1 && make("a.button.primary", { href: `#/compare?jobs=${jobs}` }, "Compare"),
    );
  }
}

function showPages(place, filter, last, onChange) {
  const go = (page) => () => {
    filter.page = page;
    onChange();
  };
  const shown = `${filter.page}/${last}`;
  if (place.dataset.shown === shown) return;
  place.dataset.shown = shown;
  place.replaceChildren();
  if (!last) return;
  place.append(
    button("Newer", { onclick: go(filter.page - 1), disabled: filter.page === 0 }),
    make("span", {}, `page ${filter.page + 1} of ${last + 1}`),
    button("Older", { onclick: go(filter.page + 1), disabled: filter.page === last }),
  );
}

function welcome() {
  return make(
    "section.empty",
    { "data-kind": "welcome" },
    make("h2", {}, "Nothing here yet"),
    make(
      "p.say",
      {},
      "A job trains, adapts or transfers a model; this page shows how it goes. The example trains a small scaling policy and is done in a few seconds.",
    ),
    make(
      "div.buttons",
      {},
      button("Run an example job", {
        class: "primary",
        onclick: (event) => runExample("tasks", event.currentTarget),
      }),
      make("a.button", { href: "#/new" }, "Set up your own"),
    ),
  );
}

function nothing(filter, tools) {
  const asked = [filter.text && `\u201c${filter.text}\u201d`, filter.kind, filter.state]
    .filter(Boolean)
    .join(", ");
  return make(
    "section.empty",
    { "data-kind": `nothing ${asked}` },
    make("h2", {}, "No job matches"),
    make("p.say", {}, `There is none for ${asked}.`),
    make(
      "div.buttons",
      {},
      button("Clear the filters", { onclick: () => tools.reset() }),
      make("a.button", { href: `#/new${filter.kind ? `/${filter.kind}` : ""}` }, "New job"),
    ),
  );
}
