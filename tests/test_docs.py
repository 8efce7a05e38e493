"""The documentation is true: its pages build, fetch nothing, and every command and program on them runs.

A comment on the line above a fenced block of the README, CONTRIBUTING.md or docs/ says what is done with it:

    <!-- run -->                          run it as it stands
    <!-- run: needs data -->              INNERLOOP_DATA must be set; its folder is linked as ``datasets``
    <!-- run: needs module NAME -->       the optional module must be installed
    <!-- run: with OLD -> NEW -->         OLD, which must occur, is replaced first: a long run by a short one
    <!-- run: as it stands -->            the replacements of the page are left out
    <!-- file: NAME -->                   the block is written to the file NAME
    <!-- no-run: REASON -->               left alone

Clauses are joined with semicolons. ``bash`` and ``python`` blocks must carry one of these. A line
``<!-- replace: OLD -> NEW -->`` replaces in all blocks that are run or written; it must occur in one. The
blocks of a page run in order in one fresh folder that holds ``tiny-model``, a random Llama with a chat
template; the Python blocks of a page share one namespace. A line that starts with ``innerloop`` runs in this
process, any other in bash.
"""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from types import MappingProxyType

import nbformat
import pytest
from nbclient import NotebookClient

from innerloop.cli.main import main
from innerloop.llm.config import available_configs, legacy
from innerloop.llm.config.load import ALIASES

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
NOTEBOOKS = sorted((DOCS / "notebooks").glob("*.ipynb"))
LANGUAGES = ("bash", "python")
FENCE = re.compile(
    r"^(?:<!-- (?P<verb>run|no-run|file)(?:: (?P<clauses>[^\n]*?))? -->\n)?"
    r"```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


@dataclass(frozen=True)
class Block:
    """One fenced block and what its comment asks for.

    Args:
        line: where the fence stands, counted from 1.
        verb: ``run``, ``no-run``, ``file``, or None where no comment stands above.
        clauses: the words after the verb.
    """

    line: int
    verb: str | None
    clauses: tuple[str, ...]
    language: str
    text: str

    def unmet(self) -> str | None:
        """What the block needs and this machine has not."""
        for clause in self.clauses:
            if clause == "needs data" and not os.environ.get("INNERLOOP_DATA"):
                return "INNERLOOP_DATA is not set"
            module = clause.removeprefix("needs module ")
            if module != clause and importlib.util.find_spec(module) is None:
                return f"{module} is not installed"
        return None

    def prepared(self, everywhere: Mapping[str, str] = MappingProxyType({})) -> str:
        """The text with its own replacements and the page's made."""
        text = self.text
        for clause in self.clauses:
            if clause.startswith("with "):
                old, new = clause.removeprefix("with ").split(" -> ")
                assert old in text, f"line {self.line}: nothing to replace for '{clause}'"
                text = text.replace(old, new)
        if "as it stands" not in self.clauses:
            for old, new in everywhere.items():
                text = text.replace(old, new)
        return text


def replacements_of(markdown: str) -> dict[str, str]:
    """What a page replaces in all its blocks."""
    pairs = [words.split(" -> ") for words in re.findall(r"^<!-- replace: (.+) -->$", markdown, re.MULTILINE)]
    return dict(pairs)


def blocks_of(markdown: str) -> list[Block]:
    return [
        Block(
            line=markdown.count("\n", 0, match.start("language")) + 1,
            verb=match["verb"],
            clauses=tuple(clause.strip() for clause in (match["clauses"] or "").split(";") if clause.strip()),
            language=match["language"],
            text=match["text"],
        )
        for match in FENCE.finditer(markdown)
    ]


def commands_of(text: str) -> Iterator[str]:
    """The commands of a bash block: lines joined where they end in a backslash, comments left out.

    A block with a here-document is one command.
    """
    if "<<" in text:
        yield text
        return
    for line in re.sub(r"\s*\\\n\s*", " ", text).splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            yield line.strip()


def run_command(command: str) -> None:
    if command.startswith("innerloop ") and not re.search(r"[|<>$`&;*]", command):
        assert main(shlex.split(command)[1:]) == 0, command
        return
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["bash", "-euo", "pipefail", "-c", command], check=True, env=environment, timeout=300)


def page_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# What the comments mean


def test_blocks_are_read_with_their_comments() -> None:
    page = (
        "text\n<!-- run: needs module no_such_module; with big-model -> tiny-model -->\n"
        "```bash\ninnerloop a \\\n  big-model\n# no\n\nls\n```\n"
        "<!-- file: a/b.json -->\n```json\n{}\n```\n\n```python\nx = 1\n```\n```text\n```\n"
    )
    command, file, bare, text = blocks_of(page)
    assert (command.line, command.verb) == (3, "run")
    assert command.unmet() == "no_such_module is not installed"
    assert list(commands_of(command.prepared())) == ["innerloop a tiny-model", "ls"]
    assert (file.verb, file.clauses, file.text) == ("file", ("a/b.json",), "{}\n")
    assert (bare.verb, bare.language, text.text) == (None, "python", "")


def test_a_page_replaces_in_all_its_blocks() -> None:
    page = (
        "<!-- replace: big -> tiny -->\n\n<!-- run -->\n```bash\na big b\n```\n"
        "<!-- run: as it stands -->\n```bash\nbig\n```\n"
    )
    everywhere = replacements_of(page)
    assert [block.prepared(everywhere) for block in blocks_of(page)] == ["a tiny b\n", "big\n"]


def test_a_replacement_must_find_something() -> None:
    with pytest.raises(AssertionError, match="nothing to replace"):
        Block(1, "run", ("with a -> b",), "bash", "ls").prepared()


def test_a_command_that_fails_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_command("true | cat > made")
    assert (tmp_path / "made").exists()
    with pytest.raises(subprocess.CalledProcessError):
        run_command("false | true")


# The pages


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_block_says_whether_it_runs(page: Path) -> None:
    silent = [
        block.line for block in blocks_of(page.read_text()) if block.language in LANGUAGES and not block.verb
    ]
    assert not silent, f"lines {silent}: put a comment above the block"
    unexplained = [
        block.line for block in blocks_of(page.read_text()) if block.verb == "no-run" and not block.clauses
    ]
    assert not unexplained, f"lines {unexplained}: say why the block is not run"


def runnable_pages() -> list[Path]:
    return [page for page in PAGES if any(block.verb == "run" for block in blocks_of(page.read_text()))]


@pytest.mark.parametrize("page", runnable_pages(), ids=page_name)
def test_the_commands_of_a_page_run(
    page: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny-model").symlink_to(tiny_model)
    if folder := os.environ.get("INNERLOOP_DATA"):
        (tmp_path / "datasets").symlink_to(Path(folder).resolve())
    namespace: dict[str, object] = {"__name__": "__main__"}
    markdown = page.read_text()
    everywhere = replacements_of(markdown)
    blocks = [block for block in blocks_of(markdown) if block.verb in ("run", "file")]
    for old in everywhere:
        assert any(old in block.text for block in blocks), f"nothing to replace for '{old}'"
    skipped = []
    for block in blocks:
        if missing := block.unmet():
            skipped.append(f"line {block.line}: {missing}")
            continue
        if block.verb == "file":
            path = tmp_path / block.clauses[0]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.prepared(everywhere))
        elif block.language == "python":
            exec(compile(block.prepared(everywhere), f"{page.name}:{block.line}", "exec"), namespace)
        else:
            for command in commands_of(block.prepared(everywhere)):
                print(f"{page.name}:{block.line}: {command}")
                run_command(command)
    if skipped:
        pytest.skip(f"all ran but {'; '.join(skipped)}")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=page_name)
def test_a_notebook_runs_top_to_bottom(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "save notebooks without outputs"
    for module in notebook.metadata.get("innerloop", {}).get("needs", ()):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed")
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()


def table_under(page: str, heading: str) -> dict[str, str]:
    """The first table under a heading: the code of the first column to the text of the second."""
    lines = page.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0].splitlines()
    rows = (re.fullmatch(r"\| `(.+?)`.* \| (.+) \|", line) for line in lines)
    return {row[1]: row[2] for row in rows if row}


def test_the_configuration_page_lists_every_older_key() -> None:
    page = (DOCS / "configuration.md").read_text()
    spellings = {**legacy.RENAMED, **legacy.RENAMED_IN_TASKS}
    spellings |= {f"--config-name {old}": new for old, new in ALIASES.items()}
    shown = {old: new.strip("`") for old, new in table_under(page, "Older spellings").items()}
    assert shown.pop("meta.use_fomaml").startswith("meta.algorithm")
    assert shown == spellings
    assert table_under(page, "Read, without effect") == legacy.WITHOUT_EFFECT


def test_every_named_configuration_is_described() -> None:
    described = table_under((DOCS / "choosing.md").read_text(), "Named configurations")
    assert described.keys() == {*available_configs()} - ALIASES.keys()


# The built site


class References(HTMLParser):
    """Gathers what a browser would fetch by itself to show a page."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "link" and values.get("rel") in (
            "stylesheet",
            "icon",
            "preload",
            "preconnect",
            "modulepreload",
        ):
            self.fetched.append(values.get("href") or "")
        elif tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.fetched.append(values.get("src") or "")


def test_the_site_builds_strictly_and_fetches_nothing(tmp_path: Path) -> None:
    site = tmp_path / "site"
    outcome = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 10
    for page in pages:
        references = References()
        references.feed(page.read_text())
        assert not [target for target in references.fetched if re.match(r"(https?:)?//", target)], page
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\(\s*['\"]?(https?:)?//|@import", sheet.read_text()), sheet


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent == ROOT], ids=page_name)
def test_links_from_the_root_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert target.startswith("https://") or (ROOT / target).exists(), target
