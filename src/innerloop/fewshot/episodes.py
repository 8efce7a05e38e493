"""Episodes: N classes, K images of each to learn from, some more to be judged on; drawn many at a time."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from innerloop.core.errors import InputError
from innerloop.core.sampler import derive_seed
from innerloop.fewshot.data.images import ImageSet


@dataclass(frozen=True)
class EpisodeShape:
    """What an episode holds.

    Args:
        ways: classes, N.
        shots: support images a class, K.
        queries: query images a class.
    """

    ways: int
    shots: int
    queries: int

    def check(self, images: ImageSet) -> None:
        """Refuses a set that such episodes cannot be drawn from.

        Raises:
            InputError: too few classes, or a class with too few images.
        """
        if len(images) < self.ways:
            raise InputError(
                f"{images.name} has {len(images)} class{'es' if len(images) != 1 else ''}, too few for "
                f"{self.ways}-way episodes; add classes or lower the ways"
            )
        fewest = int(images.counts.argmin())
        if int(images.counts[fewest]) < self.shots + self.queries:
            raise InputError(
                f"class '{images.classes[fewest % len(images.classes)]}' of {images.name} has "
                f"{int(images.counts[fewest])} images, too few for {self.shots} shots and {self.queries} "
                "queries; add images, or lower the shots or queries"
            )


@dataclass(frozen=True)
class Episodes:
    """Some episodes of one shape; labels run from 0 to ``ways - 1`` and mean other classes in each episode.

    Args:
        support: ``E x S x C x H x W``, in random order.
        support_labels: ``int64``, ``E x S``.
        query: ``E x Q x C x H x W``.
        query_labels: ``int64``, ``E x Q``.
        ways: N.
    """

    support: Tensor
    support_labels: Tensor
    query: Tensor
    query_labels: Tensor
    ways: int

    def __len__(self) -> int:
        return self.support.shape[0]

    def __getitem__(self, chosen: slice) -> "Episodes":
        return self._mapped(lambda tensor: tensor[chosen])

    def to(self, device: torch.device) -> "Episodes":
        """The same on a device."""
        return self._mapped(lambda tensor: tensor.to(device))

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> "Episodes":
        return Episodes(
            change(self.support),
            change(self.support_labels),
            change(self.query),
            change(self.query_labels),
            self.ways,
        )


pytree.register_pytree_node(
    Episodes,
    lambda episodes: (
        [episodes.support, episodes.support_labels, episodes.query, episodes.query_labels],
        episodes.ways,
    ),
    lambda tensors, ways: Episodes(*tensors, ways=ways),  # type: ignore[misc]
)


def draw(images: ImageSet, shape: EpisodeShape, count: int, generator: torch.Generator) -> Episodes:
    """Draws episodes, each of other classes, without a loop over classes or images.

    Args:
        images: what to draw from; see :meth:`EpisodeShape.check`.
        shape: of each.
        count: E.
        generator: the source of randomness.
    """
    each = shape.shots + shape.queries
    classes = torch.rand(count, len(images), generator=generator).topk(shape.ways).indices
    counts = images.counts[classes]
    # The largest of as many random numbers as a class has images: a draw without replacement.
    keys = torch.rand(*counts.shape, int(images.counts.max()), generator=generator)
    keys[torch.arange(keys.shape[-1]) >= counts[..., None]] = -1
    picks = keys.topk(each).indices
    pixels = images.take(classes[..., None], picks)
    labels = torch.arange(shape.ways)[:, None].expand(count, shape.ways, each)
    order = torch.rand(count, shape.ways * shape.shots, generator=generator).argsort()
    rows = torch.arange(count)[:, None]
    support, support_labels = (
        pixels[:, :, : shape.shots].flatten(1, 2),
        labels[:, :, : shape.shots].flatten(1, 2),
    )
    return Episodes(
        support[rows, order],
        support_labels[rows, order],
        pixels[:, :, shape.shots :].flatten(1, 2),
        labels[:, :, shape.shots :].flatten(1, 2),
        shape.ways,
    )


class EpisodeStream:
    """Endless blocks of episodes; what block ``n`` holds depends on the seed and ``n`` alone.

    Args:
        images: what to draw from.
        shape: of each episode.
        block: episodes a block.
        seed: of the stream.

    Raises:
        InputError: such episodes cannot be drawn from the images.
    """

    def __init__(self, images: ImageSet, shape: EpisodeShape, block: int, seed: int) -> None:
        shape.check(images)
        self.images, self.shape, self.block, self.seed = images, shape, block, seed
        self.position = 0

    def take(self) -> Episodes:
        """The next block."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, "episodes", self.position))
        self.position += 1
        return draw(self.images, self.shape, self.block, generator)

    def state_dict(self) -> dict[str, int]:
        """The position."""
        return {"position": self.position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Takes up a saved position."""
        self.position = state["position"]
