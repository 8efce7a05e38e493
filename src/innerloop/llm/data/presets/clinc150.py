"""CLINC150 (Larson 2019) as many small tasks: which of a few intents of one domain is an utterance?

The intents of a task go by arbitrary letters, drawn anew for each task, and the prompt is the utterance
alone: the mapping can be learned from the shots and from nothing else. Domains, not tasks, are held out.
Which intents make a domain stands in the data set's files; ``clinc150_domains.json`` repeats it for the hub's
copy, which lacks it (CC BY 3.0, Larson et al.).
"""

import json
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from math import perm
from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.llm.data.catalogue import Clinc150Options
from innerloop.llm.data.hub import hub_name, hub_records
from innerloop.llm.data.presets.base import Request, Source, SourceTask, choose, letters, with_usual
from innerloop.llm.data.presets.reading import find_folder
from innerloop.llm.data.records import Problem
from innerloop.llm.data.rows import Row, RowFault, make_row, text

HELD_OUT = ("banking", "credit_cards", "travel")
VALIDATION = ("kitchen_and_dining",)
OUT_OF_SCOPE = "oos"
DATA_FILE = "data_full.json"
DOMAINS_FILE = "domains.json"
SHIPPED_DOMAINS = Path(__file__).with_name("clinc150_domains.json")

Utterances = Mapping[str, list[str]]


def tasks(request: Request, options: Clinc150Options) -> Source:
    """Draws the tasks of every chosen domain.

    The source's training and validation utterances are the pool, its test utterances the test set.
    ``request.tasks``, ``skip``, ``holdout`` and ``validation`` name domains. Left to themselves, banking,
    credit_cards and travel are held out and kitchen_and_dining is for validation.

    Raises:
        InputError: if a domain has too few intents for the tasks asked for.
    """
    if min(options.tasks_per_domain, options.eval_tasks_per_domain) < 1:
        raise InputError("--tasks-per-domain and --eval-tasks-per-domain must be at least 1")
    folder = find_folder(request, "clinc150", DATA_FILE)
    domains = _domains(folder)
    roles = choose(tuple(domains), with_usual(request, tuple(domains), HELD_OUT, VALIDATION))
    problems: list[Problem] = []
    pool, test = _read(folder, domains, problems)
    made: list[SourceTask] = []
    for domain, role in roles.items():
        count = options.tasks_per_domain if role == "train" else options.eval_tasks_per_domain
        draws = _draws(domain, domains[domain], options.ways, count, request.seed)
        for number, intents in enumerate(draws):
            rows = [_rows(domain, intents, utterances) for utterances in (pool, test)]
            made.append(SourceTask(f"{domain}_{number:02d}", rows[0], "choice", role, rows[1]))
    return Source(
        preset="clinc150",
        origin="CLINC150 (Larson et al. 2019)",
        licence="CC BY 3.0",
        tasks=tuple(made),
        problems=tuple(problems),
        reserved=tuple(utterance for utterances in test.values() for utterance in map(_prompt, utterances)),
    )


def _draws(
    domain: str, intents: Sequence[str], ways: int, count: int, seed: int
) -> Iterator[tuple[str, ...]]:
    """Different tasks of a domain, each some of its intents in the order of their letters."""
    if not 2 <= ways <= len(intents) or count > perm(len(intents), ways):
        raise InputError(
            f"domain '{domain}' has {len(intents)} intents: too few for {count} different tasks of {ways}; "
            "change --ways or the number of tasks"
        )
    draw = random.Random(f"{seed}/{domain}")
    seen: set[tuple[str, ...]] = set()
    while len(seen) < count:
        drawn = tuple(draw.sample(list(intents), ways))
        if drawn not in seen:
            seen.add(drawn)
            yield drawn


def _rows(domain: str, intents: Sequence[str], utterances: Utterances) -> tuple[Row, ...]:
    return tuple(
        make_row(_prompt(utterance), letter, letter, {"label": letter, "intent": intent, "domain": domain})
        for letter, intent in zip(letters(len(intents)), intents, strict=True)
        for utterance in utterances[intent]
    )


def _prompt(utterance: str) -> str:
    return f"{utterance}\nAnswer:"


def _domains(folder: Path | None) -> Mapping[str, list[str]]:
    local = folder / DOMAINS_FILE if folder is not None else SHIPPED_DOMAINS
    path = local if local.is_file() else SHIPPED_DOMAINS
    domains: dict[str, list[str]] = {}
    for domain, intents in _json(path).items():
        if not isinstance(intents, list) or not all(isinstance(intent, str) for intent in intents):
            raise InputError(f"{path}: must list the intents of each domain; look at '{domain}'")
        domains[domain] = sorted(intents)
    return domains


def _read(
    folder: Path | None, domains: Mapping[str, list[str]], problems: list[Problem]
) -> tuple[Utterances, Utterances]:
    """The utterances of each intent for the pool and for the test set; ambiguous ones are left to neither."""
    known = {intent for intents in domains.values() for intent in intents}
    read: dict[str, list[tuple[str, str]]] = {}
    for split in ("train", "validation", "test"):
        read[split] = []
        for place, row, utterance, intent in _pairs(folder, split):
            if intent == OUT_OF_SCOPE:
                continue
            try:
                if intent not in known:
                    raise RowFault("unknown intent", repr(intent))
                read[split].append((text(utterance, "prompt"), str(intent)))
            except RowFault as fault:
                problems.append(Problem(place, row, fault.reason, f"{split}: {fault.detail}".rstrip(": ")))
    pool: dict[str, list[str]] = defaultdict(list)
    test: dict[str, list[str]] = defaultdict(list)
    for split, pairs in read.items():
        for utterance, intent in pairs:
            (test if split == "test" else pool)[intent].append(utterance)
    return pool, test


def _pairs(folder: Path | None, split: str) -> Iterator[tuple[Path, int, object, object]]:
    if folder is None:
        place = hub_name("clinc/clinc_oos", "plus", split)
        for record in hub_records("clinc/clinc_oos", "plus", split):
            yield place, record.row, record.fields.get("text"), record.fields.get("intent")
        return
    path = folder / DATA_FILE
    entries = _json(path).get({"validation": "val"}.get(split, split))
    if not isinstance(entries, list):
        raise InputError(f"{path}: holds no list of {split} utterances")
    for row, entry in enumerate(entries, start=1):
        utterance, intent = entry if isinstance(entry, list) and len(entry) == 2 else (None, None)
        yield path, row, utterance, intent


def _json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: broken JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a JSON object")
    return content
