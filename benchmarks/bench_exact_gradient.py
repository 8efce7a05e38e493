"""The exact second-order meta-gradient of a language model: the adjoint recursion against plain unrolling.

The peer is MAML as it is usually written: every inner step keeps its graph (``create_graph=True``) and one
backward pass runs through all of them. Both sides do the same work in float32; that they give the same
gradient is checked before anything is measured. Run: ``python benchmarks/bench_exact_gradient.py``.
"""

from functools import cache, partial

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.func import functional_call

from innerloop.core import params as vector
from innerloop.core.inner import SGD, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, InPlaceLearner
from innerloop.core.learner.base import HessianProduct
from innerloop.core.metagrad import Exact
from innerloop.core.params import Params
from innerloop.core.task import FixedTask
from measure import memory_ratio, time_ratio
from models import next_token_loss, random_llama, random_tokens

ROWS, TOKENS, RATE = 8, 128, 0.05
STEPS = (1, 2, 4)
ROUNDS = 5
PRODUCTS: tuple[HessianProduct, ...] = ("reverse", "forward", "central")


@cache
def language_model() -> nn.Module:
    """Four layers, all parameters trained. Neither side leaves it changed."""
    return random_llama(layers=4)


def batches(count: int) -> tuple[Tensor, ...]:
    """Another batch for every inner step and one to be judged on."""
    return random_tokens(count, ROWS, TOKENS).unbind()


def build(steps: int) -> None:
    """What both sides need before they start."""
    language_model()
    batches(steps + 1)


def adjoint(steps: int) -> Params:
    """Ours: the adjoint recursion on the module itself."""
    model = language_model()
    *support, query = batches(steps + 1)
    names = [name for name, _ in model.named_parameters()]
    strategy = Exact(InnerLoop(SGD(), LearningRates(RATE, names, steps), steps))
    return strategy(InPlaceLearner(model, next_token_loss), FixedTask("random", support, query)).gradient


def unrolled(steps: int) -> Params:
    """The peer's: one graph through all inner steps."""
    model = language_model()
    *support, query = batches(steps + 1)
    theta = dict(model.named_parameters())

    def loss_at(point: Params, tokens: Tensor) -> Tensor:
        value: Tensor = functional_call(model, point, (), {"input_ids": tokens, "labels": tokens}).loss
        return value

    point: Params = dict(theta)
    for tokens in support:
        gradient = torch.autograd.grad(loss_at(point, tokens), list(point.values()), create_graph=True)
        point = {name: p - RATE * g for (name, p), g in zip(point.items(), gradient, strict=True)}
    gradient = torch.autograd.grad(loss_at(point, query), list(theta.values()))
    return dict(zip(theta, gradient, strict=True))


def product_costs() -> Table:
    """What one Hessian-vector product costs, in gradients."""
    table = Table("product", "time, in gradients (range)", title="One Hessian-vector product of it")
    model, tokens = language_model(), batches(1)[0]
    theta = vector.detached(dict(model.named_parameters()))
    direction = {name: torch.randn_like(p) for name, p in theta.items()}
    for product in PRODUCTS:
        learner = FunctionalLearner(model, next_token_loss, hessian_product=product)
        cost = time_ratio(
            partial(learner.hvp, theta, tokens, direction), partial(learner.gradient, theta, tokens), ROUNDS
        )
        table.add_row(product, f"{cost}")
    return table


def gradient_costs() -> Table:
    """The whole meta-gradient, one row a number of inner steps."""
    table = Table(
        "inner steps",
        "peak memory, ours / unrolled",
        "time, ours / unrolled (range)",
        "distance of the gradients",
        title="Exact meta-gradient of a 4-layer Llama, all parameters",
    )
    for steps in STEPS:
        ours, peer = partial(adjoint, steps), partial(unrolled, steps)
        wanted = peer()
        distance = float(vector.norm(vector.subtract(ours(), wanted)) / vector.norm(wanted))
        if distance > 1e-3:
            raise SystemExit(f"K={steps}: the gradients differ by {distance:.1e} of their length")
        table.add_row(
            f"{steps}",
            f"{memory_ratio(ours, peer, partial(build, steps)):.2f}",
            f"{time_ratio(ours, peer, ROUNDS)}",
            f"{distance:.0e}",
        )
    return table


def main() -> None:
    """Prints both tables."""
    console = Console()
    console.print(product_costs())
    console.print(gradient_costs())


if __name__ == "__main__":
    main()
