"""Lake's one-shot trials on Omniglot: characters of one alphabet, one drawing each by one hand, to be found
again in another hand (Lake 2015, Koch 2015).

The published results are all on the same 400 trials, two times twenty characters of ten alphabets. Here
alphabets, characters and hands are drawn, so that there may be more of them.
"""

import torch

from innerloop.core.errors import InputError
from innerloop.core.sampler import derive_seed
from innerloop.fewshot.data.images import ImageSet
from innerloop.fewshot.episodes import Episodes


class AlphabetStream:
    """Endless blocks of episodes with one support and one query image a class.

    All classes of an episode are of one alphabet, all support images are one drawer's and all queries
    another's. What block ``n`` holds depends on the seed and ``n`` alone.

    Args:
        images: characters named ``.../ALPHABET/CHARACTER``, with the drawings in the order of the drawers.
        ways: characters an episode.
        block: episodes a block.
        seed: of the stream.

    Raises:
        InputError: no alphabet has as many characters, or a character has one drawing alone.
    """

    def __init__(self, images: ImageSet, ways: int, block: int, seed: int) -> None:
        self._images, self._ways, self._block, self._seed = images, ways, block, seed
        self._drawers = int(images.counts.min())
        members: dict[str, list[int]] = {}
        for number, name in enumerate(images.classes):
            members.setdefault(name.rpartition("/")[0], []).append(number)
        self._alphabets = [
            torch.tensor(characters) for characters in members.values() if len(characters) >= ways
        ]
        if not self._alphabets:
            raise InputError(
                f"no alphabet of {images.name} has {ways} characters; lower the ways, or set "
                "data.split=lake, which keeps alphabets whole"
            )
        if self._drawers < 2:
            raise InputError(f"{images.name} has characters with one drawing; two hands are needed")
        self._position = 0

    def take(self) -> Episodes:
        """The next block."""
        generator = torch.Generator().manual_seed(derive_seed(self._seed, "alphabets", self._position))
        self._position += 1
        classes = torch.stack([self._characters(generator) for _ in range(self._block)])
        hands = torch.rand(self._block, self._drawers, generator=generator).topk(2).indices
        labels = torch.arange(self._ways).expand(self._block, -1)
        first, second = (hands[:, hand, None].expand_as(classes) for hand in (0, 1))
        return Episodes(
            self._images.take(classes, first), labels, self._images.take(classes, second), labels, self._ways
        )

    def _characters(self, generator: torch.Generator) -> torch.Tensor:
        chosen = int(torch.randint(len(self._alphabets), (), generator=generator))
        alphabet = self._alphabets[chosen]
        return alphabet[torch.randperm(len(alphabet), generator=generator)[: self._ways]]
