"""What a strategy may do to a model: loss, gradient, Hessian-vector product, move.

Four ways of running the same model stand here behind one interface: functional (one task at a time, the
module never changes), vmapped (several tasks in one call), in place (ordinary training on the module) and
sharded (the same on a module that several processes hold together).
"""

from innerloop.core.learner.base import Learner, Ledger, Objective
from innerloop.core.learner.functional import FunctionalLearner
from innerloop.core.learner.in_place import InPlaceLearner
from innerloop.core.learner.sharded import ShardedLearner
from innerloop.core.learner.vmapped import VmapLearner

__all__ = [
    "FunctionalLearner",
    "InPlaceLearner",
    "Learner",
    "Ledger",
    "Objective",
    "ShardedLearner",
    "VmapLearner",
]
