// Waiting, and doing something again and again while a page is shown.

import { Unreachable } from "./api.js";
import { clearBanner, showBanner } from "./banner.js";

const LONGEST = 30_000;

/** Waits; ends early where the signal says so. */
export function sleep(milliseconds, signal) {
  return new Promise((resolve) => {
    if (signal?.aborted) return resolve();
    const end = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal?.addEventListener("abort", end);
  });
}

/** A banner that says that the service is not reached, and offers to try at once. */
export function showTrouble(error, seconds, tryNow) {
  const next = seconds >= 1 ? ` Trying again in ${Math.round(seconds)} s.` : " Trying again.";
  showBanner("network", error.message + next, { label: "Try now", run: tryNow });
}

/**
 * Does something now and then until the signal ends it. Where the service is not reached, a banner says so, and the
 * pauses grow. A page that nobody sees asks for nothing.
 * @param {(signal: AbortSignal) => Promise<number>} work gives the milliseconds until the next time; 0 for no more.
 * @param {AbortSignal} signal ends it.
 * @returns {() => void} has it done at once; what is under way is thrown away.
 */
export function repeat(work, signal) {
  let sooner = new AbortController();
  const run = async () => {
    let failures = 0;
    while (!signal.aborted) {
      sooner = new AbortController();
      const either = AbortSignal.any([signal, sooner.signal]);
      let pause;
      try {
        pause = await work(either);
        if (failures) clearBanner("network");
        failures = 0;
      } catch (error) {
        if (signal.aborted) return;
        if (either.aborted) continue;
        if (!(error instanceof Unreachable)) {
          showBanner("refused", error.message, {
            label: "Try again",
            run: () => (clearBanner("refused"), run()),
          });
          return;
        }
        failures += 1;
        pause = Math.min(1000 * 2 ** failures, LONGEST);
        showTrouble(error, pause / 1000, () => sooner.abort());
      }
      if (either.aborted) continue;
      await sleep(pause || 2 ** 30, either);
      await shown(signal);
    }
  };
  run();
  return () => sooner.abort();
}

/** Waits until the page is seen. */
function shown(signal) {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    const look = () => {
      if (document.hidden && !signal.aborted) return;
      document.removeEventListener("visibilitychange", look);
      resolve();
    };
    document.addEventListener("visibilitychange", look);
    signal.addEventListener("abort", look, { once: true });
  });
}
