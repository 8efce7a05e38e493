"""Implicit MAML."""

from contextlib import nullcontext

import torch
from torch import Tensor

from innerloop.core import params as vector
from innerloop.core.errors import InputError
from innerloop.core.inner_loop import Adapted, InnerLoop
from innerloop.core.learner.base import Learner
from innerloop.core.metagrad.base import MetaGradient, Strategy, added, loss_before, support_loss_after
from innerloop.core.params import Params
from innerloop.core.task import Task


class Implicit(Strategy):
    """The gradient of Q(φ*) with φ* = argmin S(φ) + λ/2 ‖φ − θ‖² (Rajeswaran 2019).

    By the implicit function theorem it solves ((1 + δ) I + H/λ) g = ∇Q(φ*), which conjugate gradients do
    with Hessian-vector products alone. S is the mean of the support batches the inner loop drew; the
    proximal term acts at every inner step. With 0 iterations g = ∇Q(φ*): FOMAML at the proximal point.

    Reported beside the losses: ``cg_residual``, ‖b − Ag‖ / ‖b‖, and ``stationarity``, ‖∇S(φ) + λ(φ − θ)‖,
    which tells how far φ is from the φ* the theorem speaks of.

    Args:
        inner: the inner loop, with ``proximal`` = λ > 0.
        iterations: conjugate-gradient steps at most.
        damping: δ.
    """

    def __init__(self, inner: InnerLoop, iterations: int, damping: float = 0.0) -> None:
        super().__init__(inner)
        if inner.proximal <= 0:
            raise InputError(
                f"implicit MAML needs a proximal weight above 0 (implicit.lambda), not {inner.proximal}"
            )
        self.iterations, self.damping = iterations, damping

    def __call__(self, learner: Learner, task: Task, total: Params | None = None) -> MetaGradient:
        """The meta-gradient of one task."""
        with learner.excursion() as theta:
            start = learner.keep(theta)
            before = loss_before(learner, theta, task.query(theta))
            adapted = self.inner.run(learner, task, theta)
            point = learner.keep(adapted.params)
            support_loss = support_loss_after(learner, adapted)
            query_loss, target = learner.gradient(point, task.query(point))
            solution, residual = self._solve(learner, point, adapted, target)
            return MetaGradient(
                gradient=added(learner.pool(solution), total),
                rate_gradient={},
                support_loss=support_loss,
                query_loss_before=before,
                query_loss=query_loss.reshape(-1),
                states=learner.unbundle(adapted.state),
                extras={
                    "stationarity": self._stationarity(learner, start, point, adapted).reshape(-1),
                    **({} if residual is None else {"cg_residual": residual.reshape(-1)}),
                },
            )

    def _solve(
        self, learner: Learner, point: Params, adapted: Adapted, target: Params
    ) -> tuple[Params, Tensor | None]:
        """Conjugate gradients from the target itself, which is the first-order answer."""
        dot, add = learner.lift(vector.dot), learner.lift(vector.add, in_dims=(0, 0, 0))

        def product(direction: Params) -> Params:
            total = vector.scaled(direction, 1.0 + self.damping)
            share = 1.0 / (self.inner.proximal * len(adapted.batches))
            for batch in adapted.batches:
                total = vector.add(total, learner.hvp(point, batch, direction), share)
            return total

        length = dot(target, target).sqrt()
        solution = vector.detached(target)
        if self.iterations == 0:
            return solution, None
        residual = vector.subtract(target, product(solution))
        direction, square = residual, dot(residual, residual)
        solved = (torch.finfo(length.dtype).eps * length).square()
        going = torch.ones_like(length, dtype=torch.bool)
        for _ in range(self.iterations):
            # Once its own tasks have stopped, a process goes on only to keep step with others.
            with nullcontext() if bool(going.any()) else learner.unaccounted():
                image = product(direction)
            curvature = dot(direction, image)
            # Where the matrix is not positive along the direction, or nothing is left to solve, a task stops.
            going = going & (curvature > 0) & (square > solved)
            stride = torch.where(going, square / torch.where(going, curvature, 1.0), 0.0)
            solution = add(solution, direction, stride)
            residual = add(residual, image, -stride)
            following = dot(residual, residual)
            direction = add(
                residual, direction, torch.where(going, following / torch.where(going, square, 1.0), 0.0)
            )
            square = torch.where(going, following, torch.zeros_like(following))
            if not learner.any_goes_on(going):
                break
        return solution, dot(residual, residual).sqrt() / torch.where(length > 0, length, 1.0)

    def _stationarity(self, learner: Learner, start: Params, point: Params, adapted: Adapted) -> Tensor:
        gradient = vector.scaled(vector.subtract(point, start), self.inner.proximal)
        with learner.unaccounted():
            for batch in adapted.batches:
                step_gradient = learner.gradient(point, batch)[1]
                gradient = vector.add(gradient, step_gradient, 1.0 / len(adapted.batches))
        length: Tensor = learner.lift(vector.norm)(gradient)
        return length
