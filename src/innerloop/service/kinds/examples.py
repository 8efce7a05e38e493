"""What requests about language models share: the model's name, and examples to learn from."""

from innerloop.service.kinds.fields import Passage
from innerloop.service.kinds.kind import Strict

EMBEDDED_MODEL = "smollm2-135m"
"""The model that needs no folder in the library, by the name that ``innerloop.llm`` knows it by."""


class Example(Strict):
    """One prompt and the response that is right for it."""

    prompt: Passage
    response: Passage
