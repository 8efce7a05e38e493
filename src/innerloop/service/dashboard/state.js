// What every view of a job has in common: its state in a word and a picture, its progress, and what may be asked of it.

import { make, setText } from "./dom.js";
import { number } from "./format.js";
import { icon } from "./icons.js";

export const STATES = [
  "pending",
  "queued",
  "running",
  "pausing",
  "paused",
  "cancelling",
  "cancelled",
  "completed",
  "failed",
];

/** Choices of the filter: groups first. */
export const GROUPS = {
  active: ["queued", "running", "pausing", "cancelling"],
  waiting: ["pending", "paused"],
  over: ["completed", "failed", "cancelled"],
};

/** Whether a worker holds the job, so that it will change by itself. */
export const isHeld = (state) => ["running", "pausing", "cancelling"].includes(state);

/** Whether something may happen to the job without anybody asking for it. */
export const isActive = (state) => GROUPS.active.includes(state);

/** A state in a word, a picture and a colour. */
export class StateBadge {
  constructor(state) {
    this.element = make("span.state");
    this.set(state);
  }

  set(state) {
    if (this.element.dataset.state === state) return;
    this.element.dataset.state = state;
    this.element.replaceChildren(icon(state), state);
  }
}

/** How far a job is: a bar, and the episodes in figures. */
export class Progress {
  constructor(job) {
    this.bar = make("span.bar-done");
    this.track = make(
      "span.bar-track",
      { role: "progressbar", "aria-valuemin": 0, "aria-valuemax": 100 },
      this.bar,
    );
    this.text = make("span.bar-text");
    this.element = make("div.progress", {}, this.track, this.text);
    this.set(job);
  }

  set(job) {
    const text = `${number(job.current_episode)} / ${number(job.total_episodes)}`;
    this.track.setAttribute("aria-valuenow", job.progress);
    this.track.setAttribute("aria-valuetext", `episode ${job.current_episode} of ${job.total_episodes}`);
    this.track.setAttribute("aria-label", `Progress of ${job.name}`);
    this.track.dataset.state = job.state;
    this.bar.style.width = `${job.progress}%`;
    setText(this.text, text);
  }
}

export const ACTIONS = {
  start: { label: "Start", says: "Put it into the queue" },
  pause: { label: "Pause", says: "Save and halt" },
  resume: { label: "Resume", says: "Go on from the last checkpoint" },
  stop: {
    label: "Stop",
    says: "End it and keep what it has learned",
    question: "Stop this job?",
    consequence: "It ends where it is and keeps what it has learned. It cannot be resumed.",
    confirm: "Stop the job",
  },
  cancel: {
    label: "Cancel",
    says: "End it and throw away what it has learned",
    question: "Cancel this job?",
    consequence: "It ends, and what it has learned is thrown away. Stop keeps it.",
    confirm: "Cancel the job",
  },
};

/** The address of a job's page. */
export const pageOf = (job) => `#/jobs/${job.kind}/${job.id}`;
