// Small pictures beside words; never in their place.

import { draw } from "./dom.js";

const PATHS = {
  pending: "M8 3.2a4.8 4.8 0 1 1 0 9.6a4.8 4.8 0 0 1 0-9.6",
  queued: "M8 3.2a4.8 4.8 0 1 1 0 9.6a4.8 4.8 0 0 1 0-9.6M8 5.6V8l1.8 1.4",
  running: "M5.5 3.6v8.8l7-4.4z",
  pausing: "M5.8 4v8M10.2 4v8",
  paused: "M5.8 4v8M10.2 4v8",
  cancelling: "M8 3.2a4.8 4.8 0 1 1 0 9.6a4.8 4.8 0 0 1 0-9.6M4.8 11.2l6.4-6.4",
  cancelled: "M8 3.2a4.8 4.8 0 1 1 0 9.6a4.8 4.8 0 0 1 0-9.6M4.8 11.2l6.4-6.4",
  completed: "M3.4 8.4l3 3l6.2-6.6",
  failed: "M4.2 4.2l7.6 7.6M11.8 4.2l-7.6 7.6",
  download: "M8 2.8v7M5 7.2l3 3l3-3M3.2 13h9.6",
  remove: "M4.6 4.6l6.8 6.8M11.4 4.6l-6.8 6.8",
  widen: "M9.4 6.6l3.4-3.4M9.6 3h3.4v3.4M6.6 9.4l-3.4 3.4M3 9.6v3.4h3.4",
};

/** A picture of the name; it is hidden from those who hear the page, for whom a word stands beside it. */
export function icon(name) {
  const picture = draw("svg", { class: `icon icon-${name}`, viewBox: "0 0 16 16", "aria-hidden": "true" });
  picture.append(draw("path", { d: PATHS[name] }));
  return picture;
}
