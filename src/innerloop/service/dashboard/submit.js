// The page that makes a job: a form for the request of its kind, drawn from the API's own description.

import { getJob, listJobs, Refused } from "./api.js";
import { clearBanner, showBanner } from "./banner.js";
import { button, make } from "./dom.js";
import { fieldFor, JobField } from "./fields.js";
import { loadKinds } from "./kinds.js";
import { resolved } from "./schema.js";
import { askedOf } from "./settings.js";
import { freshKey, submit } from "./starting.js";

const OFFERED = 200; // newest jobs of a kind, where a request names another job

/** Draws the page. */
export async function show(view, kindName, query, signal) {
  document.title = "New job · innerloop";
  const kinds = await loadKinds();
  const kind = kinds.get(kindName);
  const choice = make(
    "nav.kinds",
    { "aria-label": "Kinds of jobs" },
    [...kinds.values()].map(({ kind: name, one, summary }) =>
      make(
        "a.kind",
        { href: `#/new/${name}`, "aria-current": name === kindName ? "page" : null },
        make("b", {}, one),
        make("span", {}, summary),
      ),
    ),
  );
  const heading = make("h1", { tabindex: "-1" }, "New job");
  if (!kind) {
    view.replaceChildren(heading, make("p.say", {}, "What shall it do?"), choice);
    return;
  }
  const like = query.get("like");
  const filled = like ? askedOf(await getJob(kind.kind, like, signal), kind) : kind.example;
  const form = new JobForm(kind, await fieldsOf(kind, kinds, signal), filled, Boolean(like));
  view.replaceChildren(heading, choice, form.element);
}

async function fieldsOf(kind, kinds, signal) {
  const { properties, required = [] } = resolved(kind.request, kind.schemas);
  return Promise.all(
    Object.entries(properties).map(async ([name, written]) => {
      const schema = resolved(written, kind.schemas);
      if (!/_task_id$/.test(name)) return fieldFor(name, written, required.includes(name), kind.schemas);
      // The description says in words of which kinds that job must be, and whether it must have completed.
      const told = schema.description ?? "";
      const named = [...kinds.keys()].filter((other) =>
        new RegExp(`(?<![\\w-])${other}(?![\\w-])`).test(told),
      );
      const states = /\bcompleted\b/.test(told) ? ["completed"] : [];
      const { items } = await listJobs(named.length ? named : [...kinds.keys()], states, 0, OFFERED, signal);
      const missing = `there is no ${states.length ? "completed " : ""}job of ${named.join(", ") || "any kind"} yet`;
      return new JobField({ name, schema, required: required.includes(name) }, items, missing);
    }),
  );
}

class JobForm {
  /**
   * @param {object} kind of job.
   * @param {Field[]} fields of its request.
   * @param {object} filled a request to begin with.
   * @param {boolean} again whether that is another job's rather than the example.
   */
  constructor(kind, fields, filled, again) {
    Object.assign(this, { kind, fields, key: freshKey() });
    for (const field of fields) this.fill(field, filled, again);
    const shown = ({ name, required }) => required || name in kind.example || name === "description";
    this.start = make("input", { type: "checkbox", id: "start", checked: true });
    this.send = make("button.primary", { type: "submit" }, "Create job");
    this.summary = make("div", { role: "alert" });
    const hidden = fields.filter((field) => !shown(field));
    this.more = make(
      "details.more",
      {},
      make("summary", {}, `More settings (${hidden.length})`),
      make(
        "div.fields",
        {},
        hidden.map(({ element }) => element),
      ),
    );
    this.command = make("pre", { tabindex: "0" });
    const asCommand = make(
      "details",
      { ontoggle: () => this.tell() },
      make("summary", {}, "The same by curl"),
      this.command,
    );
    this.element = make(
      "form.job-form",
      {
        novalidate: true,
        "aria-label": `New ${kind.one}`,
        onsubmit: (event) => this.submit(event),
        oninput: () => this.changed(),
      },
      make(
        "p.say",
        {},
        again
          ? "Filled in as in the job that you duplicate."
          : "Filled in with a small example; change what you like.",
        " What is marked with ",
        make("span.star", {}, "*"),
        " is required.",
      ),
      this.summary,
      make(
        "div.fields",
        {},
        fields.filter(shown).map(({ element }) => element),
      ),
      hidden.length ? this.more : null,
      make(
        "div.buttons.last",
        {},
        this.send,
        make("label", {}, this.start, "Start at once"),
        button("Empty the form", { class: "quiet", onclick: () => this.clear() }),
      ),
      asCommand,
    );
    this.asCommand = asCommand;
  }

  fill(field, filled, again) {
    // The ids of the example's jobs are made up.
    if (field instanceof JobField && !again) return;
    if (filled[field.name] !== undefined && filled[field.name] !== null) field.set(filled[field.name]);
  }

  clear() {
    for (const field of this.fields)
      field.set(field.schema.enum && field.schema.default !== undefined ? field.schema.default : undefined);
    this.complain([]);
    this.changed();
    this.fields[0].focus();
  }

  changed() {
    // Another body is another job; the same one, sent again after a failure, is not.
    this.key = freshKey();
    this.tell();
  }

  read() {
    const body = {};
    const wrong = [];
    for (const field of this.fields)
      try {
        const value = field.read();
        if (value !== undefined) body[field.name] = value;
      } catch (error) {
        wrong.push({ loc: ["body", field.name], msg: error.message });
      }
    return { body, wrong };
  }

  tell() {
    if (!this.asCommand.open) return;
    const text = JSON.stringify(this.read().body, null, 2).replaceAll("'", "'\\''");
    this.command.textContent = `curl -X POST ${location.origin}/api/training/${this.kind.kind} \\\n  -H 'Content-Type: application/json' \\\n  -d '${text}'`;
  }

  async submit(event) {
    event.preventDefault();
    if (this.send.disabled) return;
    clearBanner();
    const { body, wrong } = this.read();
    this.complain(wrong);
    if (wrong.length) return;
    this.send.disabled = true;
    try {
      await submit(this.kind.kind, body, this.start.checked, this.key);
    } catch (error) {
      if (error instanceof Refused && error.fields.length) this.complain(error.fields);
      else
        showBanner("action", error.message, { label: "Try again", run: () => this.element.requestSubmit() });
    } finally {
      this.send.disabled = false;
    }
  }

  /** Shows what is wrong beside the fields, and what belongs to none of them above. */
  complain(wrong) {
    for (const field of this.fields) field.complain("");
    const general = [];
    const found = new Set();
    for (const { loc, msg } of wrong) {
      const [, name, ...place] = loc;
      const field = this.fields.find((each) => each.name === name);
      const text = msg.replace(/^Value error, /, "");
      if (!field) general.push(text);
      else {
        field.complain(text, place);
        found.add(field);
      }
    }
    this.summary.replaceChildren();
    if (!wrong.length) return;
    const fields = [...found];
    if (fields.some((field) => this.more.contains(field.element))) this.more.open = true;
    this.summary.append(
      make(
        "div.failure",
        {},
        make("b", {}, "The service did not accept this"),
        general.map((text) => make("p", {}, text)),
        fields.length ? make("p", {}, `See ${fields.map(({ name }) => name).join(", ")}.`) : null,
      ),
    );
    if (fields.length) fields.sort((a, b) => this.fields.indexOf(a) - this.fields.indexOf(b))[0].focus();
    else this.summary.scrollIntoView({ block: "center" });
  }
}
