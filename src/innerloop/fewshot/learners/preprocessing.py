"""How a network is shown numbers of any magnitude (Andrychowicz 2016, appendix A)."""

import math

import torch
from torch import Tensor


def log_and_sign(values: Tensor, p: float) -> Tensor:
    """Size and sign, both within a network's reach.

    x becomes (log|x| / p, sign x) where |x| ≥ e⁻ᵖ, and (−1, eᵖ x) below. On either side of the threshold each
    half is a clipped form of the other.

    Args:
        values: ``...``.
        p: sets the threshold.

    Returns:
        ``... x 2``.
    """
    size = (values.abs().log() / p).clamp_min(-1)
    sign = (math.exp(p) * values).clamp(-1, 1)
    return torch.stack([size, sign], -1)
