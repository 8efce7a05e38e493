// The kinds of jobs, as the API describes itself: a kind that the service learns appears here by itself.

import { openapi } from "./api.js";

let known = null;

/**
 * The kinds, read once.
 * @returns {Promise<Map<string, {kind: string, title: string, one: string, summary: string, request: object,
 *   example: object, results: object, schemas: object}>>} by their names in the API.
 */
export function loadKinds() {
  known ??= openapi().then(kindsOf);
  // A failure is not kept: the next page tries again.
  known.catch(() => {
    known = null;
  });
  return known;
}

function kindsOf(description) {
  const kinds = new Map();
  for (const [path, methods] of Object.entries(description.paths)) {
    const kind = path.match(/^\/api\/training\/([^/]+)$/)?.[1];
    if (!kind || !methods.post) continue;
    const content = methods.post.requestBody.content["application/json"];
    const results =
      description.paths[`${path}/{identifier}/results`]?.get.responses[200].content["application/json"]
        .schema;
    const title = methods.post.tags[0];
    kinds.set(kind, {
      kind,
      title,
      one: title.replace(/s$/, ""),
      summary: methods.post.summary.replace(/^Create: /, ""),
      request: content.schema,
      example: Object.values(content.examples ?? {})[0]?.value ?? {},
      results,
      schemas: description,
    });
  }
  return kinds;
}
