// Reading JSON schemas as pydantic writes them: references, and what may be null.

/**
 * What a schema says once references are followed and "or null" is set apart.
 * @param {object} schema as written.
 * @param {object} whole the document that references point into.
 * @returns {object} the schema; `nullable` tells whether null is allowed, `choices` what else may stand in its place.
 */
export function resolved(schema, whole) {
  const { $ref, anyOf, allOf, ...own } = schema;
  if ($ref) return { ...resolved(lookUp($ref, whole), whole), ...own };
  if (allOf?.length === 1) return { ...resolved(allOf[0], whole), ...own };
  if (anyOf) {
    const real = anyOf.filter((choice) => choice.type !== "null");
    const nullable = real.length < anyOf.length;
    if (real.length === 1) return { ...resolved(real[0], whole), ...own, nullable };
    return { ...own, nullable, choices: real.map((choice) => resolved(choice, whole)) };
  }
  return own;
}

function lookUp(reference, whole) {
  return reference
    .replace(/^#\//, "")
    .split("/")
    .reduce((place, key) => place[key], whole);
}

/** Whether a schema is of one word or number. */
export function isScalar(schema) {
  return ["string", "number", "integer", "boolean"].includes(schema.type);
}
