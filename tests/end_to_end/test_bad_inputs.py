"""Whatever a user gets wrong is told in one line, ends with exit code 2, and leaves nothing half-written."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from end_to_end.workbench import Workbench, write_jsonl
from innerloop.cli.main import main

Prepare = Callable[[Workbench], list[str]]


@dataclass(frozen=True)
class Case:
    """A mistake.

    Args:
        name: of the mistake.
        words: sets it up and gives the command line.
        says: what the one line must name.
    """

    name: str
    words: Prepare
    says: str


def train(*settings: str, config: str = "meta_lora") -> Prepare:
    """``innerloop train`` with settings over good ones."""
    return lambda desk: ["train", "--config-name", config, *desk.settings("run", *settings)]


def without_tasks(*settings: str) -> Prepare:
    """Training on the user's own files, which the settings name."""

    def words(desk: Workbench) -> list[str]:
        good = [
            word for word in desk.settings("run") if not word.startswith(("meta.tasks", "meta.eval_tasks"))
        ]
        return ["train", "--config-name", "meta_lora", *good, *(s.format(desk=desk) for s in settings)]

    return words


def damaged(split: str, text: str) -> Prepare:
    """Training on a task one of whose files holds this text."""

    def words(desk: Workbench) -> list[str]:
        (desk.data / "red" / f"{split}.jsonl").write_text(text)
        return train()(desk)

    return words


def half_a_checkpoint(damage: Callable[[Path], object]) -> Prepare:
    """Resuming from a checkpoint that lost something."""

    def words(desk: Workbench) -> list[str]:
        damage(desk.train("meta_lora", "run", "trainer.total_steps=2") / "step_2")
        return train()(desk)

    return words


def evaluate(*options: str) -> Prepare:
    """``innerloop evaluate`` with options over good ones."""

    def words(desk: Workbench) -> list[str]:
        given = ["--model-path", str(desk.model), "--model-type", "base", "--data-dir", str(desk.data)]
        given += ["--output-dir", str(desk.root / "evaluate"), "--eval-tasks", "green", "--n-shots", "2"]
        return ["evaluate", *given, *(option.format(desk=desk) for option in options)]

    return words


def adapt(examples: str | None, *options: str) -> Prepare:
    """``innerloop adapt`` on examples of this text."""

    def words(desk: Workbench) -> list[str]:
        file = desk.root / "examples.jsonl"
        if examples is not None:
            file.parent.mkdir(parents=True)
            file.write_text(examples)
        given = ["--model-path", str(desk.model), "--examples", str(file), "-o", str(desk.root / "out")]
        return ["adapt", *given, *(option.format(desk=desk) for option in options)]

    return words


def unwritable(desk: Workbench) -> list[str]:
    """Training into a folder that cannot be made, because a file is in its way."""
    desk.root.write_text("in the way")
    return train()(desk)


def held_out_trained(desk: Workbench) -> list[str]:
    """Training on a task that is evaluated as well."""
    return train("meta.tasks=[red,green]")(desk)


GOOD = json.dumps({"prompt": "1?", "response": "A"}) + "\n"
CASES = (
    Case("unknown command", lambda _: ["trian"], "trian"),
    Case("unknown settings", lambda _: ["train", "--config-name", "meta_lroa"], "meta_lora"),
    Case("missing settings file", lambda _: ["train", "--config-path", "no/such.yaml"], "no/such.yaml"),
    Case("misspelt key", train("meta.inner_lrr=0.1"), "inner_lr"),
    Case("NaN rate", train("meta.inner_lr=nan"), "meta.inner_lr"),
    Case("negative steps", train("meta.num_inner_steps=-1"), "num_inner_steps"),
    Case("unknown algorithm", train("meta.algorithm=mamll"), "maml"),
    Case("word for a number", train("trainer.total_steps=many"), "trainer.total_steps"),
    Case("unknown task", train("meta.tasks=[red,bleu]"), "bleu"),
    Case("task trained on and held out", held_out_trained, "green"),
    Case("missing data folder", train("data.path=no/such/folder"), "no/such/folder"),
    Case(
        "missing task file",
        without_tasks("meta.tasks=[{{name: t, support_files: no.jsonl, query_files: no.jsonl}}]"),
        "no.jsonl",
    ),
    Case("empty task", damaged("support", ""), "support"),
    Case("wrong column", damaged("support", '{"text": "a"}\n'), "support.jsonl"),
    Case("broken JSON", damaged("query", "{broken\n"), "query.jsonl"),
    Case("row too long", train("data.max_length=8"), "data.max_length"),
    Case("unknown model", train("model.partial_pretrain=no/such-model-anywhere"), "no/such-model-anywhere"),
    Case("model folder without a model", train("model.partial_pretrain=."), "is no model"),
    Case("LoRA on a module that is not there", train("model.target_modules=[q_porj]"), "q_proj"),
    Case("LoRA on a layer that is not there", train("model.lora_layers=[99]"), "99"),
    Case("strict device", train("trainer.device=cuda", "trainer.strict_device=true"), "cuda"),
    Case(
        "learned rates with reptile",
        train("meta.learn_inner_lr=true", config="reptile_sft"),
        "learn_inner_lr",
    ),
    Case(
        "unroll in place",
        train("meta.algorithm=maml", "meta.differentiation=unroll", "meta.learner=in_place"),
        "unroll",
    ),
    Case("unwritable folder", unwritable, "work"),
    Case(
        "resume from nowhere",
        train("trainer.resume_mode=resume_path", "trainer.resume_from_path=no/step_1"),
        "no/step_1",
    ),
    Case(
        "half a checkpoint: no state",
        half_a_checkpoint(lambda step: shutil.rmtree(step / "trainer_state")),
        "step_2",
    ),
    Case(
        "half a checkpoint: cut tensors",
        half_a_checkpoint(
            lambda step: (step / "trainer_state" / "tensors.safetensors").write_bytes(b"12345678")
        ),
        "step_2",
    ),
    Case(
        "half a checkpoint: cut JSON",
        half_a_checkpoint(lambda step: (step / "trainer_state" / "state.json").write_text('{"step": 2')),
        "step_2",
    ),
    Case("unknown model type", evaluate("--model-type", "gpt"), "gpt"),
    Case("more shots than rows", evaluate("--n-shots", "500"), "500"),
    Case("negative runs", evaluate("--n-runs", "0"), "--n-runs"),
    Case("unknown evaluation task", evaluate("--eval-tasks", "grene"), "grene"),
    Case("grid without validation tasks", evaluate("--grid-lrs", "0.1"), "--validation-tasks"),
    Case("NaN adaptation rate", evaluate("--adaptation-lr", "nan"), "--adaptation-lr"),
    Case("missing examples", adapt(None), "examples.jsonl"),
    Case("no example", adapt(""), "example"),
    Case("example without a response", adapt('{"prompt": "1?"}\n'), "examples.jsonl"),
    Case("zero adaptation steps", adapt(GOOD, "--steps", "0"), "steps"),
    Case(
        "adapting a model that is not there",
        adapt(GOOD, "--model-path", "no/such-run-here"),
        "no/such-run-here",
    ),
    Case("report of nothing", lambda desk: ["report", str(desk.data), "-o", "r.html"], "data"),
    Case(
        "generate from nothing",
        lambda _: ["generate", "--model-path", "no/such-run-here", "--prompt", "a"],
        "no/such-run-here",
    ),
    Case("sweep of nothing", lambda _: ["sweep", "--config-name", "meta_lora"], "sweep"),
    Case(
        "experiment without a section", lambda _: ["experiment", "--config-name", "meta_lora"], "experiment"
    ),
    Case("prepare an unknown preset", lambda _: ["data", "prepare", "maths", "--output-dir", "out"], "maths"),
)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_one_line_exit_2_and_nothing_half_written(
    case: Case,
    workbench: Workbench,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    words = case.words(workbench)
    before = snapshot(tmp_path)
    capsys.readouterr()
    try:
        code = main(words)
    except SystemExit as stop:  # argparse leaves this way
        code = stop.code
    said = [
        line for line in capsys.readouterr().err.splitlines() if not line.startswith("innerloop: warning:")
    ]
    assert code == 2, said
    assert len(said) == 1, said
    assert said[0].startswith("innerloop")
    assert case.says in said[0]
    assert "Traceback" not in said[0]
    assert snapshot(tmp_path) == before


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--config-name", "meta_lroa", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_write_jsonl_is_what_the_cases_start_from(workbench: Workbench) -> None:
    """The good command of each kind succeeds, so that a case fails for its own mistake alone."""
    examples = write_jsonl(workbench.root / "examples.jsonl", [{"prompt": "1?", "response": "A"}])
    assert main(train()(workbench)) == 0
    assert main(evaluate()(workbench)) == 0
    assert (
        main(
            [
                "adapt",
                "--model-path",
                str(workbench.model),
                "--examples",
                str(examples),
                "-o",
                str(workbench.root / "out"),
                "--steps",
                "1",
            ]
        )
        == 0
    )
