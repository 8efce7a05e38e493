"""Episodes: their shape, their randomness, and what cannot be drawn."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from innerloop.core.errors import InputError
from innerloop.fewshot.data.images import ImageSet, image_set
from innerloop.fewshot.episodes import Episodes, EpisodeShape, EpisodeStream, draw


def numbered(counts: list[int]) -> ImageSet:
    """Classes of so many one-pixel images; the first channel is the class, the second the image."""
    return image_set(
        "numbered",
        {
            f"class {c}": [torch.tensor([c, i], dtype=torch.uint8).view(2, 1, 1) for i in range(count)]
            for c, count in enumerate(counts)
        },
    )


def marks(images: Tensor) -> list[list[tuple[int, int]]]:
    """Class and number of each image of each episode."""
    return [[(int(c), int(i)) for c, i in (255 * row.view(-1, 2)).round()] for row in images]


@given(
    counts=st.lists(st.integers(4, 9), min_size=3, max_size=8),
    shots=st.integers(1, 2),
    queries=st.integers(1, 2),
    ways=st.integers(2, 3),
    seed=st.integers(0, 2**32),
)
def test_an_episode_holds_different_classes_and_different_images(
    counts: list[int], shots: int, queries: int, ways: int, seed: int
) -> None:
    episodes = draw(
        numbered(counts), EpisodeShape(ways, shots, queries), 3, torch.Generator().manual_seed(seed)
    )
    assert episodes.support.shape == (3, ways * shots, 2, 1, 1)
    assert episodes.query.shape == (3, ways * queries, 2, 1, 1)
    for support, query, own, asked in zip(
        marks(episodes.support),
        marks(episodes.query),
        episodes.support_labels.tolist(),
        episodes.query_labels.tolist(),
        strict=True,
    ):
        assert len(set(support + query)) == ways * (shots + queries)  # no image twice
        meaning = {label: mark[0] for label, mark in zip(own, support, strict=True)}
        assert len(set(meaning.values())) == ways
        for label, mark in zip([*own, *asked], support + query, strict=True):
            assert meaning[label] == mark[0]
        assert sorted(own) == sorted(label for label in range(ways) for _ in range(shots))
        assert sorted(asked) == sorted(label for label in range(ways) for _ in range(queries))


def test_every_class_and_image_turns_up_as_often_as_any_other() -> None:
    images = numbered([4, 4, 6, 8])
    episodes = draw(images, EpisodeShape(2, 1, 1), 6000, torch.Generator().manual_seed(0))
    seen = [mark for row in marks(episodes.support) for mark in row]
    for c, count in enumerate(images.counts.tolist()):
        of_class = [number for own, number in seen if own == c]
        assert len(of_class) == pytest.approx(3000, rel=0.08)
        for number in range(count):
            assert of_class.count(number) == pytest.approx(3000 / count, rel=0.2)


def test_the_support_set_is_shuffled_with_its_labels() -> None:
    episodes = draw(numbered([9] * 5), EpisodeShape(5, 2, 1), 200, torch.Generator().manual_seed(0))
    first = episodes.support_labels[:, 0]
    assert [int((first == label).sum()) for label in range(5)] == pytest.approx([40] * 5, abs=20)


def test_a_stream_gives_the_same_blocks_after_resuming() -> None:
    def stream() -> EpisodeStream:
        return EpisodeStream(numbered([9] * 6), EpisodeShape(3, 1, 1), 2, seed=4)

    first = stream()
    blocks = [first.take() for _ in range(4)]
    again = stream()
    again.load_state_dict({"position": 2})
    for block in blocks[2:]:
        same(again.take(), block)
    assert again.state_dict() == first.state_dict() == {"position": 4}
    assert not blocks[0].support.equal(blocks[1].support)


def same(left: Episodes, right: Episodes) -> None:
    for name in ("support", "support_labels", "query", "query_labels", "ways"):
        torch.testing.assert_close(getattr(left, name), getattr(right, name))


def test_too_few_classes_are_refused() -> None:
    with pytest.raises(InputError, match="numbered has 1 class, too few for 5-way episodes"):
        EpisodeStream(numbered([9]), EpisodeShape(5, 1, 1), 1, 0)


def test_too_few_images_are_refused_with_the_class() -> None:
    with pytest.raises(
        InputError, match="class 'class 1' of numbered has 3 images, too few for 1 shots and 3 q"
    ):
        EpisodeStream(numbered([9, 3, 9]), EpisodeShape(2, 1, 3), 1, 0)
