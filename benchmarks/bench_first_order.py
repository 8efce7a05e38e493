"""One meta-step of FOMAML on LoRA: the trainer's path against a loop written for nothing else.

What is compared is the price of generality: the peer is the shortest correct loop for this one case, with no
monitoring, no other inner rule and no other strategy. Both do the same work from the same start, and that
they give the same gradient is checked first. Run: ``python benchmarks/bench_first_order.py``.
"""

import torch
from peft import LoraConfig, get_peft_model
from rich.console import Console
from torch import nn

from innerloop.core import params as vector
from innerloop.core.inner import SGD, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import InPlaceLearner, VmapLearner
from innerloop.core.learner.base import Learner
from innerloop.core.metagrad import FirstOrder
from innerloop.core.params import Params
from innerloop.core.task import FixedTask
from measure import time_ratio
from models import next_token_loss, random_llama, random_tokens

TASKS, STEPS, ROWS, TOKENS, RATE = 4, 3, 8, 24, 0.05
ROUNDS = 7


def language_model() -> nn.Module:
    """Six frozen layers with LoRA on attention."""
    adapter = LoraConfig(r=8, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    return get_peft_model(random_llama(layers=6), adapter)


def draw() -> list[FixedTask]:
    """Tasks of random tokens."""
    batches = random_tokens(TASKS, STEPS + 1, ROWS, TOKENS)
    return [FixedTask(f"{number}", tokens[:-1].unbind(), tokens[-1]) for number, tokens in enumerate(batches)]


def ours(learner: Learner, strategy: FirstOrder, tasks: list[FixedTask]) -> Params:
    """The sum of the tasks' meta-gradients as the trainer gathers it."""
    total: Params = {}
    for start in range(0, len(tasks), learner.tasks_at_once):
        gradient = strategy(learner, learner.bundle(tasks[start : start + learner.tasks_at_once])).gradient
        total = vector.add(total, gradient) if total else gradient
    return total


def handwritten(model: nn.Module, tasks: list[FixedTask]) -> Params:
    """The same sum, by the shortest loop that gives it."""
    theta = {name: p for name, p in model.named_parameters() if p.requires_grad}
    live = list(theta.values())
    start = [p.detach().clone() for p in live]
    total = [torch.zeros_like(p) for p in live]
    for task in tasks:
        for tokens in task.support_batches:
            gradient = torch.autograd.grad(next_token_loss(model, tokens), live)
            with torch.no_grad():
                torch._foreach_add_(live, gradient, alpha=-RATE)
        torch._foreach_add_(total, torch.autograd.grad(next_token_loss(model, task.query_batch), live))
        with torch.no_grad():
            torch._foreach_copy_(live, start)
    return dict(zip(theta, total, strict=True))


def main() -> None:
    """Prints one line a learner."""
    model, tasks = language_model(), draw()
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    strategy = FirstOrder(InnerLoop(SGD(), LearningRates(RATE, names, STEPS), STEPS))
    learners: dict[str, Learner] = {
        "in place": InPlaceLearner(model, next_token_loss),
        f"vmap, {TASKS} tasks at once": VmapLearner(model, next_token_loss, TASKS),
    }
    wanted = handwritten(model, tasks)
    console = Console()
    console.print(
        f"FOMAML, {TASKS} tasks of {STEPS} steps on {ROWS} x {TOKENS} tokens, time ours / handwritten:"
    )
    for name, learner in learners.items():
        got = ours(learner, strategy, tasks)
        distance = float(vector.norm(vector.subtract(got, wanted)) / vector.norm(wanted))
        if distance > 1e-3:
            raise SystemExit(f"{name}: the gradients differ by {distance:.1e} of their length")
        ratio = time_ratio(
            lambda at=learner: ours(at, strategy, tasks), lambda: handwritten(model, tasks), ROUNDS
        )
        console.print(f"  {name}: {ratio}, gradients {distance:.0e} apart")


if __name__ == "__main__":
    main()
