// One job in a list.

import { make, setText } from "./dom.js";
import { age, time } from "./format.js";
import { pageOf, Progress, StateBadge } from "./state.js";

/** A row that is kept while its job changes. */
export class JobRow {
  /**
   * @param {object} job as the API gives it.
   * @param {Map} kinds of jobs.
   * @param {boolean} chosen whether it is to be compared.
   * @param {(on: boolean) => void} onChoose hears of it when that changes.
   */
  constructor(job, kinds, chosen, onChoose) {
    this.kinds = kinds;
    this.badge = new StateBadge(job.state);
    this.progress = new Progress(job);
    this.name = make("a.name", { href: pageOf(job) });
    this.about = make("span.about");
    this.error = make("p.trouble");
    this.when = make("time");
    this.check = make("input", {
      type: "checkbox",
      checked: chosen,
      onchange: () => onChoose(this.check.checked),
    });
    this.element = make(
      "li.job",
      { "data-id": job.id },
      make("label.pick", { title: "Choose to compare" }, this.check),
      make("div.what", {}, this.name, this.about, this.error),
      this.badge.element,
      this.progress.element,
      this.when,
    );
    this.set(job);
  }

  set(job) {
    this.job = job;
    this.badge.set(job.state);
    this.progress.set(job);
    setText(this.name, job.name);
    setText(this.about, this.kinds.get(job.kind)?.one ?? job.kind);
    setText(this.error, job.error_message ?? "");
    setText(this.when, age(job.created_at));
    this.when.dateTime = job.created_at;
    this.when.title = `created ${time(job.created_at)}`;
    this.check.setAttribute("aria-label", `Compare ${job.name}`);
  }

  choose(on) {
    this.check.checked = on;
  }
}
