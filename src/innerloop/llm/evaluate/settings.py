"""What an evaluation is asked to do."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from innerloop.core.errors import InputError

ModelType = Literal[
    "maml", "fomaml", "implicit_maml", "reptile", "meta_lora", "sft", "lora_sft", "base", "icl"
]
CONTROLS: tuple[ModelType, ...] = ("sft", "lora_sft", "base", "icl")
LABELS: dict[ModelType, str] = {
    "maml": "MAML",
    "fomaml": "FOMAML",
    "implicit_maml": "implicit MAML",
    "reptile": "Reptile",
    "meta_lora": "META-LORA",
    "sft": "SFT, matched compute",
    "lora_sft": "LoRA-SFT, matched compute",
    "base": "base model",
    "icl": "in-context shots",
}


@dataclass(frozen=True)
class AdaptationGrid:
    """The adaptation settings a method may choose from, on tasks that are not evaluated.

    Args:
        learning_rates: the rates tried; empty keeps the method's own.
        steps: the step counts tried; empty keeps the method's own.
        tasks: the validation tasks.
    """

    learning_rates: tuple[float, ...]
    steps: tuple[int, ...]
    tasks: tuple[str, ...]


@dataclass(frozen=True)
class EvaluationSettings:
    """One method's evaluation.

    Args:
        model_path: the artifact or model; for ``base`` and ``icl`` an untrained one.
        model_type: what it is; ``icl`` puts the shots in the prompt and updates nothing.
        data_dir: prepared tasks.
        output_dir: where ``results.jsonl`` and ``method.json`` go.
        tasks: the tasks to evaluate on; empty takes those the manifest holds out.
        n_shots: budgets, per class where rows have classes, otherwise in all; 0 is the un-adapted model.
        n_runs: draws of the shots for each budget.
        adaptation_lr: in place of the model's own inner rate.
        adaptation_steps: in place of the model's own number of steps.
        adaptation_batch_size: shots a step takes; none takes the model's own.
        grid: what rate and steps are chosen from; not with the two above.
        tokenizer_path: a tokenizer in place of the model's own.
        max_test_samples: test rows a task; -1 for all.
        max_new_tokens: tokens a generated answer may have; none fits it to the references.
        seed: decides the shots; the same for every method that is to be compared.
        name: of the method in the report; its type if empty.
    """

    model_path: str
    model_type: ModelType
    data_dir: Path
    output_dir: Path
    tasks: tuple[str, ...] = ()
    n_shots: tuple[int, ...] = (0, 5, 10, 25, 50)
    n_runs: int = 5
    adaptation_lr: float | None = None
    adaptation_steps: int | None = None
    adaptation_batch_size: int | None = None
    grid: AdaptationGrid | None = None
    tokenizer_path: str | None = None
    max_test_samples: int = -1
    max_new_tokens: int | None = None
    seed: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        """Refuses what cannot be meant."""
        for option, value, least in (
            ("--n-runs", self.n_runs, 1),
            ("--adaptation-steps", self.adaptation_steps, 1),
            ("--adaptation-batch-size", self.adaptation_batch_size, 1),
            ("--max-new-tokens", self.max_new_tokens, 1),
            ("--n-shots", min(self.n_shots, default=None), 0),
        ):
            if value is not None and value < least:
                raise InputError(f"{option} is {value}; it must be {least} or more")
        if self.max_test_samples != -1 and self.max_test_samples < 1:
            raise InputError(
                f"--max-test-samples is {self.max_test_samples}; it must be 1 or more, or -1 for all"
            )
        if self.adaptation_lr is not None and not 0 < self.adaptation_lr < float("inf"):
            raise InputError(f"--adaptation-lr is {self.adaptation_lr}; it must be a number above 0")
        if self.grid is not None and (self.adaptation_lr is not None or self.adaptation_steps is not None):
            raise InputError(
                "an adaptation grid and a fixed --adaptation-lr or --adaptation-steps exclude each other"
            )

    @property
    def label(self) -> str:
        """The method's name in the report."""
        return LABELS[self.model_type]
