// Server-sent events by fetch: the browser's own EventSource cannot carry a token.

import { Refused, send, Unreachable } from "./api.js";
import { sleep } from "./waiting.js";

const SHORTEST = 500;
const LONGEST = 10_000;

/**
 * The events of a stream, across broken connections: each time it goes on after the last event that came.
 * @param {string} path of the stream.
 * @param {AbortSignal} signal ends it.
 * @param {(error: Error|null, seconds: number) => void} onTrouble hears of a connection that broke and when the
 *   next is tried, and, with null, of one that stands again.
 * @param {string} last id of the last event that was seen before.
 */
export async function* events(path, signal, onTrouble, last = "") {
  let wait = SHORTEST;
  while (!signal.aborted) {
    try {
      const headers = { Accept: "text/event-stream", ...(last ? { "Last-Event-ID": last } : {}) };
      const response = await send(path, { headers, signal });
      onTrouble(null, 0);
      for await (const event of parsed(response.body)) {
        wait = SHORTEST;
        if (event.id) last = event.id;
        yield event;
        if (event.name === "end") return;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (error instanceof Refused) throw error;
      onTrouble(error instanceof Unreachable ? error : new Unreachable("The connection broke."), wait / 1000);
    }
    await sleep(wait, signal);
    wait = Math.min(2 * wait, LONGEST);
  }
}

/** The events of a body, as the HTML standard says that they are written. */
export async function* parsed(body) {
  let event = { name: "message", id: "", data: [] };
  for await (const line of lines(body)) {
    if (line === "") {
      if (event.data.length)
        yield { name: event.name, id: event.id, data: JSON.parse(event.data.join("\n")) };
      event = { name: "message", id: "", data: [] };
      continue;
    }
    const colon = line.indexOf(":");
    if (colon === 0) continue; // a comment, which keeps the connection open
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "event") event.name = value;
    else if (field === "id") event.id = value;
    else if (field === "data") event.data.push(value);
  }
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      // A line may end in the middle of a piece, and its CR LF between two.
      const pieces = (rest + value).split(/\r\n|\n|\r(?!$)/);
      rest = pieces.pop();
      yield* pieces;
    }
  } finally {
    reader.cancel().catch(() => {}); // it may be broken already
  }
}
