"""The meta-gradient strategies, one file each."""

from innerloop.core.metagrad.base import MetaGradient, Strategy
from innerloop.core.metagrad.direct import Direct
from innerloop.core.metagrad.exact import Exact
from innerloop.core.metagrad.first_order import FirstOrder
from innerloop.core.metagrad.implicit import Implicit
from innerloop.core.metagrad.joint import Joint
from innerloop.core.metagrad.reptile import Reptile
from innerloop.core.metagrad.unroll import Unroll

__all__ = [
    "Direct",
    "Exact",
    "FirstOrder",
    "Implicit",
    "Joint",
    "MetaGradient",
    "Reptile",
    "Strategy",
    "Unroll",
]
