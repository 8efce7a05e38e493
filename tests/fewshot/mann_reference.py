"""MANN for one episode, one number at a time."""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from innerloop.fewshot.learners.mann import MannNet

WAYS, HIDDEN, SLOTS, WIDTH, READS, DECAY, SIZE = 3, 6, 8, 5, 2, 0.9, 4
Row = list[float]


def dot(left: Sequence[float], right: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def cosine(left: Row, right: Row) -> float:
    lengths = math.sqrt(dot(left, left) * dot(right, right))
    return dot(left, right) / lengths if lengths else 0.0


class Reference:
    """The memory for one episode: the paper's, or with a slot of its own for each head."""

    def __init__(
        self,
        own_slots: bool = False,
        strength: float = 1.0,
        slots: int = SLOTS,
        width: int = WIDTH,
        reads: int = READS,
    ) -> None:
        self.own_slots, self.strength = own_slots, strength
        self.memory = [[0.0] * width for _ in range(slots)]
        self.usage = [0.0] * slots
        self.weights = [[0.0] * slots for _ in range(reads)]
        self.reads = [[0.0] * width for _ in range(reads)]

    def least_used(self) -> list[int]:
        order = sorted(range(len(self.usage)), key=lambda slot: (self.usage[slot], slot))
        return order[: len(self.reads)]

    def step(self, keys: list[Row], contents: list[Row], gates: Row) -> None:
        spare = self.least_used()
        slots, heads = range(len(self.memory)), range(len(keys))
        writes = [
            [
                gates[h] * self.weights[h][i]
                + (1 - gates[h]) * (i == spare[h] if self.own_slots else i in spare)
                for i in slots
            ]
            for h in heads
        ]
        self.memory[spare[0]] = [0.0] * len(keys[0])
        for h in heads:
            for i in slots:
                for j, number in enumerate(contents[h]):
                    self.memory[i][j] += writes[h][i] * number
        for h in heads:
            powers = [math.exp(self.strength * cosine(keys[h], self.memory[i])) for i in slots]
            self.weights[h] = [power / sum(powers) for power in powers]
            self.reads[h] = [
                sum(self.weights[h][i] * self.memory[i][j] for i in slots) for j in range(len(keys[h]))
            ]
        self.usage = [
            DECAY * self.usage[i] + sum(self.weights[h][i] + writes[h][i] for h in heads) for i in slots
        ]


def sigmoid(number: float) -> float:
    return 1 / (1 + math.exp(-number))


def linear(weight: Tensor, bias: Tensor, inputs: Row) -> Row:
    return [dot(row, inputs) + b for row, b in zip(weight.tolist(), bias.tolist(), strict=True)]


def by_head(numbers: Row) -> list[Row]:
    return [numbers[k * WIDTH : (k + 1) * WIDTH] for k in range(READS)]


def follow(net: MannNet, images: Tensor, labels: list[int]) -> list[Row]:
    """The logits of one sequence whose images are seen as pixels."""
    reference = Reference(net.access.own_slots, net.access.strength)
    cell, (to_keys, to_gates) = net.controller, (net.keys[0], net.gates[0])
    assert isinstance(to_keys, nn.Linear)
    assert isinstance(to_gates, nn.Linear)
    h, c = [0.0] * HIDDEN, [0.0] * HIDDEN
    logits = []
    for time, image in enumerate(images):
        label = [float(time > 0 and labels[time - 1] == n) for n in range(WAYS)]
        inputs = image.flatten().tolist() + label + [number for read in reference.reads for number in read]
        from_inputs = linear(cell.weight_ih, cell.bias_ih, inputs)
        from_hidden = linear(cell.weight_hh, cell.bias_hh, h)
        sums = [a + b for a, b in zip(from_inputs, from_hidden, strict=True)]
        enter, forget, new, show = (sums[k * HIDDEN : (k + 1) * HIDDEN] for k in range(4))
        c = [sigmoid(forget[u]) * c[u] + sigmoid(enter[u]) * math.tanh(new[u]) for u in range(HIDDEN)]
        h = [sigmoid(show[u]) * math.tanh(c[u]) for u in range(HIDDEN)]
        keys = [math.tanh(number) for number in linear(to_keys.weight, to_keys.bias, h)]
        gates = [sigmoid(number) for number in linear(to_gates.weight, to_gates.bias, h)]
        contents = keys
        if net.contents is not None:
            to_contents = net.contents[0]
            assert isinstance(to_contents, nn.Linear)
            contents = [math.tanh(number) for number in linear(to_contents.weight, to_contents.bias, h)]
        reference.step(by_head(keys), by_head(contents), gates)
        known = h + [number for read in reference.reads for number in read]
        logits.append(linear(net.output.weight, net.output.bias, known))
    return logits
