"""Every method in a small form that learns the toy set in seconds, with what is true of it."""

from dataclasses import dataclass
from pathlib import Path

from innerloop.fewshot.config import Config, load_config
from innerloop.fewshot.learners import METHODS

COMMON = (
    "data.source=toy",
    "data.size=16",
    "backbone.width=16",
    "test.queries=5",
    "test.validation_count=20",
    "trainer.test_freq=-1",
    "trainer.logger=[]",
    "trainer.save_freq=-1",
)


@dataclass(frozen=True)
class ToyMethod:
    """A method as the tests train it.

    Args:
        words: settings over the packaged ones.
        steps: of training.
        ordered: whether the order of the support set may matter to it.
        bound: whether each output stands for a label, so that another labelling may get other answers.
    """

    words: tuple[str, ...]
    steps: int
    ordered: bool = False
    bound: bool = False

    def config(self, name: str, folder: Path, *words: str) -> Config:
        """The settings of a run."""
        own = (f"trainer.total_steps={self.steps}", f"trainer.default_local_dir={folder}")
        return load_config(f"omniglot_{name}", None, [*COMMON, *own, *self.words, *words])


_EPISODES = ("train.ways=5", "train.queries=5", "optim.lr_scheduler=constant", "train.per_step=4")
_GRADIENT = ("train.queries=5", "train.per_step=8")

TOY_METHODS = {
    "siamese": ToyMethod(_EPISODES, 150),
    "matching": ToyMethod(_EPISODES, 100),
    "matching_fce": ToyMethod((*_EPISODES, "method.fce_steps=2"), 100, ordered=True),
    "prototypical": ToyMethod(_EPISODES, 60),
    "relation": ToyMethod((*_EPISODES, "method.width=16"), 200),
    "lstm_meta": ToyMethod(
        ("train.per_step=4", "train.queries=5", "backbone.width=8"), 80, ordered=True, bound=True
    ),
    "maml": ToyMethod((*_GRADIENT, "method.inner_lr=0.4"), 80, bound=True),
    "fomaml": ToyMethod((*_GRADIENT, "method.inner_lr=0.4"), 80, bound=True),
    "anil": ToyMethod(_GRADIENT, 80, bound=True),
    "meta_sgd": ToyMethod(_GRADIENT, 80, bound=True),
    "reptile": ToyMethod(
        ("train.shots=10", "method.inner_lr=5.0e-3", "method.test_steps=20"), 100, ordered=True, bound=True
    ),
    "implicit_maml": ToyMethod(
        (
            "train.queries=5",
            "train.per_step=4",
            "method.inner_lr=0.2",
            "method.inner_steps=4",
            "method.test_steps=4",
            "method.proximal=0.5",
            "method.cg_steps=2",
            "optim.lr=3.0e-3",
        ),
        50,
        bound=True,
    ),
    "mann": ToyMethod(("train.shots=3", "train.queries=3"), 10, ordered=True, bound=True),
    "metanet": ToyMethod(_EPISODES, 100, ordered=True, bound=True),
}


def packaged(name: str) -> str:
    """The packaged settings that a toy method starts from."""
    return name.removesuffix("_fce")


assert {packaged(name) for name in TOY_METHODS} == set(METHODS)
