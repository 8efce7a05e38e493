"""The rules of the house that no other check sees: layers, size, import cost, forbidden habits.

The import contracts themselves are in pyproject.toml; here each is shown to fail when it is broken.
"""

import ast
import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import innerloop

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "innerloop"
LONGEST_FILE = 400
LONGER_FOR_A_REASON: dict[str, str] = {}
HEAVY = (
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "pyarrow",
    "pandas",
    "omegaconf",
    "optuna",
    "wandb",
    "tensorboard",
    "matplotlib",
    "jinja2",
    "scipy",
    "rich",
)


def python_files(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def from_root(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# Import contracts


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    """Runs the contracts of the project's own pyproject.toml on a tree that holds a copy of src."""
    code = (
        "import sys; sys.path.insert(0, 'src')\n"
        "from importlinter.cli import lint_imports\n"
        "sys.exit(lint_imports(no_cache=True))"
    )
    return subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, timeout=120)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    shutil.copytree(SOURCE, tmp_path / "src" / "innerloop", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_contracts_hold(tree: Path) -> None:
    outcome = lint_imports(tree)
    assert outcome.returncode == 0, outcome.stdout
    assert "0 broken" in outcome.stdout


@pytest.mark.parametrize(
    ("files", "broken"),
    [
        ({"core/offence.py": "import innerloop.llm.offence\n", "llm/offence.py": ""}, "Layers"),
        ({"core/offence.py": "from innerloop import report\n"}, "Layers"),
        ({"core/learner/offence.py": "import innerloop.tracking\n"}, "Layers"),
        ({"report/offence.py": "import innerloop.llm\n"}, "Layers"),
        ({"report/offence.py": "import innerloop.tracking\n"}, "Layers"),
        ({"llm/offence.py": "import innerloop.cli.main\n"}, "Layers"),
        ({"homeless/__init__.py": ""}, "Layers"),
        ({"core/offence.py": "import transformers\n"}, "core knows torch"),
        (
            {"core/offence.py": "def late():\n    from wandb import init\n    return init\n"},
            "core knows torch",
        ),
        (
            {"core/egg.py": "import innerloop.core.hen\n", "core/hen.py": "import innerloop.core.egg\n"},
            "circles",
        ),
        (
            {
                "llm/data/egg.py": "import innerloop.llm.evaluate.hen\n",
                "llm/evaluate/hen.py": "import innerloop.llm.data\n",
            },
            "circles",
        ),
    ],
)
def test_contracts_can_fail(tree: Path, files: dict[str, str], broken: str) -> None:
    for name, text in files.items():
        path = tree / "src" / "innerloop" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    outcome = lint_imports(tree)
    assert outcome.returncode != 0, outcome.stdout
    verdicts = " ".join(outcome.stdout.split()).split("Contracts:")[0]
    assert any(broken in part for part in verdicts.split(" BROKEN")[:-1]), outcome.stdout


# What `import innerloop` costs


def imported_by(statement: str) -> tuple[set[str], float]:
    """The top-level modules that a fresh interpreter holds after a statement, and the statement's seconds."""
    code = (
        "import json, sys, time\n"
        "start = time.perf_counter()\n"
        f"{statement}\n"
        "seconds = time.perf_counter() - start\n"
        "print(json.dumps([sorted({name.partition('.')[0] for name in sys.modules}), seconds]))"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    modules, seconds = json.loads(outcome.stdout.splitlines()[-1])
    return set(modules), seconds


def test_importing_the_package_loads_nothing_heavy() -> None:
    torch_modules, torch_seconds = imported_by("import torch")
    modules, seconds = imported_by("import innerloop")
    print(f"import torch {torch_seconds:.2f} s, import innerloop {seconds:.2f} s")
    assert not (modules - torch_modules) & {*HEAVY}


def test_importing_every_module_of_core_loads_nothing_heavy() -> None:
    names = [
        from_root(path).removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for path in python_files("src/innerloop/core")
    ]
    torch_modules, torch_seconds = imported_by("import torch")
    modules, seconds = imported_by("import " + ", ".join(names))
    print(f"import torch {torch_seconds:.2f} s, the whole of innerloop.core {seconds:.2f} s")
    assert not (modules - torch_modules) & {*HEAVY} - {"scipy"}  # core.stats stands on scipy.special


def test_help_imports_neither_torch_nor_a_domain() -> None:
    modules, _ = imported_by(
        "from contextlib import redirect_stdout, suppress\n"
        "import io\n"
        "from innerloop.cli.main import main\n"
        "with redirect_stdout(io.StringIO()), suppress(SystemExit):\n"
        "    main(['--help'])"
    )
    assert not modules & {*HEAVY, "torch"} - {"rich"}


# Habits


def test_no_file_is_too_long() -> None:
    lengths = {
        from_root(path): len(path.read_text().splitlines())
        for path in python_files("src", "tests", "benchmarks")
    }
    long = {name: lines for name, lines in lengths.items() if lines > LONGEST_FILE}
    assert long.keys() == LONGER_FOR_A_REASON.keys(), (
        f"one idea a file, or a reason in LONGER_FOR_A_REASON: {long}"
    )


def test_no_module_is_called_utils() -> None:
    assert not [from_root(path) for path in python_files("src", "tests") if "util" in path.stem]


def passes_on(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a function hands its own ``**options`` to another; a ParamSpec wrapper is typed and may."""
    options = function.args.kwarg
    if options is None or isinstance(options.annotation, ast.Attribute):
        return False
    return any(
        keyword.arg is None and isinstance(keyword.value, ast.Name) and keyword.value.id == options.arg
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        for keyword in call.keywords
    )


def test_no_keyword_tunnels() -> None:
    tunnels = [
        f"{from_root(path)}:{node.lineno} {node.name}"
        for path in python_files("src")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and passes_on(node)
    ]
    assert not tunnels, "name the arguments"


def test_a_keyword_tunnel_is_seen() -> None:
    tunnel, typed, local = ast.parse(
        "def tunnel(**options): return f(1, **options)\n"
        "def typed(*a: P.args, **k: P.kwargs): return f(*a, **k)\n"
        "def local(**counts): return dict(counts)\n"
    ).body
    assert passes_on(tunnel)
    assert not passes_on(typed)
    assert not passes_on(local)


# The build files agree with one another


PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_every_requirement_is_pinned_within_its_range() -> None:
    lines = (line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#")
    pins = {canonicalize_name(name): version for name, _, version in (line.partition("==") for line in lines)}
    requirements = [
        *PROJECT["dependencies"],
        *(r for rs in PROJECT["optional-dependencies"].values() for r in rs),
    ]
    for requirement in map(Requirement, requirements):
        if requirement.name != PROJECT["name"]:
            assert requirement.specifier.contains(
                pins[canonicalize_name(requirement.name)], prereleases=True
            ), requirement


def test_every_extra_an_error_names_exists() -> None:
    named = {
        call.args[1].value
        for path in python_files("src")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "missing_extra"
        if len(call.args) == 2 and isinstance(call.args[1], ast.Constant)
    }
    assert named <= PROJECT["optional-dependencies"].keys()


def test_one_version() -> None:
    assert innerloop.__version__ == PROJECT["version"]
    assert f"## {PROJECT['version']}" in (ROOT / "CHANGELOG.md").read_text()


def test_continuous_integration_runs_the_readme_command() -> None:
    assert "\nmake test\n" in (ROOT / "README.md").read_text()
    assert "\nmake test " in (ROOT / ".ci" / "run").read_text()
