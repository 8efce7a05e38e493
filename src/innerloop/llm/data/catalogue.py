"""What can be prepared and with which settings: the one list behind the command line and experiment files.

Each field of an options class is one setting, ``--tasks-per-domain`` as a flag and ``tasks_per_domain`` as a
key, and carries its line of help. Nothing heavy is imported here, so that ``--help`` answers at once; the
presets themselves are in ``presets``.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

from innerloop.core.errors import InputError

_Options = TypeVar("_Options")


@dataclass(frozen=True)
class PrepareOptions:
    """The settings that every preset shares."""

    output_dir: Annotated[Path | None, "the folder to write: new, empty, or prepared before"] = None
    source_dir: Annotated[Path | None, "a local copy of the source; without it the hub is asked"] = None
    support_ratio: Annotated[float, "fraction of a task's rows for the support pool"] = 0.6
    query_ratio: Annotated[float | None, "fraction for the query pool (half of what support leaves)"] = None
    max_samples: Annotated[int, "at most so many rows a task, and as many test rows; -1 keeps all"] = -1
    tasks: Annotated[tuple[str, ...], "the tasks to prepare (all)"] = ()
    skip: Annotated[tuple[str, ...], "tasks to leave out"] = ()
    holdout: Annotated[tuple[str, ...], "tasks kept out of meta-training, for the final evaluation"] = ()
    validation: Annotated[tuple[str, ...], "tasks kept out of meta-training, for choosing rates"] = ()
    system: Annotated[str | None, "a system turn for every chat; '' keeps the template's own out"] = None
    seed: Annotated[int, "decides every draw"] = 0
    strict: Annotated[bool, "stop at the first bad row instead of counting and skipping it"] = False
    validate: Annotated[bool, "check for damage and leaks before the result is put in place"] = False


@dataclass(frozen=True)
class NoOptions:
    """A preset without settings of its own."""


@dataclass(frozen=True)
class CustomOptions:
    """Settings of the preset ``custom``."""

    config: Annotated[Path | None, "task_config.json: {task: {input_file, support_ratio, max_samples}}"] = (
        None
    )
    balance: Annotated[bool, "cut every task to the number of rows of the smallest"] = False
    support_size: Annotated[int, "so many support rows a task, whatever the ratio; -1 goes by ratio"] = -1
    query_size: Annotated[int, "so many query rows a task, whatever the ratio; -1 goes by ratio"] = -1


@dataclass(frozen=True)
class Clinc150Options:
    """Settings of the preset ``clinc150``, which chooses by domain: ``--holdout banking travel``."""

    ways: Annotated[int, "intents a task"] = 4
    tasks_per_domain: Annotated[int, "tasks drawn from each training domain"] = 20
    eval_tasks_per_domain: Annotated[int, "tasks drawn from each validation or held-out domain"] = 8


@dataclass(frozen=True)
class ReasoningGymOptions:
    """Settings of the preset ``reasoning-gym``, whose tasks are generators."""

    size: Annotated[int, "entries generated for a task, before duplicates are dropped"] = 400


@dataclass(frozen=True)
class WordSortingOptions:
    """Settings of the preset ``word-sorting``, which chooses by category: ``--holdout fruits rivers``."""

    ways: Annotated[int, "categories a task"] = 4
    train_tasks: Annotated[int, "tasks drawn from the training categories"] = 100
    validation_tasks: Annotated[int, "tasks drawn from the validation categories"] = 8
    held_out_tasks: Annotated[int, "tasks drawn from the held-out categories"] = 20


@dataclass(frozen=True)
class Preset:
    """One preset.

    Args:
        name: on the command line and in experiment files.
        summary: its line of help.
        options: the class of its own settings.
        module: its file in ``innerloop.llm.data.presets``.
    """

    name: str
    summary: str
    options: type
    module: str


PRESETS = (
    Preset("math", "the seven subjects of MATH", NoOptions, "math"),
    Preset(
        "math-science",
        "MATH, GSM8K and ScienceQA for training; hard algebra, TheoremQA and MMLU for evaluation",
        NoOptions,
        "math_science",
    ),
    Preset("custom", "your own files, listed in a task_config.json", CustomOptions, "custom"),
    Preset("reasoning-gym", "generated reasoning tasks, offline", ReasoningGymOptions, "reasoning_gym"),
    Preset("clinc150", "intents of one domain under arbitrary letters", Clinc150Options, "clinc150"),
    Preset("function-vectors", "word tasks whose rule shows in the shots", NoOptions, "function_vectors"),
    Preset(
        "word-sorting", "words of our own lists under arbitrary letters", WordSortingOptions, "word_sorting"
    ),
)

_WORDS: Mapping[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
}
_ACCEPTED: Mapping[type, tuple[type, ...]] = {
    bool: (bool,),
    int: (int,),
    float: (int, float),
    str: (str,),
    Path: (str, Path),
}


@dataclass(frozen=True)
class Setting:
    """One field of an options class, as a command line or an experiment file needs it.

    Args:
        name: with underscores.
        kind: the type of its value, or of one entry where there may be many.
        many: whether it takes several values.
        default: its value when it is not given.
        help: its line of help.
    """

    name: str
    kind: type
    many: bool
    default: object
    help: str

    @property
    def flag(self) -> str:
        """Its spelling on the command line."""
        return f"--{self.name.replace('_', '-')}"

    def read(self, value: object) -> object:
        """The value in the field's type, from an experiment file or from the command line.

        Raises:
            InputError: if it is of another type.
        """
        if value is None:
            return self.default
        if self.many:
            return tuple(map(self._entry, value if isinstance(value, list | tuple) else [value]))
        return self._entry(value)

    def _entry(self, value: object) -> object:
        kinds = _ACCEPTED[self.kind]
        if not isinstance(value, kinds) or isinstance(value, bool) is not (self.kind is bool):
            raise InputError(f"{self.flag}: {value!r} is not {_WORDS[self.kind]}")
        return self.kind(value)


def settings(options: type) -> tuple[Setting, ...]:
    """The settings of an options class, in the order of its fields."""
    hints = get_type_hints(options, include_extras=True)
    return tuple(_setting(field.name, hints[field.name], field.default) for field in fields(options))


def preset_called(name: str) -> Preset:
    """The preset of that name.

    Raises:
        InputError: if there is none.
    """
    for preset in PRESETS:
        if preset.name == name:
            return preset
    raise InputError(f"no preset '{name}'; there are: {', '.join(preset.name for preset in PRESETS)}")


def build(options: type[_Options], values: Mapping[str, object]) -> _Options:
    """An options object from those of the values that belong to it.

    Raises:
        InputError: if a value is of the wrong type.
    """
    return options(
        **{one.name: one.read(values[one.name]) for one in settings(options) if one.name in values}
    )


def _setting(name: str, hint: Any, default: object) -> Setting:
    bare, text = get_args(hint)
    kind = next((inner for inner in get_args(bare) if inner not in (type(None), Ellipsis)), bare)
    return Setting(name, kind, isinstance(default, tuple), default, text)
