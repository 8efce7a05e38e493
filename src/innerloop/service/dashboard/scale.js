// From values to pixels, and round numbers for the axes.

const STEPS = [1, 2, 2.5, 5, 10];

/**
 * Round numbers within a range.
 * @param {number} low of the range.
 * @param {number} high of the range.
 * @param {number} most about so many of them.
 * @param {boolean} whole whether only whole numbers make sense.
 */
export function niceTicks(low, high, most, whole = false) {
  const span = high - low;
  if (!(span > 0)) return [low];
  const size = 10 ** Math.floor(Math.log10(span / most));
  let step = size * STEPS.find((factor) => span / (factor * size) <= most);
  if (whole) step = Math.max(1, Math.round(step));
  const ticks = [];
  for (let place = Math.ceil(low / step - 1e-9); place * step <= high + step * 1e-9; place += 1)
    ticks.push(Number((place * step).toPrecision(12)));
  return ticks;
}

/** Powers of ten within a range, and 2 and 5 of them where there is room. */
export function logTicks(low, high) {
  const decades = Math.log10(high) - Math.log10(low);
  const factors = decades < 1.5 ? [1, 2, 5] : [1];
  const jump = Math.max(1, Math.ceil(decades / 5));
  const ticks = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += jump)
    for (const factor of factors) {
      const tick = Number((factor * 10 ** power).toPrecision(12));
      if (tick >= low && tick <= high) ticks.push(tick);
    }
  return ticks.length > 1 ? ticks : niceTicks(low, high, 4);
}

/** Ticks as short text, all with the same decimals: `0.25`, `12k`, `1e-5`. */
export function tickTexts(ticks) {
  const largest = Math.max(...ticks.map(Math.abs));
  const smallest = Math.min(...ticks.filter((tick) => tick).map(Math.abs));
  if (largest && (largest < 1e-3 || (smallest < 1e-3 && largest / smallest > 1e3)))
    return ticks.map((tick) => (tick ? signed(tick.toExponential().replace("e+", "e")) : "0"));
  const units = [
    [1e9, "G"],
    [1e6, "M"],
    [1e4, "k"],
  ];
  const [size, unit] = units.find(([from]) => largest >= from) ?? [1, ""];
  const scale = unit === "k" ? 1e3 : size;
  const decimals = Math.max(...ticks.map((tick) => decimalsOf(tick / scale)));
  return ticks.map((tick) => signed((tick / scale).toFixed(decimals)) + (tick ? unit : ""));
}

function decimalsOf(value) {
  const text = String(Number(value.toPrecision(6)));
  return text.includes("e") ? 6 : (text.split(".")[1] ?? "").length;
}

const signed = (text) => text.replaceAll("-", "\u2212");

/**
 * From a range of values to a range of pixels.
 * @param {number[]} values low and high.
 * @param {number[]} pixels where these lie.
 * @param {boolean} log whether equal ratios are equal distances.
 * @returns {(value: number) => number}
 */
export function scaled([low, high], [from, to], log = false) {
  const bend = log ? Math.log10 : (value) => value;
  const span = bend(high) - bend(low) || 1;
  return (value) => from + ((bend(value) - bend(low)) / span) * (to - from);
}

/** The range of values with some room on both sides; equal values get room too. */
export function roomy(values, log = false) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low > high) return [0, 1];
  if (log)
    return low === high ? [low / 2, high * 2] : [low / (high / low) ** 0.06, high * (high / low) ** 0.06];
  const room = high > low ? 0.06 * (high - low) : Math.abs(high) * 0.1 || 1;
  return [low - room, high + room];
}
