"""MAML and its kin: the core's inner loop and strategies on a convolutional net.

MAML, ANIL and Meta-SGD are the exact strategy with given, partly zero, and learned rates; FOMAML, Reptile and
implicit MAML are strategies of their own. Nothing of the algorithms is here.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from innerloop.core.inner import SGD, Adam, InnerRule, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import VmapLearner
from innerloop.core.metagrad import Exact, FirstOrder, Implicit, Reptile, Strategy
from innerloop.core.task import FixedTask
from innerloop.fewshot.backbones import Conv4
from innerloop.fewshot.conv_tasks import ConvTasksLearner, InParts
from innerloop.fewshot.episodes import Episodes
from innerloop.fewshot.learners.base import FewShotLearner
from innerloop.fewshot.learners.classifier import Classifier, classify
from innerloop.fewshot.learners.method import BackboneFactory, Method, Problem
from innerloop.settings.kinds import Count, Positive

Name = Literal["maml", "fomaml", "anil", "meta_sgd", "reptile", "implicit_maml"]
Labelled = tuple[Tensor, Tensor]


class GradientLearner(FewShotLearner):
    """Adapts the classifier to an episode by gradient steps on its support set.

    Batch norm always takes the statistics of its batch. Transductive scores are those of an episode's queries
    in one batch; otherwise every query is put in a batch with the support set alone (Nichol 2018).

    Args:
        module: the classifier; the parameters are the initialisation that is learned.
        strategy: the meta-gradient.
        test_steps: inner steps when testing.
        batch_size: support images an inner step; none takes all.
        tasks_at_once: tasks in one call; more is faster and takes more memory.
    """

    fixed_ways = True

    def __init__(
        self,
        module: Classifier,
        strategy: Strategy,
        test_steps: int,
        batch_size: int | None,
        tasks_at_once: int,
    ) -> None:
        self.module, self.strategy = module, strategy
        self.learner = _tasks_learner(module, tasks_at_once)
        self._test_loop = replace(strategy.inner, steps=test_steps)
        self._batch_size = batch_size

    def tasks(self, episodes: Episodes, name: str) -> Sequence[FixedTask]:
        """One task an episode."""
        size = self._batch_size or episodes.support.shape[1]
        return [
            FixedTask(
                f"{name}.{number}",
                list(zip(images.split(size), labels.split(size), strict=True)),
                (query, query_labels),
            )
            for number, (images, labels, query, query_labels) in enumerate(
                zip(
                    episodes.support,
                    episodes.support_labels,
                    episodes.query,
                    episodes.query_labels,
                    strict=True,
                )
            )
        ]

    def scores(self, episodes: Episodes, transductive: bool) -> Tensor:
        """See :meth:`FewShotLearner.scores`."""
        scores = []
        for start in range(0, len(episodes), self.learner.tasks_at_once):
            chunk = episodes[start : start + self.learner.tasks_at_once]
            with self.learner.unaccounted():
                task = self.learner.bundle(self.tasks(chunk, "test"))
                with self.learner.excursion() as theta:
                    adapted = self._test_loop.run(self.learner, task, theta).params
            with torch.no_grad():
                scores.append(classify(self.module, adapted, chunk, transductive))
        return torch.cat(scores).log_softmax(-1)


def cross_entropy(module: nn.Module, batch: Labelled) -> Tensor:
    """The mean cross-entropy of labelled images."""
    images, labels = batch
    return F.cross_entropy(module(images), labels)


def _tasks_learner(module: Classifier, tasks_at_once: int) -> VmapLearner:
    if isinstance(module.body, Conv4):
        return ConvTasksLearner(module, cross_entropy, module.body, tasks_at_once, _images)
    return VmapLearner(module, cross_entropy, tasks_at_once, batch_size=_images)


def _images(batch: Labelled) -> int:
    return batch[1].numel()


@dataclass(frozen=True)
class Gradient(Method):
    """The settings of a gradient-based method.

    Args:
        inner_rule: ``sgd``, or ``adam`` without its first moment's decay as Reptile has it.
        inner_lr: α; where rates are learned, their start.
        inner_steps: K.
        test_steps: inner steps when testing.
        inner_batch_size: support images a step; none takes the whole support set.
        proximal: λ of implicit MAML.
        cg_steps: of implicit MAML.
        tasks_at_once: episodes in one call.
    """

    name: Name
    inner_lr: Positive
    inner_steps: Count
    test_steps: Count
    inner_rule: Literal["sgd", "adam"] = "sgd"
    inner_batch_size: Count | None = None
    proximal: Positive = 2.0
    cg_steps: Count = 5
    tasks_at_once: Count = 32

    def build(self, problem: Problem, backbone: BackboneFactory) -> GradientLearner:
        """The learner."""
        module = Classifier(backbone(running=False), problem.ways)
        rule: InnerRule = Adam(betas=(0.0, 0.999)) if self.inner_rule == "adam" else SGD()
        proximal = self.proximal if self.name == "implicit_maml" else 0.0
        inner = InnerLoop(rule, self._rates(module), self.inner_steps, proximal)
        return GradientLearner(
            module, InParts(self._strategy(inner)), self.test_steps, self.inner_batch_size, self.tasks_at_once
        )

    def _rates(self, module: Classifier) -> LearningRates:
        parameters = dict(module.named_parameters())
        if self.name == "meta_sgd":
            return LearningRates.of_every_entry(self.inner_lr, parameters)
        adapted = {
            name: self.inner_lr if self.name != "anil" or name.startswith("head.") else 0.0
            for name in parameters
        }
        return LearningRates(adapted, list(parameters), self.inner_steps)

    def _strategy(self, inner: InnerLoop) -> Strategy:
        match self.name:
            case "maml" | "anil" | "meta_sgd":
                return Exact(inner)
            case "fomaml":
                return FirstOrder(inner)
            case "reptile":
                return Reptile(inner)
            case "implicit_maml":
                return Implicit(inner, self.cg_steps)
