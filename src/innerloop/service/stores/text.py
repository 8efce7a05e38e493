"""Text and plain data in a form that every database takes."""

import json
import re

from innerloop.service.jobs.job import JSON

_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with U+FFFD for what some database refuses: NUL and surrogates without their other half."""
    return _UNSTORABLE.sub("\ufffd", text)


def packed(data: JSON) -> str:
    """Plain data as text; in this form keys may hold any characters and numbers need not be finite."""
    return json.dumps(data, separators=(",", ":"), default=dict)


def unpacked(text: str) -> JSON:
    """What :func:`packed` made text of."""
    data: JSON = json.loads(text)
    return data


def one_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return " ".join(str(error).split())
