// What may be asked of a job, as buttons. What cannot be taken back is asked for twice.

import { act, deleteJob, downloadModel } from "./api.js";
import { clearBanner, showBanner } from "./banner.js";
import { confirm } from "./dialog.js";
import { announce, button, make } from "./dom.js";
import { icon } from "./icons.js";
import { ACTIONS, isHeld } from "./state.js";

/**
 * The buttons for a job as it is.
 * @param {object} job as the API gives it.
 * @param {(job: object) => void} onMoved hears of the job as it is after an action.
 */
export function actionButtons(job, onMoved) {
  const buttons = job.actions.map((action) => {
    const { label, says } = ACTIONS[action];
    const primary = action === "start" || action === "resume";
    const act = button(label, {
      class: primary ? "primary" : null,
      title: says,
      onclick: () => ask(job, action, act, onMoved),
    });
    return act;
  });
  if (job.model_path) {
    const fetch = button(" Download model", {
      onclick: () => guarded(fetch, () => downloadModel(job.kind, job.id)),
    });
    fetch.prepend(icon("download"));
    buttons.push(fetch);
  }
  buttons.push(
    make(
      "a.button",
      { href: `#/new/${job.kind}?like=${job.id}`, title: "A new job with the same settings" },
      "Duplicate",
    ),
    make("a.button", { href: `#/compare?jobs=${job.kind}:${job.id}` }, "Compare"),
  );
  if (!isHeld(job.state)) {
    const remove = button("Delete", { class: "danger-quiet", onclick: () => discard(job, remove) });
    buttons.push(remove);
  }
  return buttons;
}

async function ask(job, action, pressed, onMoved) {
  const { question, consequence, confirm: label } = ACTIONS[action];
  if (question && !(await confirm(question, consequence, label))) return;
  await guarded(pressed, async () => onMoved(await act(job.kind, job.id, action)));
}

async function discard(job, pressed) {
  const sure = await confirm(
    `Delete \u201c${job.name}\u201d?`,
    "Its model, metrics, results and log are deleted with it. This cannot be undone.",
    "Delete",
  );
  if (!sure) return;
  await guarded(pressed, async () => {
    await deleteJob(job.kind, job.id);
    announce(`${job.name} was deleted`);
    location.hash = "#/jobs";
  });
}

async function guarded(pressed, work) {
  pressed.disabled = true;
  clearBanner("action");
  try {
    await work();
  } catch (error) {
    showBanner("action", error.message);
  } finally {
    pressed.disabled = false;
  }
}
