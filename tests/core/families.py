"""Small task families in float64 on which the core is held against the mathematics.

A family is a model, its loss and a way to draw tasks: a conv net whose batch norm uses batch statistics, a
two-layer Llama with tied embeddings and every parameter adapted, PEFT LoRA on that Llama, and quadratics
whose answers are known in closed form. Nothing here knows a strategy or a learner.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama import modeling_llama

from innerloop.core import params as vector
from innerloop.core.inner import LearningRates
from innerloop.core.learner import Objective
from innerloop.core.task import FixedTask, MicroBatches

VOCABULARY = 13
CLASSES = 3

Draw = Callable[[int, int], FixedTask]
"""A task from its seed and its number of inner steps; every step has a support batch of its own."""


@dataclass(frozen=True)
class Family:
    """A model and the tasks it adapts to."""

    module: nn.Module
    objective: Objective
    draw: Draw
    inner_rate: float

    @property
    def names(self) -> list[str]:
        return [name for name, p in self.module.named_parameters() if p.requires_grad]

    def theta(self) -> dict[str, Tensor]:
        return vector.cloned({name: p for name, p in self.module.named_parameters() if p.requires_grad})


def drawn(batch: Callable[[torch.Generator], Any]) -> Draw:
    """Tasks made of independent batches."""

    def draw(seed: int, steps: int) -> FixedTask:
        generator = torch.Generator().manual_seed(seed)
        return FixedTask(f"task {seed}", [batch(generator) for _ in range(steps)], batch(generator))

    return draw


# A conv net


def image_loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, labels = batch
    return cross_entropy(module(images), labels)


def images(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    return (
        torch.randn(6, 1, 8, 8, generator=generator, dtype=torch.float64),
        torch.randint(0, CLASSES, (6,), generator=generator),
    )


def conv_family() -> Family:
    """Two conv blocks with batch norm on batch statistics, and a linear head.

    The convolutions have no bias: batch norm takes it out again, so its gradient would be rounding noise,
    which Adam's root blows up.
    """
    torch.manual_seed(1)
    module = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Tanh(),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(4, track_running_stats=False),
        nn.Tanh(),
        nn.Flatten(),
        nn.Linear(16, CLASSES),
    )
    return Family(module.double(), image_loss, drawn(images), inner_rate=0.2)


# A causal language model


def token_loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Next-token cross-entropy: the sum over a piece's tokens, divided by the number in the whole batch.

    Mask and positions are given explicitly, since Hugging Face's own mask building cannot be vmapped.
    """
    ids, tokens_in_batch = batch
    rows, length = ids.shape
    dtype = next(module.parameters()).dtype
    hidden = torch.full((length, length), torch.finfo(dtype).min, dtype=dtype).triu(1)
    logits = module(
        input_ids=ids,
        position_ids=torch.arange(length).expand(rows, length),
        attention_mask=hidden.expand(rows, 1, length, length),
        use_cache=False,
    ).logits
    total = cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten(), reduction="sum")
    return total / tokens_in_batch


def tokens(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    ids = torch.randint(0, VOCABULARY, (4, 6), generator=generator)
    return ids, torch.tensor(ids.shape[0] * (ids.shape[1] - 1), dtype=torch.float64)


def in_micro_batches(batch: tuple[Tensor, Tensor], *cuts: int) -> MicroBatches:
    """The rows of a token batch in pieces of the given sizes."""
    ids, tokens_in_batch = batch
    return MicroBatches((piece, tokens_in_batch) for piece in ids.split(cuts))


def llama() -> LlamaForCausalLM:
    torch.manual_seed(2)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=16,
        tie_word_embeddings=True,
        attn_implementation="eager",
        initializer_range=0.3,  # the usual 0.02 leaves a net this small all but linear
    )
    return LlamaForCausalLM(config).double().eval()


def llama_family() -> Family:
    """Every parameter of the Llama adapted, the tied embedding among them."""
    return Family(llama(), token_loss, drawn(tokens), inner_rate=0.1)


def lora_family(randomised: bool = True) -> Family:
    """LoRA adapters on the frozen Llama; B starts at 0 as it does in training unless it is randomised."""
    config = LoraConfig(
        r=3, lora_alpha=6, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM"
    )
    module = get_peft_model(llama(), config).double().eval()
    if randomised:
        torch.manual_seed(3)
        with torch.no_grad():
            for name, p in module.named_parameters():
                if "lora_B" in name:
                    p.normal_(std=0.3)
    return Family(module, token_loss, drawn(tokens), inner_rate=0.3)


def fresh_lora_family() -> Family:
    return lora_family(randomised=False)


FAMILIES: Mapping[str, Callable[[], Family]] = {
    "conv": conv_family,
    "llama": llama_family,
    "lora": lora_family,
}


class _TorchInDouble(ModuleType):
    """PyTorch as seen by a module that should compute in float64 where it asks for float32."""

    float32 = torch.float64

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


@contextmanager
def llama_in_double() -> Iterator[None]:
    """Lets the Llama compute in float64 throughout.

    Hugging Face's RMSNorm and softmax cast to ``torch.float32`` whatever the parameters are. That is right
    for training in bfloat16, but it rounds away everything past the seventh digit, where two ways to one
    gradient are to be compared. (Rotary angles stay rounded: they are constants.)
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(modeling_llama, "torch", _TorchInDouble("torch"))
        yield


# Quadratics


class Point(nn.Module):
    """A parameter vector in two tensors of different shapes."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.head = nn.Parameter(torch.randn(2, dtype=torch.float64))
        self.tail = nn.Parameter(torch.randn(size - 2, 1, dtype=torch.float64))

    def flat(self) -> Tensor:
        return torch.cat([self.head, self.tail.flatten()])


def flat(params: Mapping[str, Tensor]) -> Tensor:
    """A point of the quadratic family as one vector."""
    return torch.cat([params["head"].flatten(), params["tail"].flatten()])


def quadratic_loss(module: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """½ xᵀAx − bᵀx."""
    assert isinstance(module, Point)
    matrix, target = batch
    x = module.flat()
    return 0.5 * x @ matrix @ x - target @ x


def quadratic(generator: torch.Generator, size: int = 6) -> tuple[Tensor, Tensor]:
    """A with eigenvalues between 0.2 and about 2, and b."""
    root = torch.randn(size, size, generator=generator, dtype=torch.float64) / size**0.5
    matrix = root @ root.T / 2 + 0.2 * torch.eye(size, dtype=torch.float64)
    return matrix, torch.randn(size, generator=generator, dtype=torch.float64)


def quadratic_family() -> Family:
    torch.manual_seed(4)
    return Family(Point(6), quadratic_loss, drawn(quadratic), inner_rate=0.3)


# Shared arithmetic


def distance(got: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> float:
    """‖got − wanted‖ / ‖wanted‖ over all tensors together; the names and shapes must agree."""
    assert {name: t.shape for name, t in got.items()} == {name: t.shape for name, t in wanted.items()}
    return float(vector.norm(vector.subtract(dict(got), dict(wanted))) / vector.norm(dict(wanted)))


def fixed_rates(family: Family, steps: int, scale: float = 1.0) -> LearningRates:
    return LearningRates(scale * family.inner_rate, family.names, steps)


def learned_rates(family: Family, steps: int, scale: float = 1.0) -> LearningRates:
    """Learned rates, every tensor and step different, in float64 so that their gradient is exact too."""
    rates = LearningRates(scale * family.inner_rate, family.names, steps, learned=True)
    generator = torch.Generator().manual_seed(5)
    rates.values = {
        name: value.double() * torch.empty(steps, dtype=torch.float64).uniform_(0.5, 1.5, generator=generator)
        for name, value in rates.values.items()
    }
    return rates
