"""Meta-training of a language model on several tasks."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from innerloop.service.jobs.job import Kind
from innerloop.service.kinds.examples import EMBEDDED_MODEL, Example
from innerloop.service.kinds.fields import Episodes, FolderName, Rate, Seed
from innerloop.service.kinds.kind import JobKind, JobRequest, Results, Strict

Algorithm = Literal["meta_lora", "fomaml_sft", "maml_sft", "reptile_sft", "lora_sft", "sft"]

USUAL_EPISODES, LORA_EPISODES = 100, 120
"""Steps of the packaged settings."""

LORA = ("meta_lora", "lora_sft")

_Rows = Annotated[tuple[Example, ...], Field(min_length=1, max_length=200)]
_Tasks = Annotated[dict[FolderName, "InlineTask"], Field(min_length=1, max_length=100)]


class InlineTask(Strict):
    """One task: rows to adapt on, and other rows to be judged by."""

    support: _Rows
    query: _Rows


class LLMRequest(JobRequest):
    """Meta-trains a language model, so that it adapts to a new task from a few examples."""

    algorithm: Algorithm = Field(default="meta_lora", description="the packaged settings to begin with")
    model: FolderName = Field(
        default=EMBEDDED_MODEL,
        description=f"{EMBEDDED_MODEL}, or the name of a folder among the library's models",
    )
    data: FolderName | None = Field(
        default=None,
        description="the name of a folder among the library's data, as 'innerloop data prepare' makes it",
    )
    tasks: _Tasks | None = Field(default=None, description="the tasks themselves, by name, in place of data")
    held_out_tasks: Annotated[tuple[FolderName, ...], Field(max_length=20)] = Field(
        default=(), description="tasks that are not trained on; adapting to them is measured during the run"
    )
    total_episodes: Episodes = Field(
        default=LORA_EPISODES,
        description=f"meta-steps; unless given {LORA_EPISODES} for {' and '.join(LORA)}, "
        f"{USUAL_EPISODES} for the others",
    )
    inner_lr: Rate | None = Field(
        default=None, description="of the inner loop; null takes the algorithm's own"
    )
    outer_lr: Rate | None = Field(
        default=None,
        description="of the outer optimizer, for reptile_sft the share of the way to the adapted weights, at "
        "most 1; null takes the algorithm's own",
    )
    adaptation_steps: Annotated[int, Field(strict=True, ge=1, le=50)] | None = Field(
        default=None, description="of the inner loop; null takes the algorithm's own"
    )
    meta_batch_size: Annotated[int, Field(strict=True, ge=1, le=64)] | None = Field(
        default=None, description="tasks in a meta-batch; null takes the algorithm's own"
    )
    seed: Seed = Field(default=0, description="of training and of the draws of rows")

    @model_validator(mode="before")
    @classmethod
    def _usual_episodes(cls, given: Any) -> Any:
        if isinstance(given, Mapping) and given.get("algorithm", LORA[0]) not in LORA:
            return {"total_episodes": USUAL_EPISODES, **given}
        return given

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.data is None) == (self.tasks is None):
            raise ValueError("give either data, the name of a prepared folder, or tasks, the rows themselves")
        if self.tasks is not None:
            unknown = [name for name in self.held_out_tasks if name not in self.tasks]
            if unknown:
                raise ValueError(f"held_out_tasks names '{unknown[0]}', which is not among tasks")
            if not self.tasks.keys() - set(self.held_out_tasks):
                raise ValueError("held_out_tasks leaves no task to train on")
        if len(set(self.held_out_tasks)) != len(self.held_out_tasks):
            raise ValueError("held_out_tasks names a task twice")
        if self.algorithm == "reptile_sft" and self.outer_lr is not None and self.outer_lr > 1:
            raise ValueError("outer_lr of reptile_sft is at most 1")
        return self


class HeldOutLosses(Strict):
    """The losses of one held-out task around its adaptation, in nats a token."""

    support_loss: float | None = Field(description="on the last support batch, after adaptation")
    query_loss_before: float | None = Field(description="before adaptation")
    query_loss: float | None = Field(description="after adaptation")
    adaptation_gain: float | None = Field(description="query loss before, less that after adaptation")
    adaptation_gap: float | None = Field(description="query less support loss, both after adaptation")


class LLMResults(Results):
    """What came of the meta-training of a language model."""

    meta_loss: float | None = Field(description="of the last step; for sft and lora_sft the training loss")
    gradient_norm: float | None = Field(description="of the meta-gradient before clipping, in the last step")
    training: dict[str, float | None] = Field(description="the metrics of the last step")
    held_out: dict[str, HeldOutLosses] = Field(description="by task, at the end of the run")
    tokens: int = Field(description="learned from")
    training_seconds: float = Field(description="of computing")


def _prefix(request: LLMRequest) -> str:
    return "sft" if request.algorithm in ("sft", "lora_sft") else "meta"


def _letters(first: str, second: str, words: Mapping[str, str]) -> dict[str, object]:
    """Rows of a made-up task: words of two classes under two letters."""
    rows = [{"prompt": word, "response": {"1": first, "2": second}[kind]} for word, kind in words.items()]
    return {"support": rows[:4], "query": rows[4:]}


_FRUIT = {"apple": "1", "salmon": "2", "pear": "1", "trout": "2", "plum": "1", "tuna": "2"}
_TOOLS = {"hammer": "1", "violin": "2", "pliers": "1", "flute": "2", "saw": "1", "cello": "2"}

LLM = JobKind(
    kind=Kind.LLM,
    title="Language-model tasks",
    summary="Meta-trains a language model that adapts to a new task from a few examples.",
    request=LLMRequest,
    results=LLMResults,
    runs="innerloop.service.kinds.llm_run:run",
    total=lambda request: request.total_episodes,
    sources=lambda _: {},
    prefix=_prefix,
    example={
        "name": "sorting words",
        "algorithm": "meta_lora",
        "model": EMBEDDED_MODEL,
        "tasks": {
            "fruit-or-fish": _letters("A", "B", _FRUIT),
            "fish-or-fruit": _letters("B", "A", _FRUIT),
            "tool-or-instrument": _letters("A", "B", _TOOLS),
        },
        "held_out_tasks": ["tool-or-instrument"],
        "total_episodes": 3,
        "adaptation_steps": 2,
        "meta_batch_size": 2,
    },
    content=("tasks",),
)
