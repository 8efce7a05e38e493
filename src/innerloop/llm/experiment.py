"""The whole comparison in one go: prepare -> train every method -> evaluate all -> report.

Each stage finds what an earlier, interrupted run finished and goes on from there.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.core.parallel import World
from innerloop.llm.config import (
    Config,
    ExperimentConfig,
    MethodConfig,
    method_config,
    to_yaml,
    with_overrides,
)
from innerloop.llm.data.prepare import prepare
from innerloop.llm.data.prepared import has_manifest, load_manifest
from innerloop.llm.evaluate.curves import Progress, evaluate
from innerloop.llm.evaluate.settings import AdaptationGrid, EvaluationSettings, ModelType
from innerloop.llm.train import train
from innerloop.report import ReportFiles, Study, read_study, write_report

SETTINGS_FILE = "experiment.yaml"
REPORT_FILE = "report.html"


@dataclass(frozen=True)
class ExperimentResult:
    """What an experiment came to.

    Args:
        study: the evaluated methods.
        report: the files written.
    """

    study: Study
    report: ReportFiles


@dataclass(frozen=True)
class Narrator:
    """How an experiment tells of itself.

    Args:
        stage: told the name of each stage as it begins.
        cells: makes the progress of an evaluation, given its title.
    """

    stage: Callable[[str], None]
    cells: Callable[[str], AbstractContextManager[Progress]]


def run_experiment(config: Config, narrator: Narrator, world: World | None = None) -> ExperimentResult | None:
    """Runs or goes on with an experiment.

    Args:
        config: settings with an ``experiment`` section.
        narrator: told how far it is.
        world: the processes that train together. The main one does all else, and alone has a result.

    Raises:
        InputError: a setting is wrong, or the output folder holds another experiment.
    """
    experiment = config.experiment
    if experiment is None:
        raise InputError(
            "these settings have no experiment section; take some that have (quickstart), or use "
            "'innerloop train'"
        )
    world = world or World()
    root = Path(experiment.output_dir)
    narrator.stage(f"preparing data: {experiment.prepare.preset}")
    data = world.from_main(lambda: _begin(experiment, config, root))
    runs = {method: _settings(config, method, root, data) for method in experiment.methods}
    for method, settings in runs.items():
        if method.kind in ("meta", "control"):
            narrator.stage(f"training {method.name}")
            train(settings, world)
    if not world.is_main:
        return None
    folders = []
    for method, settings in runs.items():
        narrator.stage(f"evaluating {method.name}")
        with narrator.cells(method.name) as progress:
            folders.append(
                evaluate(_evaluation(experiment, method, settings, root, data), settings, progress)
            )
    narrator.stage("writing the report")
    study = read_study(folders)
    return ExperimentResult(study, write_report(study, root / REPORT_FILE))


def _begin(experiment: ExperimentConfig, config: Config, root: Path) -> Path:
    """Claims the experiment's folder and gives its data."""
    _claim(root, config)
    return _prepare(experiment, root)


def _claim(root: Path, config: Config) -> None:
    """Records the settings, or checks that they are those the folder was begun with."""
    path, text = root / SETTINGS_FILE, to_yaml(config)
    if path.exists():
        if path.read_text() != text:
            raise InputError(
                f"{root} holds an experiment with other settings; choose another experiment.output_dir, or "
                "remove the folder"
            )
        return
    try:
        root.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(text)
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"cannot write {root}: {error.strerror or error}") from error


def _prepare(experiment: ExperimentConfig, root: Path) -> Path:
    data = root / "data"
    if not has_manifest(data):
        settings: dict[str, object] = dict(experiment.prepare.args)
        if experiment.prepare.source_dir is not None:
            settings["source_dir"] = experiment.prepare.source_dir
        prepare(experiment.prepare.preset, {**settings, "output_dir": data})
    return data


def _settings(config: Config, method: MethodConfig, root: Path, data: Path) -> Config:
    """A method's own settings: the common ones, its overrides, and its place in the experiment's folder."""
    own = [
        f"data.path={data}",
        f"trainer.experiment_name={method.name}",
        f"trainer.default_local_dir={root / 'train' / method.name}",
    ]
    return with_overrides(method_config(config, method), own)


def _evaluation(
    experiment: ExperimentConfig, method: MethodConfig, settings: Config, root: Path, data: Path
) -> EvaluationSettings:
    chosen = experiment.evaluate
    validation = chosen.validation_tasks or load_manifest(data).names("validation")
    grid = None
    if chosen.adaptation_lrs or chosen.adaptation_steps:
        if not validation:
            raise InputError(
                "experiment.evaluate has an adaptation grid, but there are no validation tasks to choose on; "
                "name some in experiment.evaluate.validation_tasks"
            )
        grid = AdaptationGrid(chosen.adaptation_lrs, chosen.adaptation_steps, validation)
    trained = method.kind in ("meta", "control")
    return EvaluationSettings(
        model_path=settings.trainer.default_local_dir if trained else settings.model.partial_pretrain,
        model_type=_model_type(method, settings),
        data_dir=data,
        output_dir=root / "evaluate" / method.name,
        tasks=chosen.tasks,
        n_shots=chosen.n_shots,
        n_runs=chosen.n_runs,
        grid=grid,
        max_test_samples=chosen.max_test_samples,
        seed=settings.trainer.seed,
        name=method.name,
    )


def _model_type(method: MethodConfig, settings: Config) -> ModelType:
    lora = settings.model.adapts == "lora"
    match method.kind:
        case "base":
            return "base"
        case "icl":
            return "icl"
        case "control":
            return "lora_sft" if lora else "sft"
        case "meta":
            algorithm = settings.meta.algorithm
            return "meta_lora" if lora or algorithm == "sft" else algorithm
