"""Products by oneDNN against PEFT's own layers and float64, first and second derivatives."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from torch.func import functional_call, vmap

from innerloop.llm import products
from innerloop.llm.products import OneDnnLinear, OneDnnLoraLinear, speed_up, times

pytestmark = pytest.mark.skipif(
    not torch.backends.mkldnn.is_available(),  # type: ignore[no-untyped-call]
    reason="this build of PyTorch has no oneDNN",
)


class Net(nn.Module):
    """Two linear layers, one with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(48, 64, bias=False), nn.Linear(64, 40)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.second(torch.tanh(self.first(x)))
        return output


def adapted(dropout: float = 0.0, targets: tuple[str, ...] = ("first", "second")) -> nn.Module:
    """A net with adapters that are not at their start."""
    torch.manual_seed(0)
    model: nn.Module = get_peft_model(
        Net(),
        LoraConfig(r=4, lora_alpha=6, lora_dropout=dropout, target_modules=list(targets)),
    )
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(0.1 * torch.randn_like(p))
    return model


@pytest.fixture(autouse=True)
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes oneDNN on every processor and for the smallest product."""
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    monkeypatch.setattr(products, "LEAST_WORK", 0)


def sped_up(model: nn.Module) -> nn.Module:
    """A copy that multiplies by oneDNN."""
    copied = copy.deepcopy(model)
    speed_up(copied)
    return copied


def derivatives(model: nn.Module, x: Tensor, twice: bool = True) -> list[Tensor]:
    """The output, the gradient of a scalar of it, and the gradient of that gradient's square."""
    leaves = [x, *(p for p in model.parameters() if p.requires_grad)]
    output = model(x)
    gradient = torch.autograd.grad(output.sin().sum(), leaves, create_graph=twice)
    if not twice:
        return [output, *gradient]
    again = torch.autograd.grad(
        sum((g.square().sum() for g in gradient), start=torch.tensor(0.0)), leaves, materialize_grads=True
    )
    return [output, *gradient, *again]


def assert_close(found: list[Tensor], wanted: list[Tensor]) -> None:
    for got, right in zip(found, wanted, strict=True):
        assert (got.double() - right.double()).norm() <= 3e-6 * right.double().norm()


@pytest.mark.parametrize("shape", [(5, 48), (2, 7, 48)])
@pytest.mark.parametrize("frozen", [True, False])
def test_two_derivatives_are_those_of_peft_in_float64(shape: tuple[int, ...], frozen: bool) -> None:
    model = adapted()
    if not frozen:
        model.requires_grad_(True)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1), requires_grad=True)
    exact = copy.deepcopy(model).double()
    wanted = derivatives(exact, x.detach().double().requires_grad_())
    assert_close(derivatives(sped_up(model), x), wanted)
    assert_close(derivatives(sped_up(model), x, twice=False), wanted[: 1 + len(wanted) // 2])


def test_all_linear_layers_are_taken_and_an_unadapted_one_too() -> None:
    model = sped_up(adapted(targets=("first",)))
    kinds = {type(module) for module in model.modules() if isinstance(module, nn.Linear)}
    assert kinds == {OneDnnLinear}
    assert sum(isinstance(module, OneDnnLoraLinear) for module in model.modules()) == 1


def test_dropout_a_merged_and_a_disabled_adapter_go_the_way_of_peft() -> None:
    x = torch.randn(3, 48)
    plain = adapted(dropout=0.5).train()
    fast = sped_up(plain)
    results = []
    for model in (plain, fast):
        torch.manual_seed(0)
        results.append(model(x))
    assert_close([results[1]], [results[0]])
    with plain.disable_adapter(), fast.disable_adapter():  # type: ignore[operator]
        assert_close([fast(x)], [plain(x)])
    before = plain.eval()(x)
    fast.eval().merge_adapter()  # type: ignore[operator]
    assert_close([fast(x)], [before])
    assert_close([sped_up(plain).merge_and_unload()(x)], [before])  # type: ignore[operator]


def test_lent_parameters_and_mapped_ones_are_used() -> None:
    plain = adapted()
    fast = sped_up(plain)
    x = torch.randn(3, 48)
    lent = {name: 2 * p.detach() for name, p in plain.named_parameters() if p.requires_grad}
    assert_close([functional_call(fast, lent, (x,))], [functional_call(plain, lent, (x,))])
    stacked = {name: torch.stack([p, 3 * p]) for name, p in lent.items()}
    mapped = [
        vmap(lambda point, m=model: functional_call(m, point, (x,)))(stacked) for model in (fast, plain)
    ]
    assert_close(mapped[:1], mapped[1:])


def test_other_dtypes_and_autocast_are_left_to_pytorch() -> None:
    plain = adapted().to(torch.bfloat16)
    x = torch.randn(3, 48, dtype=torch.bfloat16)
    assert torch.equal(sped_up(plain)(x), plain(x))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sped_up(adapted())(x.float()), adapted()(x.float()))


@pytest.mark.parametrize(("rows", "columns"), [(30, 4), (4, 30)])
def test_either_side_may_be_transposed(rows: int, columns: int) -> None:
    left, right = torch.randn(16, rows).T, torch.randn(16, columns).T
    torch.testing.assert_close(times(left, right), left @ right.T, rtol=1e-5, atol=1e-5)


def test_a_processor_that_needs_nothing_keeps_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "onednn_is_faster", lambda: False)
    assert not any(isinstance(module, OneDnnLinear) for module in sped_up(adapted()).modules())
