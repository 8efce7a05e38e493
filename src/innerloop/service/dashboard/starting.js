// Making a job and starting it, with what may go wrong in between.

import { act, createJob } from "./api.js";
import { clearBanner, showBanner } from "./banner.js";
import { loadKinds } from "./kinds.js";
import { pageOf } from "./state.js";

/** A key under which a creation happens once. `crypto.randomUUID` is missing where a service has no TLS. */
export function freshKey() {
  return [...crypto.getRandomValues(new Uint8Array(16))]
    .map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
}

/**
 * Makes a job, and opens its page.
 * @param {string} kind of job.
 * @param {object} body that the API takes.
 * @param {boolean} start whether it is put into the queue.
 * @param {string} key see `createJob`.
 */
export async function submit(kind, body, start, key) {
  let job = await createJob(kind, body, key);
  let trouble = null;
  if (start)
    try {
      // One that was made by an earlier try of the same request may have been started by it, too.
      if (job.actions.includes("start")) job = await act(kind, job.id, "start");
    } catch (error) {
      trouble = error;
    }
  location.hash = pageOf(job);
  if (trouble) showBanner("action", `The job was made, but not started: ${trouble.message}`);
}

/** Makes and starts the example of a kind. */
export async function runExample(kind, pressed) {
  pressed.disabled = true;
  clearBanner("action");
  try {
    const { example } = (await loadKinds()).get(kind);
    await submit(kind, example, true, freshKey());
  } catch (error) {
    showBanner("action", error.message, { label: "Try again", run: () => runExample(kind, pressed) });
  } finally {
    pressed.disabled = false;
  }
}
