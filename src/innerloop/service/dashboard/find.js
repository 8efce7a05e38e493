// The way to a job of which only the id is known, as requests name other jobs.

import { getJob, Refused } from "./api.js";
import { make } from "./dom.js";
import { loadKinds } from "./kinds.js";
import { pageOf } from "./state.js";

/** Goes to the job's page. */
export async function show(view, id, signal) {
  for (const kind of (await loadKinds()).keys())
    try {
      location.replace(pageOf(await getJob(kind, id, signal)));
      return;
    } catch (error) {
      if (!(error instanceof Refused) || ![404, 422].includes(error.status)) throw error;
    }
  view.replaceChildren(
    make("h1", { tabindex: "-1" }, "There is no such job"),
    make("p.say", {}, `None has the id ${id}; it may have been deleted.`),
    make("a.button", { href: "#/jobs" }, "All jobs"),
  );
}
