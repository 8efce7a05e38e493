// Numbers, times and names as a reader wants to see them.

const MINUS = "\u2212";
export const UNKNOWN = "\u2013";
const NARROW = "\u202f"; // a space that does not break

const grouped = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const moment = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });

/** A number with four digits that count: `12,400`, `0.3142`, `4.8e−5`; a dash for none. */
export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return UNKNOWN;
  const size = Math.abs(value);
  let text;
  if (Number.isInteger(value) || size >= 1e4)
    text = size < 1e15 ? grouped.format(value) : value.toExponential(2);
  else if (size >= 1e-3) text = String(Number(value.toPrecision(4)));
  else text = value.toExponential(2).replace(/\.?0+e/, "e");
  return text.replaceAll("-", MINUS);
}

/** A number with its sign: `+0.02`. */
export function change(value) {
  return value > 0 ? `+${number(value)}` : number(value);
}

/** A share in per cent: `38.2 %`. */
export function percent(share) {
  return share === null || share === undefined
    ? UNKNOWN
    : `${(100 * share).toFixed(1).replace("-", MINUS)}${NARROW}%`;
}

/** A value as its name says that it is meant: bytes, seconds, a share, or a number. */
export function valueOf(name, value) {
  if (typeof value !== "number") return value === null || value === undefined ? UNKNOWN : String(value);
  if (/bytes$/.test(name)) return bytes(value);
  if (/(^|[_/])seconds$/.test(name)) return value < 60 ? `${number(value)}${NARROW}s` : duration(value);
  if (isShare(name) && value >= 0 && value <= 1) return percent(value);
  return number(value);
}

/** Whether a metric of the name is a share, to be shown in per cent. */
export const isShare = (name) =>
  /(accuracy|violations|fraction)$/.test(name) && !/adaptation_accuracy$/.test(name);

/** Bytes in the unit that fits: `438 MiB`. */
export function bytes(value) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let place = 0;
  while (value >= 1024 && place < units.length - 1) {
    value /= 1024;
    place += 1;
  }
  return `${value < 10 && place ? value.toFixed(1) : Math.round(value)}${NARROW}${units[place]}`;
}

/** A stretch of time: `6 s`, `2 min 5 s`, `1 h 3 min`, `3 d 4 h`. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  const parts = [
    [86400, "d"],
    [3600, "h"],
    [60, "min"],
    [1, "s"],
  ];
  const first = parts.findIndex(([size]) => whole >= size);
  if (first < 0) return `0${NARROW}s`;
  return parts
    .slice(first, first + 2)
    .map(([size, unit], place) => [Math.floor(place ? (whole % parts[first][0]) / size : whole / size), unit])
    .filter(([amount], place) => amount || !place)
    .map(([amount, unit]) => `${amount}${NARROW}${unit}`)
    .join(" ");
}

/** How long ago something was: `just now`, `5 min ago`. */
export function age(when) {
  const seconds = (Date.now() - Date.parse(when)) / 1000;
  if (seconds < 45) return "just now";
  if (seconds < 3600) return `${Math.max(1, Math.round(seconds / 60))}${NARROW}min ago`;
  if (seconds < 86400) return `${Math.round(seconds / 3600)}${NARROW}h ago`;
  return `${Math.round(seconds / 86400)}${NARROW}d ago`;
}

/** A point in time, in the reader's zone. */
export function time(when) {
  return moment.format(new Date(when));
}

const WORDS = {
  lr: "learning rate",
  slo: "SLO",
  kl: "KL",
  id: "ID",
  grad: "gradient",
  avg: "mean",
  approx: "approximate",
  ppo: "PPO",
};

/** A name of the API in words: `inner_lr` is `inner learning rate`. */
export function words(name) {
  return name
    .split("_")
    .map((word) => WORDS[word] ?? word)
    .join(" ");
}

/** The same, as it begins a line. */
export function title(name) {
  const text = words(name);
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** JSON with plain lists and small objects on one line each. */
export function shortLines(value) {
  return JSON.stringify(value, null, 2)
    .replace(/\[\s+([^[\]{}]*?)\s+\]/g, (_, inner) => `[${inner.replace(/,\s+/g, ", ")}]`)
    .replace(/\{\s+([^[\]{}]*?)\s+\}/g, (whole, inner) =>
      inner.length < 90 ? `{ ${inner.replace(/,\s+"/g, ', "')} }` : whole,
    );
}
