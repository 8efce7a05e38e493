"""Numbers of any magnitude as size and sign, against the definition."""

import math

import pytest
import torch

from innerloop.fewshot.learners.preprocessing import log_and_sign


@pytest.mark.parametrize("p", [7.0, 10.0])
def test_it_is_the_appendixs(p: float) -> None:
    threshold = math.exp(-p)
    sizes = [0.0, 1e-30, 1e-9, threshold * (1 - 1e-9), threshold * (1 + 1e-9), 1e-3, 1.0, 7.0, 1e4]
    values = [sign * size for size in sizes for sign in (1.0, -1.0)]
    wanted = [
        (math.log(abs(x)) / p, math.copysign(1, x)) if abs(x) >= threshold else (-1.0, math.exp(p) * x)
        for x in values
    ]
    found = log_and_sign(torch.tensor(values, dtype=torch.float64).view(2, -1), p).view(-1, 2)
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64), rtol=1e-12, atol=1e-12)


def test_it_is_continuous_at_the_threshold() -> None:
    at = torch.tensor([math.exp(-10)])
    wanted = torch.tensor([[-1.0, 1.0], [-1.0, -1.0]])
    torch.testing.assert_close(log_and_sign(torch.cat([at, -at]), 10), wanted)
