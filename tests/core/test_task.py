"""Tasks, micro-batches and named vectors."""

import pytest
import torch

from innerloop.core import params as vector
from innerloop.core.errors import InputError, NonFiniteError, missing_extra
from innerloop.core.learner.vmapped import stack_batches
from innerloop.core.params import Params
from innerloop.core.task import Batch, FixedTask, MicroBatches, TaskStack, pieces


def test_a_fixed_task_starts_over_when_its_batches_run_out() -> None:
    task = FixedTask("t", ["first", "second"], "query")
    assert [task.support(step, {}) for step in range(5)] == ["first", "second", "first", "second", "first"]
    assert task.query({}) == "query"


def test_the_pieces_of_a_batch() -> None:
    assert list(pieces("whole")) == ["whole"]
    assert list(pieces(("a", "tuple"))) == [("a", "tuple")]
    assert list(pieces(MicroBatches(["first", "second"]))) == ["first", "second"]


class Echo:
    """A task that gives back the parameters it was asked with, as reinforcement learning depends on them."""

    def __init__(self, name: str) -> None:
        self.name = name

    def support(self, step: int, params: Params) -> Batch:
        return params["w"] + step

    def query(self, params: Params) -> Batch:
        return -params["w"]


def test_a_stack_asks_every_task_with_its_own_parameters() -> None:
    stack = TaskStack([Echo("a"), Echo("b")], stack_batches)
    params = {"w": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}
    assert stack.name == "a, b"
    assert torch.equal(stack.support(10, params), params["w"] + 10)
    assert torch.equal(stack.query(params), -params["w"])


def test_named_vectors() -> None:
    left = {"a": torch.tensor([3.0]), "b": torch.tensor([[4.0]])}
    right = {"b": torch.tensor([[2.0]]), "a": torch.tensor([1.0])}
    assert float(vector.dot(left, right)) == 11
    assert float(vector.norm(left)) == 5
    assert vector.add(left, right, 0.5) == {"a": torch.tensor([3.5]), "b": torch.tensor([[5.0]])}
    assert vector.subtract(left, right) == {"a": torch.tensor([2.0]), "b": torch.tensor([[2.0]])}
    assert vector.scaled(left, -1.0) == {"a": torch.tensor([-3.0]), "b": torch.tensor([[-4.0]])}
    assert vector.zeros_like(left) == {"a": torch.zeros(1), "b": torch.zeros(1, 1)}


def test_copies_and_views() -> None:
    leaf = {"a": torch.ones(2, requires_grad=True)}
    view, copy = vector.detached(leaf), vector.cloned(leaf)
    with torch.no_grad():
        leaf["a"].add_(1)
    assert not view["a"].requires_grad
    assert not copy["a"].requires_grad
    assert view["a"].tolist() == [2, 2]
    assert copy["a"].tolist() == [1, 1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_entry_is_seen(bad: float) -> None:
    good = {"a": torch.ones(3), "b": torch.ones(2, 2)}
    assert vector.all_finite(good)
    good["b"][1, 0] = bad
    assert not vector.all_finite(good)


def test_errors_name_what_to_do() -> None:
    error = NonFiniteError("query loss", "algebra", 7)
    assert (error.what, error.task, error.step) == ("query loss", "algebra", 7)
    assert "query loss of task 'algebra' is not finite at step 7" in str(error)
    missing = missing_extra("gguf", "smollm")
    assert isinstance(missing, InputError)
    assert str(missing) == "'gguf' is not installed; install it with: pip install 'innerloop[smollm]'"
