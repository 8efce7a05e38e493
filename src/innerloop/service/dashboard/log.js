// The log of a job, which follows what is written until the reader scrolls away from its end.

import { make } from "./dom.js";
import { number } from "./format.js";

const KEPT = 5000; // lines; more make a page slow

/** The log. */
export class LogView {
  constructor() {
    this.last = 0;
    this.following = make("input", { type: "checkbox", checked: true, onchange: () => this.follow() });
    this.count = make("span.say");
    this.lines = make("pre.log", {
      tabindex: "0",
      role: "log",
      "aria-live": "off",
      "aria-label": "Log of the job",
    });
    this.lines.addEventListener("scroll", () => {
      this.following.checked = this.isAtEnd();
    });
    this.element = make(
      "section",
      { "aria-label": "Log" },
      make(
        "div.heading",
        {},
        make("h2", {}, "Log"),
        make("div.tools.inline", {}, this.count, make("label", {}, this.following, "Follow")),
      ),
      this.lines,
    );
    this.lines.dataset.empty = "No lines.";
  }

  /** Adds lines, and passes over those that are here. */
  add(lines) {
    const fresh = lines.filter((line) => line.number > this.last);
    if (!fresh.length) return;
    this.last = fresh.at(-1).number;
    this.lines.append(...fresh.map((line) => make("span", {}, `${line.text}\n`)));
    while (this.lines.childElementCount > KEPT) this.lines.firstElementChild.remove();
    const left = this.last - this.lines.childElementCount;
    this.count.textContent = `${number(this.last)} ${this.last === 1 ? "line" : "lines"}${left > 0 ? `, the first ${number(left)} not shown` : ""}`;
    this.follow();
  }

  follow() {
    if (this.following.checked) this.lines.scrollTop = this.lines.scrollHeight;
  }

  isAtEnd() {
    return this.lines.scrollHeight - this.lines.scrollTop - this.lines.clientHeight < 24;
  }
}
