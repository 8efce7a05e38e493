"""Word tasks with short outputs (Todd 2024): antonyms, capitals, first letters, picking a word from a list.

Each JSON file of ``input`` and ``output`` is one task. The prompt is the input alone, so the rule shows only
in the shots. Many tasks share their inputs; an input stands on the same side of the split in all of them.
"""

from collections.abc import Mapping

from innerloop.core.errors import InputError
from innerloop.llm.data.catalogue import NoOptions
from innerloop.llm.data.presets.base import Request, Source, SourceTask, choose, with_usual
from innerloop.llm.data.presets.reading import Collector, Part
from innerloop.llm.data.rows import Row, make_row, text

FOLDERS = ("abstractive", "extractive")

# Rules of every kind; both list lengths of one go together, so that no held-out rule is trained at another.
HELD_OUT = (
    "alphabetically_last_3",
    "alphabetically_last_5",
    "antonym",
    "capitalize_second_letter",
    "choose_middle_of_3",
    "choose_middle_of_5",
    "color_v_animal_3",
    "color_v_animal_5",
    "country-capital",
    "english-german",
    "landmark-country",
    "next_item",
    "person-sport",
    "present-past",
    "sentiment",
    "word_length",
)
VALIDATION = (
    "concept_v_object_3",
    "concept_v_object_5",
    "lowercase_last_letter",
    "prev_item",
    "product-company",
    "singular-plural",
)


def tasks(request: Request, _options: NoOptions) -> Source:
    """One task for every file; a varied third is held out unless the request names its own.

    Raises:
        InputError: without a local copy: the hub has none.
    """
    files = _files(request)
    roles = choose(tuple(files), with_usual(request, tuple(files), HELD_OUT, VALIDATION))
    collector = Collector()
    made = tuple(
        SourceTask(name, tuple(collector.read(files[name], _parse)), "exact", role)
        for name, role in roles.items()
    )
    return Source(
        preset="function-vectors",
        origin="Function Vectors data sets (Todd et al. 2024)",
        licence="MIT",
        tasks=made,
        problems=tuple(collector.problems),
    )


def _files(request: Request) -> dict[str, Part]:
    if request.source_dir is None:
        raise InputError(
            "function-vectors is not on the hub; give --source-dir a copy of the folder dataset_files of "
            "github.com/ericwtodd/function_vectors"
        )
    for root in (request.source_dir / "function_vectors", request.source_dir):
        found = [path for folder in (*FOLDERS, ".") for path in (root / folder).glob("*.json")]
        if found:
            return {path.stem: Part("", None, "", path) for path in sorted(found, key=lambda path: path.stem)}
    raise InputError(f"--source-dir {request.source_dir}: holds no task files ({', '.join(FOLDERS)}/*.json)")


def _parse(fields: Mapping[str, object]) -> Row:
    output = text(fields.get("output"), "response")
    return make_row(text(fields.get("input"), "prompt"), output, output)
