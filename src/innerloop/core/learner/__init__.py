"""What a strategy may do to a model: loss, gradient, Hessian-vector product, move.

Three ways of running the same model stand here behind one interface: functional (one task at a time, the
module never changes), vmapped (several tasks in one call) and in place (ordinary training on the module).
"""

from innerloop.core.learner.base import Learner, Ledger, Objective
from innerloop.core.learner.functional import FunctionalLearner
from innerloop.core.learner.in_place import InPlaceLearner
from innerloop.core.learner.vmapped import VmapLearner

__all__ = ["FunctionalLearner", "InPlaceLearner", "Learner", "Ledger", "Objective", "VmapLearner"]
