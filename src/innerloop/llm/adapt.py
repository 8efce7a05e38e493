"""Adapting a meta-trained model to one new task from a few examples, from Python and for the command line."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import mkdtemp

from peft import PeftModel

from innerloop.core.errors import InputError
from innerloop.core.inner_loop import InnerLoop
from innerloop.llm.adaptable import Adaptable, Device, load_adaptable
from innerloop.llm.artifact_info import ArtifactInfo
from innerloop.llm.artifacts import merge_lora, save_artifact
from innerloop.llm.config import Config, to_dict
from innerloop.llm.data.records import Record
from innerloop.llm.data.rows import Row, RowFault, RowKeys, parse, read_rows
from innerloop.llm.episodes import row_keys
from innerloop.llm.generate import generate
from innerloop.llm.model import LoadedModel
from innerloop.llm.tasks import shots_task
from innerloop.llm.train import inner_rule_info
from innerloop.llm.versions import library_versions

Examples = Sequence[Mapping[str, object] | Row] | Path | str
"""A file, or records in any accepted format."""

Watch = Callable[[int, float], None]
"""Told the steps taken and the support loss before the last of them."""


@dataclass(frozen=True)
class AdaptedModel:
    """A model adapted to one task.

    Args:
        loaded: model and tokenizer.
        losses: the support loss before each step, in nats.
        info: how it came about.
    """

    loaded: LoadedModel
    losses: tuple[float, ...]
    info: ArtifactInfo

    def generate(self, prompts: Sequence[str], max_new_tokens: int = 256) -> list[str]:
        """Answers each prompt, greedily."""
        return generate(self.loaded.model, self.loaded.tokenizer, prompts, max_new_tokens)

    def save(self, folder: Path | str, merge: bool = False) -> Path:
        """Writes a PEFT adapter or a whole model, whole or not at all.

        Args:
            folder: a new or empty one.
            merge: add a LoRA adapter into its base, in memory too, and write a plain model.

        Raises:
            InputError: if the folder holds something already, or cannot be written.
        """
        target = Path(folder)
        model, info = self.loaded.model, self.info
        if merge and isinstance(model, PeftModel):
            model, info = merge_lora(model), replace(info, adapts="full")
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise InputError(f"{target} holds something already; choose another folder with -o")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(mkdtemp(prefix=f".{target.name}.", dir=target.parent))
            save_artifact(temporary, model, self.loaded.tokenizer, info)
            temporary.chmod(0o755)
            temporary.replace(target)
        except OSError as error:
            raise InputError(f"cannot write {target}: {error.strerror or error}") from error
        return target


@dataclass(frozen=True)
class MetaLearned:
    """A meta-learned initialisation, ready for new tasks. Made by :func:`load`."""

    model: Adaptable

    def adapt(
        self,
        examples: Examples,
        steps: int | None = None,
        lr: float | None = None,
        seed: int = 0,
        watch: Watch = lambda *_: None,
    ) -> AdaptedModel:
        """Adapts to a task. The initialisation is used up: load it again for another task.

        Args:
            examples: 5 to 50 examples: a jsonl, json, parquet or csv file, or records in any accepted format
                (``{"prompt": ..., "response": ...}``, a ``messages`` chat, ...).
            steps: inner steps; the trained number if none.
            lr: inner rate; the trained one if none.
            seed: decides the order of the examples.
            watch: told of each step.

        Raises:
            InputError: if an example cannot be read, or there is none.
        """
        if steps is not None and steps < 1:
            raise InputError(f"steps is {steps}; adaptation needs at least 1")
        if lr is not None and not 0 < lr < float("inf"):
            raise InputError(f"lr is {lr}; it must be a number above 0")
        model = self.model
        rows = _rows(examples, row_keys(model.config))
        tokens = model.batcher.tokenize(rows, "examples")
        inner = model.inner_loop(lr, steps)
        task = shots_task(
            "examples", tokens, inner.steps, model.config.meta.inner_batch_size, model.batcher, seed
        )
        losses: list[float] = []

        def note(step: int, loss: object, _params: object) -> None:
            losses.append(float(loss))  # type: ignore[arg-type]
            watch(step, losses[-1])

        with model.learner.excursion() as theta:
            adapted = inner.run(model.learner, task, theta, watch=note)
            point = {name: tensor.detach().clone() for name, tensor in adapted.params.items()}
        model.learner.commit(point)
        return AdaptedModel(model.loaded, tuple(losses), _info(model, inner, seed))


def load(path: Path | str, settings: Config | None = None, device: Device | None = None) -> MetaLearned:
    """Loads a meta-trained artifact (or any model) to adapt.

    Args:
        path: a run's folder, a checkpoint, a model or adapter folder, a hub id or an alias.
        settings: how to adapt a model that innerloop did not train.
        device: in place of the settings' own.

    Raises:
        InputError: if it is not there, or half of it is missing or damaged.
    """
    return MetaLearned(load_adaptable(str(path), settings, device))


def _rows(examples: Examples, keys: RowKeys) -> list[Row]:
    if isinstance(examples, Path | str):
        rows = read_rows(Path(examples), keys, strict=True)
    else:
        rows = [_row(number, entry, keys) for number, entry in enumerate(examples, start=1)]
    if not rows:
        raise InputError("no example to adapt on; give at least one, better 5 to 50")
    return rows


def _row(number: int, entry: Mapping[str, object] | Row, keys: RowKeys) -> Row:
    if isinstance(entry, Row):
        return entry
    try:
        return parse(Record(number, entry), keys)
    except RowFault as fault:
        raise InputError(f"example {number}: {fault}") from fault


def _info(model: Adaptable, inner: InnerLoop, seed: int) -> ArtifactInfo:
    config, trained = model.config, model.info
    return ArtifactInfo(
        algorithm=config.meta.algorithm if trained is None else trained.algorithm,
        adapts="lora" if isinstance(model.loaded.model, PeftModel) else "full",
        base_model=model.loaded.base_model,
        base_path=model.loaded.base_path,
        inner=inner_rule_info(config.meta, inner),
        data_manifest_hash=None if trained is None else trained.data_manifest_hash,
        seed=seed,
        step=0 if trained is None else trained.step,
        config=to_dict(config),
        versions=library_versions(),
    )
