"""How many requests users send: a profile over time, and the Poisson counts drawn from it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Pattern = Literal["flat", "diurnal", "bursty", "step"]


@dataclass(frozen=True)
class Load:
    """Requests a second over an episode.

    - ``flat``: the rate.
    - ``diurnal``: rate · (1 + amplitude · sin(2π (t / period + phase))).
    - ``bursty``: the rate, and ``1 + amplitude`` times as much in bursts of a tenth of a period, one at a
      random place in each period.
    - ``step``: the rate, and from ``phase`` of the episode on ``1 + amplitude`` times as much.

    Args:
        pattern: the profile.
        rate: requests a second, over all regions.
        amplitude: see above; at most 1 for ``diurnal``.
        period: seconds.
        phase: between 0 and 1.
        shares: of the regions; their sum is 1.
    """

    pattern: Pattern
    rate: float
    amplitude: float = 0.0
    period: float = 600.0
    phase: float = 0.0
    shares: tuple[float, ...] = (1.0,)

    def profile(self, seconds: NDArray[np.float64], generator: np.random.Generator) -> NDArray[np.float64]:
        """The expected rate at these times, in requests a second; the generator places the bursts."""
        above: NDArray[np.float64]
        match self.pattern:
            case "flat":
                above = np.zeros_like(seconds)
            case "diurnal":
                above = np.sin(2 * np.pi * (seconds / self.period + self.phase))
            case "bursty":
                number = (seconds / self.period).astype(int)
                begin = generator.uniform(0, 0.9, number.max() + 1)[number]
                within = seconds / self.period - number
                above = ((within >= begin) & (within < begin + 0.1)).astype(np.float64)
            case "step":
                # The end of the episode is the last time asked for.
                above = (seconds >= self.phase * (seconds[-1] if seconds.size else 0.0)).astype(np.float64)
        return self.rate * (1 + self.amplitude * above)

    def draw(self, ticks: int, tick: float, generator: np.random.Generator) -> NDArray[np.float64]:
        """Requests that come in each tick from each region, shape ``(ticks, regions)``."""
        profile = self.profile(np.arange(ticks, dtype=np.float64) * tick, generator)
        mean = tick * profile[:, None] * np.asarray(self.shares)
        counts: NDArray[np.float64] = generator.poisson(mean).astype(np.float64)
        return counts
