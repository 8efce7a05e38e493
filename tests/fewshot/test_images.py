"""Images in memory: what an indexing gives, and what a set refuses."""

from dataclasses import replace

import pytest
import torch

from innerloop.core.errors import InputError
from innerloop.fewshot.data.images import ImageSet, image_set
from innerloop.fewshot.data.splits import Splits


def ragged(turned: bool = False) -> ImageSet:
    """Classes of 2, 3 and 1 images of 1 x 2 x 2, each pixel another number."""
    pixels = torch.arange(24, dtype=torch.uint8).view(6, 1, 2, 2)
    images = image_set("some", {"a": pixels[:2], "b": pixels[2:5], "c": pixels[5:]})
    return replace(images, turned=turned)


def test_a_class_and_a_position_give_the_image() -> None:
    images = ragged()
    taken = images.take(torch.tensor([[1, 0]]), torch.tensor([[2, 1]]))
    assert taken.shape == (1, 2, 1, 2, 2)
    torch.testing.assert_close(255 * taken[0, 0, 0], torch.tensor([[16.0, 17], [18, 19]]))
    torch.testing.assert_close(255 * taken[0, 1, 0], torch.tensor([[4.0, 5], [6, 7]]))


def test_the_counts_are_those_of_the_classes() -> None:
    assert ragged().counts.tolist() == [2, 3, 1]
    assert ragged(turned=True).counts.tolist() == [2, 3, 1] * 4
    assert len(ragged()) == 3
    assert len(ragged(turned=True)) == 12


@pytest.mark.parametrize("quarter", range(4))
def test_a_turned_class_shows_the_stored_images_turned(quarter: int) -> None:
    images = ragged(turned=True)
    taken = 255 * images.take(torch.tensor([1 + 3 * quarter]), torch.tensor([0]))[0, 0]
    torch.testing.assert_close(taken, torch.rot90(torch.tensor([[8.0, 9], [10, 11]]), quarter))


def test_taking_leaves_the_stored_images_alone() -> None:
    images = ragged(turned=True)
    before = images.images.clone()
    images.take(torch.arange(12)[:, None], torch.zeros(12, 1, dtype=torch.int64))
    assert images.images.equal(before)


def test_a_subset_has_the_chosen_classes_in_the_order_given() -> None:
    part = ragged().subset("some", [2, 0])
    assert part.classes == ("c", "a")
    assert part.counts.tolist() == [1, 2]
    torch.testing.assert_close(
        255 * part.take(torch.tensor([1]), torch.tensor([1]))[0, 0, 0, 0], torch.tensor(4.0)
    )


def test_an_empty_set_class_or_subset_is_refused() -> None:
    with pytest.raises(InputError, match="some holds no class"):
        image_set("some", {})
    with pytest.raises(InputError, match="class 'b' of some holds no image"):
        image_set("some", {"b": []})
    with pytest.raises(InputError, match="the split 'test' of some holds no class"):
        ragged().subset("test", [])


def test_splits_that_share_a_class_are_refused() -> None:
    images = ragged()
    with pytest.raises(InputError, match="the class 'b' is in both train and test"):
        Splits(images.subset("train", [0, 1]), None, images.subset("test", [1]))


def test_a_split_that_is_not_there_is_named() -> None:
    with pytest.raises(InputError, match="some has no validation split"):
        Splits(ragged(), None, None).get("validation")
