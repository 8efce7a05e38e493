"""Lake's trials: one alphabet, two hands, and what they cannot be drawn from."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from fewshot.pictures import picture
from innerloop.cli.main import main
from innerloop.core.errors import InputError
from innerloop.fewshot.alphabets import AlphabetStream
from innerloop.fewshot.data.images import ImageSet
from innerloop.fewshot.data.omniglot import lake_split, load_omniglot
from innerloop.fewshot.records import read_records

SIZES = {"Greek": 4, "Latin": 5, "Oriya": 2}
DRAWERS = 6


@pytest.fixture
def characters() -> ImageSet:
    """An image's first pixel tells its class, the second its drawer."""
    names = tuple(f"evaluation/{alphabet}/{c:02d}" for alphabet, size in SIZES.items() for c in range(size))
    pixels = torch.tensor([[c, drawer] for c in range(len(names)) for drawer in range(DRAWERS)])
    first = torch.arange(len(names) + 1) * DRAWERS
    return ImageSet("characters", pixels.to(torch.uint8)[:, None, None], first, names)


def told(images: Tensor) -> tuple[Tensor, Tensor]:
    """Class and drawer of each image of ``E x M x 1 x 1 x 2``."""
    pixels = (images[:, :, 0, 0] * 255).round().long()
    return pixels[..., 0], pixels[..., 1]


def test_an_episode_is_one_alphabet_in_two_hands(characters: ImageSet) -> None:
    episodes = AlphabetStream(characters, ways=4, block=60, seed=0).take()
    assert torch.equal(episodes.support_labels, episodes.query_labels)
    classes, drawers = told(episodes.support)
    again, others = told(episodes.query)
    assert torch.equal(classes, again)
    alphabets = torch.tensor([0] * 4 + [1] * 5 + [2] * 2)[classes]
    assert bool((alphabets == alphabets[:, :1]).all())
    assert set(alphabets[:, 0].tolist()) == {0, 1}  # the third is too small
    assert all(len(set(row)) == 4 for row in classes.tolist())
    assert bool((drawers == drawers[:, :1]).all())
    assert bool((others == others[:, :1]).all())
    assert bool((drawers[:, 0] != others[:, 0]).all())
    assert set(classes.flatten().tolist()) == set(range(9))
    assert set(drawers.flatten().tolist()) == set(range(DRAWERS))


def test_the_seed_decides_and_blocks_differ(characters: ImageSet) -> None:
    def blocks(seed: int) -> list[Tensor]:
        stream = AlphabetStream(characters, ways=4, block=5, seed=seed)
        return [stream.take().support for _ in range(2)]

    first, second = blocks(1)
    assert torch.equal(first, blocks(1)[0])
    assert not torch.equal(first, second)
    assert not torch.equal(first, blocks(2)[0])


def test_what_cannot_be_drawn_is_refused(characters: ImageSet) -> None:
    with pytest.raises(InputError, match=r"no alphabet of characters has 6 characters; .*data\.split=lake"):
        AlphabetStream(characters, ways=6, block=1, seed=0)
    single = ImageSet("one hand", torch.zeros(2, 1, 1, 2), torch.arange(3), ("x/a/1", "x/a/2"))
    with pytest.raises(InputError, match="one hand has characters with one drawing; two hands are needed"):
        AlphabetStream(single, ways=2, block=1, seed=0)


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network trained for one step on drawings of 103 background and 3 evaluation characters."""
    monkeypatch.setenv("INNERLOOP_CACHE", str(tmp_path / "cache"))
    for part, count in (("background", 103), ("evaluation", 3)):
        for character in range(count):
            for number in range(20):
                name = f"{character:04d}_{number + 1:02d}.png"
                folder = tmp_path / "omniglot" / f"images_{part}" / "Latin" / f"character{character:03d}"
                picture(folder / name, (7 * character + number) % 256, size=8)
    words = [f"data.path={tmp_path / 'omniglot'}", "data.size=16", "backbone.width=4", "train.ways=3"]
    run = f"trainer.default_local_dir={tmp_path / 'run'}"
    steps = ["trainer.total_steps=1", "trainer.test_freq=-1", "test.ways=3", "test.count=20", run]
    assert main(["fewshot", "train", "--config-name", "omniglot_siamese_lake", *words, *steps]) == 0
    return tmp_path / "run"


def test_the_command_tests_within_alphabets(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fewshot", "evaluate", "--model-path", str(trained)]) == 0
    assert "siamese, 3-way 1-shot within an alphabet, 20 episodes" in capsys.readouterr().out
    (record,) = read_records(trained)
    assert record.within_alphabet
    assert record.data == "Omniglot, lake split 0, test characters"
    assert main(["fewshot", "evaluate", "--model-path", str(trained), "--shots", "2"]) == 2
    assert "set --shots 1 --queries 1" in capsys.readouterr().err


def test_the_lake_split_keeps_the_two_sets_apart(trained: Path, tmp_path: Path) -> None:
    splits = lake_split(load_omniglot(tmp_path / "omniglot", size=16), 0)
    parts = [splits.train, splits.get("validation"), splits.get("test")]
    assert [len(part.classes) for part in parts] == [3, 100, 3]
    assert [part.turned for part in parts] == [True, False, False]
    assert all(name.startswith("background/") for part in parts[:2] for name in part.classes)
    assert all(name.startswith("evaluation/") for name in parts[2].classes)
