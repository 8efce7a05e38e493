"""A parameter of a query that no route knows is refused: a misspelt filter would find everything."""

from fastapi import Request
from fastapi.exceptions import RequestValidationError


async def only_known(request: Request) -> None:
    """What a route depends on whose parameters must be known ones.

    Raises:
        RequestValidationError: naming those that are not.
    """
    if not request.query_params:
        return
    operation = request.app.openapi()["paths"][request.scope["route"].path][request.method.lower()]
    known = {part["name"] for part in operation.get("parameters", ()) if part["in"] == "query"}
    unknown = [name for name in dict.fromkeys(request.query_params) if name not in known]
    if unknown:
        message = "there is no such parameter; there are: " + (", ".join(sorted(known)) or "none")
        raise RequestValidationError(
            [{"loc": ("query", name), "msg": message, "type": "extra_forbidden"} for name in unknown]
        )
