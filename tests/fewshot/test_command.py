"""The command: a user's way from a folder of images to predictions, the comparison, and every refusal."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from fewshot.pictures import class_folders
from innerloop.cli.main import main
from innerloop.fewshot.artifacts import build_learner
from innerloop.fewshot.config import available_configs, load_config
from innerloop.fewshot.data.toy import toy_splits
from innerloop.fewshot.published import OMNIGLOT
from innerloop.fewshot.records import RECORD_FILE, read_records
from innerloop.fewshot.table import BEGIN, END

TOY = (
    "data.source=toy",
    "data.size=16",
    "backbone.width=8",
    "train.ways=5",
    "train.queries=5",
    "trainer.total_steps=20",
    "trainer.test_freq=10",
    "test.validation_count=20",
    "test.count=20",
    "test.queries=5",
    "test.ways=5",
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained Prototypical Network."""
    folder = tmp_path_factory.mktemp("run")
    words = ["--config-name", "omniglot_prototypical", *TOY, f"trainer.default_local_dir={folder}"]
    assert main(["fewshot", "train", *words]) == 0
    return folder


def toy_pictures(folder: Path, classes: int, images: int) -> Path:
    """Toy test images as files, a folder for each class."""
    test = toy_splits().get("test")
    for c in range(classes):
        for i in range(images):
            path = folder / test.classes[c] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(test.images[int(test.first[c]) + i, 0].numpy()).save(path)
    return folder


@pytest.mark.parametrize("name", available_configs())
def test_packaged_settings_are_sound(name: str) -> None:
    config = load_config(name)
    assert config.trainer.experiment_name == name
    data = "omniglot" if config.data.source == "omniglot" else "miniimagenet"
    suffixes = {
        ((5,), 1): "",
        ((5,), 5): "_5w5s",
        ((20,), 1): "_20w1s",
        ((20,), 5): "_20w5s",
        ((5, 20), 1): "",
        ((5, 20), 5): "_5s",
    }
    suffix = "_lake" if config.test.within_alphabet else suffixes[config.test.ways, config.test.shots]
    assert name == f"{data}_{config.method.name}{suffix}"
    learner, _ = build_learner(config, config.data.channels or 1, torch.device("cpu"))
    assert not learner.fixed_ways or config.test.ways == (config.train.ways,)


def test_every_published_cell_has_packaged_settings() -> None:
    packaged = {
        (config.method.name, ways, config.test.shots)
        for config in map(load_config, available_configs())
        if config.data.source == "omniglot"
        for ways in config.test.ways
    }
    published = {(method, *cell) for method, figures in OMNIGLOT.items() for cell in figures.accuracy}
    assert published <= packaged


def test_training_tracks_accuracy_on_validation_classes(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(1, 21))
    assert [row["step"] for row in rows if "eval/accuracy" in row] == [10, 20]
    assert all(0 <= row["eval/accuracy"] <= 1 for row in rows[9::10])
    assert {"train/loss", "perf/images", "perf/seconds"} <= rows[0].keys()
    assert rows[0]["perf/images"] == 5 * (1 + 5)


def test_evaluate_records_what_it_found(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--model-path", str(run), "--output-dir", str(tmp_path), "--shots", "3", "--episodes", "30"]
    assert main(["fewshot", "evaluate", *words]) == 0
    out = capsys.readouterr().out
    (record,) = read_records(tmp_path)
    assert (record.method, record.shots, record.episodes) == ("prototypical", 3, 30)
    assert record.data == "the toy set, test classes"
    assert record.training.steps == record.training.episodes == 20
    assert f"inductive:    {100 * record.inductive:.2f} %" in out
    assert 0.2 < record.inductive <= 1


def test_more_shots_are_better_and_the_seed_decides_the_episodes(run: Path, tmp_path: Path) -> None:
    def accuracy(*words: str) -> float:
        folder = tmp_path / "_".join(words)
        base = ["--model-path", str(run), "--output-dir", str(folder), "--episodes", "40"]
        assert main(["fewshot", "evaluate", *base, *words]) == 0
        return read_records(folder)[0].inductive

    assert accuracy("--shots", "10") > accuracy("--shots", "1")
    assert accuracy("--seed", "1") == accuracy("--seed", "1") != accuracy("--seed", "2")


def test_predict_classifies_a_folder(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    support = toy_pictures(tmp_path / "support", classes=4, images=5)
    query = toy_pictures(tmp_path / "query", classes=4, images=3)
    words = ["--model-path", str(run), "--support", str(support), "--query", str(query)]
    assert main(["fewshot", "predict", *words, "--output", str(tmp_path / "found.csv")]) == 0
    with (tmp_path / "found.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12
    classes = sorted(folder.name for folder in support.iterdir())
    for row in rows:
        shares = {name: float(row[name]) for name in classes}
        assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        assert row["class"] == max(classes, key=shares.__getitem__)
    # The support set holds these very images among others.
    assert sum(Path(row["image"]).parent.name == row["class"] for row in rows) >= 9
    assert "found.csv" in capsys.readouterr().out


def test_bench_trains_tests_and_writes_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# Title\n\n{BEGIN}\nold\n{END}\n\nafter\n")
    names = ["omniglot_prototypical", "omniglot_siamese"]
    words = ["--output-dir", str(tmp_path / "runs"), "--document", str(page), "--set", *TOY]
    assert main(["fewshot", "bench", *names, *words]) == 0
    text = page.read_text()
    assert text.startswith("# Title\n")
    assert text.endswith("\n\nafter\n")
    assert "old" not in text
    for name in ("prototypical", "siamese"):
        (row,) = [line for line in text.splitlines() if line.startswith(f"| {name} |")]
        assert row.count("|") == 11
        assert "5-way 1-shot" in row
    assert f"innerloop fewshot bench omniglot_siamese --output-dir runs --set {TOY[0]}" in text
    capsys.readouterr()
    records = {path: path.stat().st_mtime_ns for path in tmp_path.rglob(RECORD_FILE)}
    assert main(["fewshot", "bench", *names, *words]) == 0  # nothing is done again
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob(RECORD_FILE)} == records


def test_one_training_is_tested_on_several_numbers_of_classes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--output-dir", str(tmp_path), "--set", *TOY, "test.ways=[3,5]"]
    assert main(["fewshot", "bench", "omniglot_prototypical", *words]) == 0
    table = capsys.readouterr().out
    assert [line.split("|")[2].strip() for line in table.splitlines() if line.startswith("| proto")] == [
        "3-way 1-shot",
        "5-way 1-shot",
    ]
    model = tmp_path / "omniglot_prototypical"
    assert len(list((model / "test").rglob(RECORD_FILE))) == 2
    words = ["--model-path", str(model), "--output-dir", str(tmp_path / "again"), "--shots", "2"]
    assert main(["fewshot", "evaluate", *words]) == 0
    assert [(record.ways, record.shots) for record in read_records(tmp_path / "again")] == [(3, 2), (5, 2)]


def test_mann_is_also_tested_on_sequences_as_its_paper_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["method.encoder=pixels", "method.hidden=8", "method.memory_slots=8", "method.memory_width=4"]
    words = ["--output-dir", str(tmp_path), "--set", *TOY, *small]
    assert main(["fewshot", "bench", "omniglot_mann", *words]) == 0
    (record,) = read_records(tmp_path)
    assert len(record.instances) == 10
    assert all(0 <= mean <= 1 and half > 0 for mean, half in record.instances)
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| mann | 5-way | ")]
    assert rows[1] == f"| mann | 5-way | 2 | {100 * record.instances[1][0]:.1f} ± " + (
        f"{100 * record.instances[1][1]:.1f} | - |"
    )
    model = str(tmp_path / "omniglot_mann")
    assert main(["fewshot", "evaluate", "--model-path", model, "--output-dir", str(tmp_path / "again")]) == 0
    assert f"image 10 of a class: {100 * record.instances[9][0]:.2f} %" in capsys.readouterr().out


def _one_class(folder: Path) -> list[str]:
    return ["data.source=folder", f"data.path={class_folders(folder, {'a': 30})}", "data.size=16"]


def _few_images(folder: Path) -> list[str]:
    classes = dict.fromkeys("abcdefghij", 3)
    return ["data.source=folder", f"data.path={class_folders(folder, classes)}", "data.size=16"]


def _words(*words: str) -> Callable[[Path], list[str]]:
    return lambda _folder: [*TOY, *words]


@pytest.mark.parametrize(
    ("name", "words", "line"),
    [
        pytest.param("prototypical", _one_class, "has 1 class, too few for 60-way episodes", id="one class"),
        pytest.param(
            "maml", _few_images, "images, too few for 1 shots and 5 queries; add images", id="few images"
        ),
        pytest.param(
            "prototypical", _words("method.name=protonet"), "did you mean 'prototypical'", id="method"
        ),
        pytest.param(
            "prototypical", _words("method.steps=1"), "unknown key 'method.steps'", id="method's key"
        ),
        pytest.param("prototypical", _words("train.way=5"), "nearest known key is 'train.ways'", id="key"),
        pytest.param("prototypical", _words("train.ways=1"), "train.ways must be", id="one way"),
        pytest.param("prototypical", _words("train.shots=0"), "train.shots must be", id="no shot"),
        pytest.param("prototypical", _words("optim.lr=.nan"), "optim.lr must be", id="NaN rate"),
        pytest.param(
            "prototypical", _words("train.ways=80"), "has 60 classes, too few for 80-way", id="ways"
        ),
        pytest.param("prototypical", _words("test.ways=40"), "has 20 classes, too few for 40-way", id="test"),
        pytest.param("maml", _words("train.ways=4"), "train.ways is 4 and test.ways 5", id="fixed ways"),
        pytest.param("maml", _words("method.inner_lr=-1"), "method.inner_lr must be", id="inner rate"),
        pytest.param("prototypical", _words("data.size=8"), "8 pixels are too few", id="small images"),
        pytest.param("prototypical", _words("data.source=folder"), "data.path is missing", id="no path"),
        pytest.param(
            "prototypical",
            _words("data.source=omniglot", "data.path=/nowhere"),
            "holds neither images_b",
            id="path",
        ),
        pytest.param("protonet", _words(), "no packaged settings 'omniglot_protonet'", id="settings"),
    ],
)
def test_training_refuses_in_one_line_and_writes_nothing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: Callable[[Path], list[str]],
    line: str,
) -> None:
    target = tmp_path / "run"
    given = [*words(tmp_path / "images"), f"trainer.default_local_dir={target}"]
    assert main(["fewshot", "train", "--config-name", f"omniglot_{name}", *given]) == 2
    err = capsys.readouterr().err.strip()
    assert line in err
    assert len(err.splitlines()) == 1
    assert not target.exists()


def test_predict_refuses_what_it_cannot_do(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    support = toy_pictures(tmp_path / "support", classes=1, images=2)
    empty = tmp_path / "empty"
    empty.mkdir()

    def refusal(model: Path, support: Path, query: Path) -> str:
        words = ["--model-path", str(model), "--support", str(support), "--query", str(query)]
        assert main(["fewshot", "predict", *words]) == 2
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "holds one class" in refusal(run, support, support)
    toy_pictures(support, classes=3, images=2)
    assert f"{empty} holds no image" in refusal(run, support, empty)
    assert "holds no trained few-shot learner" in refusal(empty, support, support)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in ("innerloop.json", "learner.safetensors"):
        (copy / file).write_bytes((run / "latest" / file).read_bytes()[:-20])
    assert f"the artifact {copy} is damaged" in refusal(copy, support, support)


def test_an_artifact_gives_the_same_scores_again(run: Path) -> None:
    from innerloop.fewshot.artifacts import load_artifact
    from innerloop.fewshot.episodes import EpisodeShape, EpisodeStream

    given = EpisodeStream(toy_splits().get("test"), EpisodeShape(5, 1, 5), 3, 0).take()
    first, again = (load_artifact(run, torch.device("cpu")).learner.scores(given, False) for _ in range(2))
    assert first.equal(again)
