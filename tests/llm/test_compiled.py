"""Training with compiled layers is training, and where nothing can be compiled it is refused."""

from pathlib import Path

import pytest
import torch

from end_to_end.workbench import Workbench, write_tasks
from innerloop.core.checkpoint import RunState
from innerloop.core.errors import InputError
from innerloop.llm import compiled
from innerloop.llm.compiled import compile_layers
from innerloop.llm.config import load_config
from innerloop.llm.train import train
from tiny_llama import tiny_llama

CPU = torch.device("cpu")
FULL = ("model.lora_rank=0", "model.lora_layers=null", "meta.inner_lr=0.1", "optim.lr=1e-3")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path_factory.getbasetemp() / "compiled"
    monkeypatch.setenv(compiled.CACHE_VARIABLE, str(folder))
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return folder


@pytest.fixture(scope="module")
def bench(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Workbench:
    folder = tmp_path_factory.mktemp("compiled")
    return Workbench(tiny_model, write_tasks(folder / "data"), folder)


@pytest.mark.parametrize(
    "words",
    [(), (*FULL, "meta.algorithm=fomaml")],
    ids=["upper layers", "full parameters"],
)
def test_compiled_layers_train_as_plain_ones(
    bench: Workbench, words: tuple[str, ...], own_cache: Path
) -> None:
    ends = []
    for name in ("false", "true"):
        run = bench.settings(f"{'-'.join(words)[:20]}-{name}", *words, f"model.compile={name}")
        ends.append(RunState.read(train(load_config("meta_lora", None, run)).checkpoint).tensors)
    assert any(own_cache.rglob("*.so"))
    counted = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert 0 < counted <= 24, "not one for every layer, every batch or every step"
    for name, tensor in ends[0].items():
        if tensor.is_floating_point():
            torch.testing.assert_close(ends[1][name], tensor, rtol=1e-3, atol=1e-5, msg=name)


def test_without_a_compiler_it_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(compiled.CACHE_VARIABLE, str(tmp_path))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(InputError, match=r"does not work on the cpu here.*set model.compile=false"):
        compile_layers(tiny_llama(), CPU)


@pytest.mark.parametrize(
    "words",
    [
        ("meta.algorithm=maml",),
        ("meta.algorithm=maml", "meta.hvp=central", "meta.differentiation=unroll"),
        ("meta.algorithm=implicit_maml", "meta.hvp=reverse"),
        ("meta.tasks_per_chunk=2",),
        ("meta.learner=vmap",),
    ],
    ids=" ".join,
)
def test_what_cannot_be_compiled_is_refused(bench: Workbench, words: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"^model.compile "):
        load_config("meta_lora", None, bench.settings("refused", *words, "model.compile=true"))
