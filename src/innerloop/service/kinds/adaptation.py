"""Few-shot adaptation of a language model to one tenant's task."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from innerloop.service.jobs.job import Kind
from innerloop.service.kinds.examples import EMBEDDED_MODEL, Example
from innerloop.service.kinds.fields import FolderName, Identifier, Rate, Seed, Steps
from innerloop.service.kinds.kind import JobKind, JobRequest, Results, Source, Strict

EVERY = 5
"""One example in so many is kept for testing where no test examples are given."""


class AdaptationRequest(JobRequest):
    """Adapts a model to a task from a few examples; gives an adapter to download and its evaluation."""

    source_task_id: Identifier | None = Field(
        default=None, description="a completed job of kind llm-tasks whose model is adapted"
    )
    model: FolderName | None = Field(
        default=None,
        description=f"in its place {EMBEDDED_MODEL}, or the name of a folder among the library's models; "
        f"{EMBEDDED_MODEL} if neither is given",
    )
    examples: Annotated[tuple[Example, ...], Field(min_length=5, max_length=50)] = Field(
        description=f"of the task. Without test_examples every {EVERY}th is not learned but tested on"
    )
    test_examples: Annotated[tuple[Example, ...], Field(max_length=50)] = Field(
        default=(), description="to test on, before and after adaptation"
    )
    steps: Steps = Field(default=10, description="of adaptation")
    learning_rate: Rate | None = Field(
        default=None, description="of adaptation; null takes the rates that the model was trained to adapt by"
    )
    seed: Seed = Field(default=0, description="of the examples' order")

    @model_validator(mode="after")
    def _one_model(self) -> Self:
        if self.model is not None and self.source_task_id is not None:
            raise ValueError("give either model or source_task_id, not both")
        return self


class Marks(Strict):
    """How well a model answers the test examples."""

    loss: float | None = Field(description="mean over the responses' tokens, in nats")
    accuracy: float = Field(
        description="share of greedy answers that are the response, but for case, punctuation and spaces"
    )
    strict_accuracy: float = Field(description="share of greedy answers that are the response to the letter")
    token_accuracy: float = Field(description="share of the responses' tokens that are the likeliest ones")


class AdaptationResults(Results):
    """What came of an adaptation."""

    adapts: Literal["lora", "full"] = Field(description="what the model's folder holds: an adapter, or all")
    adapted_on: int = Field(description="examples learned from")
    tested_on: Literal["test_examples", "held_out_examples"] = Field(
        description=f"the examples given for it, or every {EVERY}th of the others, which was not learned"
    )
    tested: int = Field(description="examples tested on")
    max_new_tokens: int = Field(description="that an answer may have")
    before: Marks
    after: Marks
    support_losses: list[float | None] = Field(description="before each step, on its examples")


def _sources(request: AdaptationRequest) -> dict[str, Source]:
    return (
        {}
        if request.source_task_id is None
        else {"source_task_id": Source(request.source_task_id, (Kind.LLM,))}
    )


ADAPTATION = JobKind(
    kind=Kind.ADAPTATION,
    title="Adaptations",
    summary="Adapts a language model to one task from 5 to 50 examples.",
    request=AdaptationRequest,
    results=AdaptationResults,
    runs="innerloop.service.kinds.adaptation_run:run",
    total=lambda request: request.steps,
    sources=_sources,
    prefix=lambda _: "adaptation",
    example={
        "name": "sorting tickets",
        "model": EMBEDDED_MODEL,
        "examples": [
            {"prompt": "The invoice has the wrong address.", "response": "billing"},
            {"prompt": "The page shows an error since noon.", "response": "outage"},
            {"prompt": "I was charged twice in May.", "response": "billing"},
            {"prompt": "Nobody of us can log in.", "response": "outage"},
            {"prompt": "Please send the receipt again.", "response": "billing"},
            {"prompt": "Uploads hang at 90 percent.", "response": "outage"},
        ],
        "test_examples": [{"prompt": "Why did the price change?", "response": "billing"}],
        "steps": 3,
    },
    content=("examples", "test_examples"),
)
