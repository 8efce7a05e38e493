"""Runs a few-shot adaptation. It is short: one that was stopped begins again."""

import math
import shutil
from collections.abc import Sequence
from dataclasses import replace

from innerloop.core.errors import NonFiniteError
from innerloop.core.signals import StopRequest
from innerloop.core.tracking import JsonlTracker
from innerloop.llm.adapt import AdaptedModel, MetaLearned, load
from innerloop.llm.config import load_config
from innerloop.llm.data.rows import Row, make_row
from innerloop.llm.evaluate.scoring import TestSet, make_test_set, score
from innerloop.llm.model import LoadedModel
from innerloop.llm.tasks import Batcher
from innerloop.service.kinds.adaptation import EVERY, AdaptationRequest, AdaptationResults, Marks
from innerloop.service.kinds.examples import EMBEDDED_MODEL, Example
from innerloop.service.kinds.kind import Finished, Place
from innerloop.service.kinds.library import model_by_name, model_of_source
from innerloop.service.kinds.run_metrics import finite

FOREIGN = "meta_lora"
"""The packaged settings by which a model is adapted that brings none of its own."""

LONGEST_ANSWER = 128
"""Tokens; a model that never stops must not take the job's time."""


def run(request: AdaptationRequest, place: Place) -> Finished[AdaptationResults]:
    """Tests the model, adapts it, tests it again, and saves it.

    Raises:
        InputError: the request cannot be met: no such model, an example that is too long.
        NonFiniteError: the loss became NaN or infinite; nothing is saved.
        Interrupted: a signal came; nothing is saved, and the next run begins again.
    """
    learned, tested = _divided(request)
    with StopRequest() as stop:
        initial = load(_model(request, place), load_config(FOREIGN))
        batcher = initial.model.batcher
        tests = _tests(tested, batcher)
        stop.check()
        before = _marks(initial.model.loaded, tests, batcher)
        adapted = _adapted(initial, learned, request, place, stop)
        after = _marks(adapted.loaded, tests, batcher)
        stop.check()
        folder = place.folder / "model"
        for leftover in (folder, *place.folder.glob(".model.*")):
            shutil.rmtree(leftover, ignore_errors=True)
        adapted.save(folder)
    results = AdaptationResults(
        adapts=adapted.info.adapts,
        adapted_on=len(learned),
        tested_on="test_examples" if request.test_examples else "held_out_examples",
        tested=len(tested),
        max_new_tokens=tests.max_new_tokens,
        before=before,
        after=after,
        support_losses=[finite(loss) for loss in adapted.losses],
    )
    return Finished(results, folder)


def _divided(request: AdaptationRequest) -> tuple[list[Row], list[Row]]:
    """What is learned from, and what is tested on."""
    rows = _rows(request.examples)
    if request.test_examples:
        return rows, _rows(request.test_examples)
    return [row for place, row in enumerate(rows, start=1) if place % EVERY], rows[EVERY - 1 :: EVERY]


def _rows(examples: Sequence[Example]) -> list[Row]:
    return [make_row(example.prompt, example.response) for example in examples]


def _model(request: AdaptationRequest, place: Place) -> str:
    if request.source_task_id is not None:
        return str(model_of_source(place, "source_task_id"))
    return model_by_name(place, request.model or EMBEDDED_MODEL)


def _tests(rows: Sequence[Row], batcher: Batcher) -> TestSet:
    tests = make_test_set(rows, (), "exact", batcher)
    return replace(tests, max_new_tokens=min(tests.max_new_tokens, LONGEST_ANSWER))


def _marks(loaded: LoadedModel, tests: TestSet, batcher: Batcher) -> Marks:
    scores = score(loaded, tests, batcher)
    return Marks(
        loss=finite(scores.loss),
        accuracy=scores.accuracy,
        strict_accuracy=scores.strict_accuracy,
        token_accuracy=scores.token_accuracy,
    )


def _adapted(
    initial: MetaLearned, learned: list[Row], request: AdaptationRequest, place: Place, stop: StopRequest
) -> AdaptedModel:
    tracker = JsonlTracker(place.run)

    def watch(step: int, loss: float) -> None:
        if not math.isfinite(loss):
            raise NonFiniteError("support loss", request.name, step)
        tracker.log(step, {"loss": loss})
        stop.check()

    try:
        return initial.adapt(learned, request.steps, request.learning_rate, request.seed, watch)
    finally:
        tracker.close()
