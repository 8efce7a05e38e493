"""What the code of the package must never do, whatever is asked of the service: unpickle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import innerloop

PACKAGE = Path(innerloop.__file__).parent
UNPICKLING = ("pickle", "cPickle", "_pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")


def modules_of(node: ast.AST) -> list[str]:
    """The modules that a statement imports."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module] if isinstance(node, ast.ImportFrom) and node.module else []


def faults(source: str) -> Iterator[str]:
    """What in a module may unpickle."""
    for node in ast.walk(ast.parse(source)):
        yield from (name for name in modules_of(node) if name.split(".")[0] in UNPICKLING)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            called = ast.unparse(node.func)
            given = {word.arg: ast.unparse(word.value) for word in node.keywords}
            if called == "torch.load" and given.get("weights_only") != "True":
                yield ast.unparse(node)
            if called.endswith(("np.load", "numpy.load")) and given.get("allow_pickle", "False") != "False":
                yield ast.unparse(node)


@pytest.mark.parametrize("folder", sorted(path.name for path in PACKAGE.iterdir() if path.is_dir()))
def test_nothing_in_the_package_unpickles(folder: str) -> None:
    found = {
        str(path.relative_to(PACKAGE)): list(faults(path.read_text(encoding="utf-8")))
        for path in (PACKAGE / folder).rglob("*.py")
    }
    assert {path: listed for path, listed in found.items() if listed} == {}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from cloudpickle import loads",
        "def f():\n    import dill.source",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
    ],
)
def test_what_unpickles_is_seen(source: str) -> None:
    assert list(faults(source))
