// The page of one job: where it stands, what may be asked of it, its charts, its log and what came of it. All of it
// comes from the stream of the job's events.

import { getJob, getResults, pathOf, Refused } from "./api.js";
import { actionButtons } from "./actions.js";
import { clearBanner, showBanner } from "./banner.js";
import { MetricCharts } from "./charts.js";
import { announce, make, setText } from "./dom.js";
import { age, duration, time, UNKNOWN } from "./format.js";
import { loadKinds } from "./kinds.js";
import { LogView } from "./log.js";
import { drawResults } from "./results.js";
import { Metrics } from "./series.js";
import { drawSettings } from "./settings.js";
import { Progress, StateBadge } from "./state.js";
import { events } from "./stream.js";
import { showTrouble, sleep } from "./waiting.js";

const CALM = 20_000; // milliseconds between two looks at a job that is over

/** Draws the page. */
export async function show(view, kindName, id, signal) {
  const kind = (await loadKinds()).get(kindName);
  let job;
  try {
    job = await getJob(kindName, id, signal);
  } catch (error) {
    if (!(error instanceof Refused) || ![404, 422].includes(error.status)) throw error;
    document.title = "No such job · innerloop";
    view.replaceChildren(
      make("h1", { tabindex: "-1" }, "There is no such job"),
      make("p.say", {}, "It may have been deleted."),
      make("a.button", { href: "#/jobs" }, "All jobs"),
    );
    return;
  }
  await new JobPage(view, kind, job, signal).follow();
}

class JobPage {
  constructor(view, kind, job, signal) {
    Object.assign(this, { kind, job, signal });
    this.metrics = new Metrics();
    this.charts = new MetricCharts(this.metrics);
    this.log = new LogView();
    this.badge = new StateBadge(job.state);
    this.progress = new Progress(job);
    this.actions = make("div.buttons.actions", { role: "group", "aria-label": "Actions" });
    this.error = make("div", {});
    this.facts = make("dl.facts", {});
    this.results = make("section", { "aria-label": "Results", hidden: true });
    view.replaceChildren(
      make(
        "p.over",
        {},
        make("a", { href: "#/jobs" }, "Jobs"),
        " / ",
        make("a", { href: `#/jobs?kind=${kind.kind}` }, kind.title),
      ),
      make("div.heading", {}, make("h1", { tabindex: "-1" }, job.name), this.badge.element),
      job.description ? make("p", {}, job.description) : "",
      this.error,
      this.progress.element,
      this.actions,
      this.facts,
      this.results,
      this.charts.element,
      this.log.element,
      make("section", { "aria-label": "Settings" }, make("h2", {}, "Settings"), drawSettings(job, kind)),
    );
    this.set(job, true);
    const ticking = setInterval(() => this.showFacts(), 1000);
    signal.addEventListener("abort", () => clearInterval(ticking));
  }

  /** Follows the job's events until the page is left; after the end it looks now and then whether it was resumed. */
  async follow() {
    let last = "";
    while (!this.signal.aborted) {
      try {
        last = await this.listen(last);
      } catch (error) {
        if (!(error instanceof Refused)) throw error;
        showBanner("action", error.status === 404 ? "This job was deleted." : error.message);
        return;
      }
      const sooner = new AbortController();
      this.again = () => sooner.abort();
      await sleep(CALM, AbortSignal.any([this.signal, sooner.signal]));
    }
  }

  async listen(last) {
    const path = `${pathOf(this.kind.kind, this.job.id)}/events`;
    const trouble = (error, seconds) => {
      if (error) showTrouble(error, seconds, () => location.reload());
      else clearBanner("network");
    };
    for await (const event of events(path, this.signal, trouble, last)) {
      last = event.id || last;
      if (event.name === "metrics") this.charts.touch(this.metrics.add(event.data));
      else if (event.name === "log") this.log.add(event.data);
      else if (event.name === "job") this.set(event.data);
    }
    return last;
  }

  set(news, first = false) {
    // The answer to an action may come after the event that tells what became of it.
    if (Date.parse(news.updated_at) < Date.parse(this.job.updated_at)) return;
    const before = this.job.state;
    this.job = { ...this.job, ...news };
    const { job } = this;
    this.badge.set(job.state);
    this.progress.set(job);
    document.title = `${job.state === "running" ? `${Math.round(job.progress)} % ` : ""}${job.name} · innerloop`;
    if (first || job.state !== before) {
      if (!first) announce(`${job.name}: ${job.state}`);
      this.showActions();
      this.showError();
      this.showResults();
    }
    if (job.finished_at) this.charts.closed();
    this.showFacts();
  }

  showActions() {
    const focused = this.actions.contains(document.activeElement);
    this.actions.replaceChildren(...actionButtons(this.job, (now) => this.moved(now)));
    // Whoever works by keyboard stays where the buttons are.
    if (focused) this.actions.querySelector("button, a")?.focus();
  }

  moved(now) {
    this.set(now);
    this.again?.();
  }

  showError() {
    const { error_message: message, state } = this.job;
    this.error.replaceChildren();
    if (message)
      this.error.append(
        make(
          "div.failure",
          { role: "alert" },
          make("b", {}, state === "failed" ? "The job failed" : "The last try failed"),
          make("p", {}, message),
        ),
      );
  }

  showFacts() {
    const { job } = this;
    const { started_at: started, finished_at: finished } = job;
    const facts = {
      id: job.id,
      created: `${time(job.created_at)} (${age(job.created_at)})`,
      started: started ? time(started) : UNKNOWN,
      [finished ? "took" : "since then"]: started
        ? duration(((finished ? Date.parse(finished) : Date.now()) - Date.parse(started)) / 1000)
        : UNKNOWN,
      ...(job.wandb_run_id ? { "W&B run": job.wandb_run_id } : {}),
    };
    const names = Object.keys(facts).join();
    if (this.facts.dataset.names !== names) {
      this.facts.dataset.names = names;
      this.facts.replaceChildren(
        ...Object.keys(facts).map((name) => make("div", {}, make("dt", {}, name), make("dd"))),
      );
    }
    Object.values(facts).forEach((text, place) => setText(this.facts.children[place].lastChild, text));
  }

  async showResults() {
    if (this.job.state !== "completed") {
      this.results.hidden = true;
      return;
    }
    try {
      const { results } = await getResults(this.kind.kind, this.job.id, this.signal);
      this.results.replaceChildren(
        make("h2", {}, "Results"),
        ...drawResults(results, this.kind.results, this.kind.schemas),
      );
      this.results.hidden = false;
    } catch (error) {
      if (!this.signal.aborted)
        showBanner("action", `The results did not come: ${error.message}`, {
          label: "Try again",
          run: () => (clearBanner("action"), this.showResults()),
        });
    }
  }
}
