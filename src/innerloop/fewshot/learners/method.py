"""What a method's settings build its learner from."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from innerloop.fewshot.backbones import Backbone
from innerloop.fewshot.learners.base import FewShotLearner


@dataclass(frozen=True)
class Problem:
    """What a network must be built for.

    Args:
        channels: of the images.
        size: their height and width.
        ways: classes an episode, where the network has an output for each.
    """

    channels: int
    size: int
    ways: int


class BackboneFactory(Protocol):
    """Makes a fresh backbone of the kind the settings name."""

    def __call__(self, *, running: bool) -> Backbone:
        """``running``: whether its batch norm gathers running statistics."""


class Method(ABC):
    """The settings of one method, a frozen dataclass whose fields are the keys of ``method`` in YAML.

    Attributes:
        name: the method's name in :data:`innerloop.fewshot.learners.METHODS`.
    """

    name: str

    @abstractmethod
    def build(self, problem: Problem, backbone: BackboneFactory) -> FewShotLearner:
        """The learner these settings describe, freshly initialised from torch's random state."""
