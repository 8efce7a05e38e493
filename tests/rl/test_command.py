"""The command: a user's way from training to the page, for both families, and every refusal in one line."""

import json
from pathlib import Path

import pytest

from innerloop.cli.main import main
from innerloop.core.tracking import read_metrics
from innerloop.rl.artifacts import load_artifact
from innerloop.rl.records import SCRATCH, read_evaluation
from rl.small import TINY, saved, tiny


def words(folder: Path, *more: str) -> list[str]:
    return [*TINY, "trainer.total_steps=1", f"trainer.default_local_dir={folder}", *more]


def test_the_whole_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, moved, meta = (tmp_path / name for name in ("source", "moved", "meta"))
    smaller = "family.nodes=[2,2]"
    assert main(["rl", "train", "--config-name", "scaling_ppo", *words(source, smaller)]) == 0
    assert f"checkpoint: {source / 'step_1'}" in capsys.readouterr().out
    given = words(moved, "transfer.kind=feature_extraction")
    assert main(["rl", "transfer", "--source", str(source), *given]) == 0
    assert main(["rl", "meta-train", "--config-name", "scaling_maml", *words(meta)]) == 0
    ways = {path: load_artifact(path).training for path in (source, moved, meta)}
    assert [training.way for training in ways.values()] == ["ppo", "transfer", "meta"]
    assert load_artifact(meta).config.meta.algorithm == "maml"
    for path in ways:
        assert [row["step"] for row in read_metrics(path / "metrics.jsonl")] == [1]

    capsys.readouterr()
    adapt = ["--model-path", str(meta), "--output-dir", str(tmp_path / "adapted"), "--episodes", "2"]
    assert main(["rl", "adapt", *adapt, "--cluster", "5", "--split", "validation"]) == 0
    out = capsys.readouterr().out
    assert "cluster:    kubernetes_scaling/validation/5" in out
    assert "after 2 episodes" in out
    assert str(tmp_path / "adapted" / "step_2") in out

    named = [f"meta={meta}", f"moved={moved}", f"adapted={tmp_path / 'adapted'}"]
    output = tmp_path / "out"
    asked = ["--set", "test.clusters=1", "test.adaptation_episodes=[0,1]"]
    assert main(["rl", "evaluate", "--model", *named, "--output-dir", str(output), *asked]) == 0
    evaluation = read_evaluation(output)
    assert evaluation.names[:4] == ("meta", "moved", "adapted", SCRATCH)
    assert (evaluation.clusters, evaluation.episodes) == (1, (0, 1))
    out = capsys.readouterr().out
    page = (output / "report.html").read_text()
    for name in evaluation.names:
        assert f"| {name} |" in out
        assert name in page
    (output / "report.html").unlink()
    assert main(["rl", "report", str(output)]) == 0
    assert capsys.readouterr().out == out
    assert (output / "report.html").read_text() == page


def test_balancing_goes_the_same_way(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    family = "family.name=load_balancing"
    assert main(["rl", "train", *words(tmp_path / "ppo", family)]) == 0
    source = ["--source", str(tmp_path / "ppo")]
    assert main(["rl", "meta-train", *source, *words(tmp_path / "meta", family)]) == 0
    assert load_artifact(tmp_path / "meta").training.source == str(tmp_path / "ppo")
    named = [f"{name}={tmp_path / name}" for name in ("ppo", "meta")]
    assert main(["rl", "evaluate", "--model", *named, "--output-dir", str(tmp_path / "out")]) == 0
    assert "| greedy latency |" in capsys.readouterr().out


def test_a_run_goes_on_and_is_told_so(tmp_path: Path) -> None:
    assert main(["rl", "train", *words(tmp_path)]) == 0
    assert main(["rl", "train", *words(tmp_path, "trainer.total_steps=3")]) == 0
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2, 3]


def refusal(capsys: pytest.CaptureFixture[str], *given: str) -> str:
    """The one line that a command ends with; usage errors end in argparse's own way."""
    capsys.readouterr()
    try:
        code = main(["rl", *given])
    except SystemExit as ending:
        code = ending.code  # type: ignore[assignment]
    assert code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_training_refuses_in_one_line_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    given = words(run)
    assert "no packaged settings 'scaling_mamml'" in refusal(
        capsys, "train", "--config-name", "scaling_mamml", *given
    )
    assert "max_pods" in refusal(capsys, "train", *given, "family.max_pod=[1,2]")
    assert "is not of the form" in refusal(capsys, "train", *given, "family")
    assert "cg_steps" in refusal(
        capsys, "meta-train", *given, "meta.algorithm=implicit_fomaml", "meta.cg_steps=-1"
    )
    assert "holds no trained policy" in refusal(
        capsys, "transfer", "--source", str(tmp_path / "none"), *given
    )
    assert "--source" in refusal(capsys, "transfer", *given)
    source = saved(tmp_path / "source", tiny(tmp_path))
    assert "there is no layer 9; there are: 0 application_encoder" in refusal(
        capsys, "transfer", "--source", str(source), *given, "transfer.frozen_layers=[9]"
    )
    assert "the settings ask for" in refusal(
        capsys, "transfer", "--source", str(source), *given, "policy.width=4"
    )
    assert not run.exists()


def test_adapting_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = saved(tmp_path / "model", tiny(tmp_path, "meta.support_episodes=2"), "meta")
    output = ["--output-dir", str(tmp_path / "out")]
    assert "holds no trained policy" in refusal(
        capsys, "adapt", "--model-path", str(tmp_path / "none"), *output
    )
    given = ["adapt", "--model-path", str(model), *output]
    assert "adapts on 2 episodes at a time, so it cannot be measured after 3" in refusal(
        capsys, *given, "--episodes", "3"
    )
    assert "at least 0" in refusal(capsys, *given, "--episodes", "-1")
    assert "invalid choice" in refusal(capsys, *given, "--split", "dev")
    assert not (tmp_path / "out").exists()


def test_evaluating_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = saved(tmp_path / "model", tiny(tmp_path))
    output = ["--output-dir", str(tmp_path / "out")]
    assert "is not of the form NAME=PATH" in refusal(capsys, "evaluate", "--model", str(model), *output)
    mine = ["evaluate", "--model", f"mine={model}"]
    assert "names mine twice" in refusal(capsys, *mine, f"mine={model}", *output)
    assert "holds no trained policy" in refusal(capsys, "evaluate", "--model", "a=/nowhere", *output)
    assert "evaluation takes test.* settings, not ppo" in refusal(capsys, *mine, *output, "--set", "ppo.lr=1")
    assert "test must be a section" in refusal(capsys, *mine, *output, "--set", "test=1")
    assert "'scratch' is what one of the baselines is called" in refusal(
        capsys, *mine, f"scratch={model}", *output
    )
    assert not (tmp_path / "out").exists()


def test_reporting_refuses_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "evaluation.json cannot be read" in refusal(capsys, "report", str(tmp_path))
    (tmp_path / "evaluation.json").write_text(json.dumps({"format": 1}))
    assert "evaluate again" in refusal(capsys, "report", str(tmp_path))


@pytest.mark.parametrize("verb", ["train", "transfer", "meta-train", "adapt", "evaluate", "report"])
def test_every_verb_explains_itself(verb: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ending:
        main(["rl", verb, "--help"])
    assert ending.value.code == 0
    assert f"usage: innerloop rl {verb}" in capsys.readouterr().out
