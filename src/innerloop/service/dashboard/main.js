// Where everything begins: which address shows which page, and the keys that work on all of them.

import { Refused } from "./api.js";
import { clearBanner, showBanner } from "./banner.js";
import { show as showComparison } from "./compare.js";
import { show as showJob } from "./detail.js";
import { make } from "./dom.js";
import { show as showFound } from "./find.js";
import { show as showJobs } from "./jobs.js";
import { show as showForm } from "./submit.js";

const view = document.getElementById("content");

/** Pages by their addresses: a pattern, the page, and the entry of the navigation that it belongs to. */
const PAGES = [
  [/^\/jobs\/([^/]+)\/([^/]+)$/, "jobs", ([kind, id], query, signal) => showJob(view, kind, id, signal)],
  [/^\/jobs$/, "jobs", (_, query, signal) => showJobs(view, query, signal)],
  [/^\/find\/([^/]+)$/, "jobs", ([id], query, signal) => showFound(view, id, signal)],
  [/^\/compare$/, "compare", (_, query, signal) => showComparison(view, query, signal)],
  [/^\/new(?:\/([^/]+))?$/, "new", ([kind], query, signal) => showForm(view, kind, query, signal)],
];

let leaving = new AbortController();

async function go(first = false) {
  leaving.abort();
  leaving = new AbortController();
  const { signal } = leaving;
  clearBanner();
  const [path, query = ""] = location.hash.replace(/^#/, "").split("?");
  const page = PAGES.find(([pattern]) => pattern.test(path));
  if (!page) {
    location.replace("#/jobs");
    return;
  }
  const [pattern, entry, show] = page;
  for (const link of document.querySelectorAll("nav [data-page]"))
    if (link.dataset.page === entry) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  try {
    const shown = show(path.match(pattern).slice(1).map(decoded), new URLSearchParams(query), signal);
    // A page may go on after it is drawn; the first drawing takes a moment.
    if (!first) focusHeading(signal);
    await shown;
  } catch (error) {
    if (signal.aborted) return;
    const text =
      error instanceof Refused && error.status === 401 ? "This service asks for a token." : error.message;
    showBanner("page", text, { label: "Try again", run: () => go() });
    if (!view.querySelector("h1"))
      view.replaceChildren(make("p.say", {}, "Nothing can be shown without the service."));
  }
}

const decoded = (text) => text && decodeURIComponent(text);

/** Moves those who hear the page, or go by keyboard, to where the new page begins. */
function focusHeading(signal) {
  const old = view.querySelector("h1");
  const watcher = new MutationObserver(() => {
    const heading = view.querySelector("h1");
    if (!heading || heading === old) return;
    watcher.disconnect();
    scrollTo(0, 0);
    if (
      view.contains(document.activeElement) ||
      document.activeElement === document.body ||
      document.activeElement.closest("nav")
    )
      heading.focus({ preventScroll: true });
  });
  watcher.observe(view, { childList: true });
  signal.addEventListener("abort", () => watcher.disconnect());
}

document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input:not([type=checkbox]):not([type=range]), textarea, select, dialog")) return;
  event.preventDefault();
  const search = document.getElementById("search");
  if (search) search.focus();
  else location.hash = "#/jobs";
});

// The link to the content must not change the address, which says what page this is.
document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  view.focus();
});

addEventListener("hashchange", () => go());
go(true);
