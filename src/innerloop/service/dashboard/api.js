// Talking to the service: requests with the token, refusals as errors that say what was wrong.

import { askForToken, token } from "./session.js";

const ROOT = "/api/training";
const MOST_LISTED = 200;

/** The service cannot be reached, or cannot reach its database; the same request may succeed later. */
export class Unreachable extends Error {}

/** The service said no. */
export class Refused extends Error {
  /**
   * @param {number} status of HTTP.
   * @param {string|Array} detail as the service gave it: a line, or what was wrong with which fields.
   */
  constructor(status, detail) {
    const fields = Array.isArray(detail) ? detail : [];
    super(fields.length ? fields.map((entry) => entry.msg).join("; ") : String(detail));
    this.status = status;
    this.fields = fields;
  }
}

/**
 * Sends a request, and asks for the token where one is needed.
 * @param {string} path of the service.
 * @param {object} options method, body (to be sent as JSON), headers, signal.
 * @returns {Promise<Response>} that went well.
 */
export async function send(path, { method = "GET", body, headers = {}, signal } = {}) {
  for (;;) {
    const secret = token();
    const all = { ...headers };
    if (secret) all.Authorization = `Bearer ${secret}`;
    if (body !== undefined) all["Content-Type"] = "application/json";
    let response;
    try {
      const sent = body === undefined ? undefined : JSON.stringify(body);
      response = await fetch(path, { method, headers: all, body: sent, signal, cache: "no-store" });
    } catch (error) {
      if (signal?.aborted) throw error;
      throw new Unreachable("The service cannot be reached.");
    }
    if (response.ok) return response;
    if (response.status === 401 && (await askForToken(secret))) continue;
    const detail = await detailOf(response);
    if (response.status === 503) throw new Unreachable(`The service cannot do its work: ${detail}`);
    throw new Refused(response.status, detail);
  }
}

async function detailOf(response) {
  try {
    return (await response.json()).detail ?? response.statusText;
  } catch {
    return `${response.status} ${response.statusText}`.trim();
  }
}

async function read(path, options) {
  return (await send(path, options)).json();
}

/** The description of the API. */
export const openapi = () => read("/openapi.json");

/** Where a job is. */
export const pathOf = (kind, id) => `${ROOT}/${kind}/${id}`;

/** A job with all that was asked of it. */
export const getJob = (kind, id, signal) => read(pathOf(kind, id), { signal });

/** What came of a job. */
export const getResults = (kind, id, signal) => read(`${pathOf(kind, id)}/results`, { signal });

/** Values of a job's metrics after a number; a name leaves out the other metrics. */
export async function getMetrics(kind, id, after, name, signal) {
  const values = [];
  for (let next = after; next !== null;) {
    const query = new URLSearchParams({ after: next, ...(name ? { name } : {}) });
    const page = await read(`${pathOf(kind, id)}/metrics?${query}`, { signal });
    values.push(...page.values);
    next = page.next;
  }
  return values;
}

/** Makes a job; the key makes sure that it is made once, however often this is sent. */
export const createJob = (kind, body, key) =>
  read(`${ROOT}/${kind}`, { method: "POST", body, headers: { "Idempotency-Key": key } });

/** Asks something of a job: start, pause, resume, stop, cancel. */
export const act = (kind, id, action) => read(`${pathOf(kind, id)}/${action}`, { method: "POST" });

/** Deletes a job and all that it left. */
export const deleteJob = (kind, id) => send(pathOf(kind, id), { method: "DELETE" });

/**
 * Jobs of several kinds, newest first. The service lists one kind at a time, so as many of each are asked for as
 * could be on the page, and put in order here.
 * @param {string[]} kinds asked for.
 * @param {string[]} states asked for; none means all.
 * @param {number} skip jobs before the first one wanted.
 * @param {number} limit jobs wanted.
 * @returns {Promise<{items: object[], total: number}>} the jobs, and how many there are in all.
 */
export async function listJobs(kinds, states, skip, limit, signal) {
  if (kinds.length === 1) return listKind(kinds[0], states, skip, limit, signal);
  const lists = await Promise.all(kinds.map((kind) => listKind(kind, states, 0, skip + limit, signal)));
  const items = lists.flatMap((list) => list.items);
  items.sort((a, b) => (a.created_at < b.created_at ? 1 : -1));
  return {
    items: items.slice(skip, skip + limit),
    total: lists.reduce((sum, list) => sum + list.total, 0),
  };
}

async function listKind(kind, states, skip, limit, signal) {
  const items = [];
  for (;;) {
    const query = new URLSearchParams({
      skip: skip + items.length,
      limit: Math.min(limit - items.length, MOST_LISTED),
    });
    for (const state of states) query.append("state", state);
    const page = await read(`${ROOT}/${kind}?${query}`, { signal });
    items.push(...page.items);
    if (items.length >= limit || !page.items.length || skip + items.length >= page.total)
      return { items, total: page.total };
  }
}

/** Downloads a job's model. With a token it must pass through memory: a link cannot carry the token. */
export async function downloadModel(kind, id) {
  const link = document.createElement("a");
  link.download = `${id}.zip`;
  if (token() === null) {
    link.href = `${pathOf(kind, id)}/model`;
    link.click();
    return;
  }
  const blob = await (await send(`${pathOf(kind, id)}/model`)).blob();
  link.href = URL.createObjectURL(blob);
  link.click();
  // The browser has taken hold of it by then.
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
