"""Omniglot: archives and folders, splits, and damage. A small imitation, and the real one where it is."""

import json
import shutil
import zipfile
from pathlib import Path

import pytest
import torch

from fewshot.pictures import picture
from innerloop.core.errors import InputError
from innerloop.fewshot.artifacts import Training, build_learner, save_artifact
from innerloop.fewshot.config import load_config
from innerloop.fewshot.data.images import as_numbers
from innerloop.fewshot.data.omniglot import load_omniglot, random_split, vinyals_split
from innerloop.fewshot.episodes import Episodes
from innerloop.fewshot.predict import predict


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    """Two characters in the background set, one in the evaluation set; a drawing's grey is its number."""
    folder = tmp_path / "omniglot"
    for part, characters in (
        ("background", ("Latin/character01", "Greek/character02")),
        ("evaluation", ("Oriya/character01",)),
    ):
        for character in characters:
            for number in range(20):
                picture(folder / f"images_{part}" / character / f"0001_{number + 1:02d}.png", 200 + number)
    return folder


def packed(folder: Path) -> Path:
    for part in ("images_background", "images_evaluation"):
        with zipfile.ZipFile(folder / f"{part}.zip", "w") as archive:
            for file in sorted((folder / part).rglob("*.png"), reverse=True):
                archive.write(file, file.relative_to(folder))
        shutil.rmtree(folder / part)
    return folder


@pytest.mark.parametrize("zipped", [False, True])
def test_archives_and_folders_are_read_alike(drawings: Path, zipped: bool) -> None:
    whole = load_omniglot(packed(drawings) if zipped else drawings, size=8, turned=False)
    assert whole.classes == (
        "background/Greek/character02",
        "background/Latin/character01",
        "evaluation/Oriya/character01",
    )
    assert whole.counts.tolist() == [20, 20, 20]
    assert whole.images[:20, 0, 0, 0].tolist() == [55 - number for number in range(20)]  # ink is bright


def test_what_was_decoded_is_kept(drawings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load_omniglot(drawings, size=8)
    monkeypatch.setattr("innerloop.fewshot.data.omniglot.decode", None)  # nothing is decoded again
    assert load_omniglot(drawings, size=8).images.equal(first.images)


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds neither images_background/ nor images_background\.zip"):
        load_omniglot(tmp_path)


def test_a_broken_archive_is_named_and_leaves_no_cache(drawings: Path, tmp_path: Path) -> None:
    archive = packed(drawings) / "images_evaluation.zip"
    archive.write_bytes(archive.read_bytes()[:500])
    with pytest.raises(InputError, match=r"images_evaluation\.zip is not a whole zip archive"):
        load_omniglot(drawings, size=8)
    assert not list((tmp_path / "cache" / "images").glob("omniglot*"))


def test_a_character_that_lacks_drawings_is_named(drawings: Path) -> None:
    (drawings / "images_background" / "Latin" / "character01" / "0001_03.png").unlink()
    with pytest.raises(InputError, match="Latin/character01 has 19 drawings, not 20"):
        load_omniglot(drawings, size=8)


def test_a_split_that_names_no_character_is_refused(drawings: Path) -> None:
    (drawings / "splits").mkdir()
    (drawings / "splits" / "vinyals_train.json").write_text(
        json.dumps({"background": {"Latin": ["character09"]}})
    )
    whole = load_omniglot(drawings, size=8)
    with pytest.raises(InputError, match="names the character 'background/Latin/character09'"):
        vinyals_split(whole, drawings)
    (drawings / "splits" / "vinyals_train.json").write_text("[")
    with pytest.raises(InputError, match=r"vinyals_train\.json is damaged"):
        vinyals_split(whole, drawings)
    (drawings / "splits" / "vinyals_train.json").unlink()
    with pytest.raises(InputError, match=r"vinyals_train\.json is missing; or set data.split=random"):
        vinyals_split(whole, drawings)


def test_drawings_from_files_are_seen_as_in_training(drawings: Path, tmp_path: Path) -> None:
    for number in range(20):  # another grey than the Greek drawings, at the other end of the scale
        picture(
            drawings / "images_background" / "Latin" / "character01" / f"0001_{number + 1:02d}.png", number
        )
    whole = load_omniglot(drawings, size=16, turned=False)
    words = [f"data.path={drawings}", "data.size=16", "train.ways=2", "test.ways=2", "data.turned=false"]
    config = load_config("omniglot_prototypical", None, words)
    learner, _ = build_learner(config, 1, torch.device("cpu"))
    save_artifact(tmp_path, learner, config, 1, Training(0, 0, 0.0, 1))
    support = drawings / "images_background"
    flat = tmp_path / "support"
    for character in ("Greek/character02", "Latin/character01"):
        shutil.copytree(support / character, flat / character.split("/")[0])
    found = predict(tmp_path, flat, flat / "Latin")
    stored = as_numbers(whole.images)
    given = Episodes(
        stored[None, :40], torch.arange(2).repeat_interleave(20)[None], stored[None, 20:40],
        torch.zeros(1, 20, dtype=torch.int64), 2,
    )  # fmt: skip
    wanted = learner.scores(given, transductive=False)[0].exp()
    torch.testing.assert_close(torch.tensor([entry.probabilities for entry in found.images]), wanted)


@pytest.mark.data
def test_the_real_set_and_its_splits(data_root: Path) -> None:
    whole = load_omniglot(data_root / "omniglot", size=8)
    assert len(whole.classes) == 964 + 659
    assert whole.images.shape == (32460, 1, 8, 8)
    vinyals = vinyals_split(whole, data_root / "omniglot")
    assert [
        len(part.classes) for part in (vinyals.train, vinyals.get("validation"), vinyals.get("test"))
    ] == [
        1028,
        172,
        423,
    ]
    assert len(vinyals.get("test")) == 4 * 423  # a turned character is a class of its own
    drawn, again = random_split(whole, 0), random_split(whole, 0)
    assert [len(part.classes) for part in (drawn.train, drawn.get("validation"), drawn.get("test"))] == [
        1100,
        100,
        423,
    ]
    assert len(drawn.train) == 4400
    assert len(drawn.get("test")) == 423
    assert (
        drawn.get("test").classes == again.get("test").classes != random_split(whole, 1).get("test").classes
    )
    mean_ink = whole.images.float().mean() / 255
    assert 0.02 < float(mean_ink) < 0.2
    assert torch.equal(drawn.train.images, again.train.images)
