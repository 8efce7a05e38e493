"""How the latency of a pod rises with its load."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LatencyCurve:
    """Nothing up to a threshold, then a jump and a straight line: unit · (base + slope · (load − threshold)).

    The parameters are numbers, or arrays that broadcast against the loads.

    Args:
        threshold: the load, between 0 and 1, above which requests are slowed down.
        unit: seconds.
        base: the jump at the threshold, in units.
        slope: units a whole unit of load.
    """

    threshold: float | NDArray[np.float64] = 0.7
    unit: float | NDArray[np.float64] = 0.5
    base: float | NDArray[np.float64] = 0.05
    slope: float | NDArray[np.float64] = 3.0

    def delay(self, load: NDArray[np.float64]) -> NDArray[np.float64]:
        """Seconds added to a request, for loads of any shape."""
        excess = load - self.threshold
        return np.where(excess > 0, self.unit * (self.base + self.slope * excess), 0.0)
