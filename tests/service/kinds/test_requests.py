"""Requests: the defaults of the specification, and bad fields refused by their names."""

import json
import subprocess
import sys
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from innerloop.llm.config import load_config
from innerloop.llm.sources import ALIASES
from innerloop.rl import policy
from innerloop.service.jobs.job import Kind
from innerloop.service.kinds import KINDS
from innerloop.service.kinds.examples import EMBEDDED_MODEL
from innerloop.service.kinds.kind import Source
from innerloop.service.kinds.transfer import LAYERS, TransferMetric
from service.kinds.running import body

IDENTIFIER = "0123456789abcdef01234567"
ROW = {"prompt": "a", "response": "b"}
LEAST: dict[Kind, dict[str, object]] = {
    Kind.TASKS: {},
    Kind.TRANSFER: {"source_task_id": IDENTIFIER, "target_task_id": IDENTIFIER},
    Kind.META: {},
    Kind.LLM: {"tasks": {"one": {"support": [ROW], "query": [ROW]}}},
    Kind.ADAPTATION: {"examples": [ROW] * 5},
}


def request(kind: Kind, **fields: object) -> Any:
    """The shortest request of a kind, with some fields."""
    return KINDS[kind].request.model_validate({"name": "a job", **LEAST[kind], **fields})


def defaults(kind: Kind, *names: str) -> tuple[object, ...]:
    made = request(kind)
    return tuple(getattr(made, name) for name in names)


def test_every_kind_is_there() -> None:
    assert list(KINDS) == list(Kind)
    assert all(kind is job.kind for kind, job in KINDS.items())


def test_importing_the_kinds_loads_nothing_that_trains() -> None:
    code = (
        "import json, sys\n"
        "import innerloop.service.kinds\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(outcome.stdout))
    assert not loaded & {"torch", "numpy", "transformers", "stable_baselines3", "gymnasium", "omegaconf"}


def test_defaults_are_those_of_the_specification() -> None:
    assert defaults(Kind.TASKS, "total_episodes", "learning_rate", "clusters") == (100, 1e-3, 64)
    assert defaults(Kind.TRANSFER, "total_episodes", "learning_rate", "frozen_layers", "transfer_type") == (
        50,
        1e-4,
        (0, 1),
        "fine_tuning",
    )
    assert defaults(Kind.META, "inner_lr", "outer_lr", "adaptation_steps", "total_episodes") == (
        0.01,
        0.001,
        5,
        100,
    )


@pytest.mark.parametrize(
    ("algorithm", "batch"), [("maml", 4), ("reptile", 4), ("fomaml", 6), ("implicit_fomaml", 6)]
)
def test_the_meta_batch_is_the_algorithms_unless_given(algorithm: str, batch: int) -> None:
    assert request(Kind.META, meta_algorithm=algorithm).meta_batch_size == batch
    assert request(Kind.META, meta_algorithm=algorithm, meta_batch_size=3).meta_batch_size == 3


@pytest.mark.parametrize(
    "algorithm", ["meta_lora", "fomaml_sft", "maml_sft", "reptile_sft", "lora_sft", "sft"]
)
def test_a_language_model_trains_as_long_as_the_packaged_settings_say(algorithm: str) -> None:
    made = request(Kind.LLM, algorithm=algorithm)
    assert made.total_episodes == load_config(algorithm).trainer.total_steps
    assert request(Kind.LLM, algorithm=algorithm, total_episodes=7).total_episodes == 7


def test_the_usual_language_model_job_is_meta_lora() -> None:
    assert request(Kind.LLM).total_episodes == request(Kind.LLM, algorithm="meta_lora").total_episodes == 120


def test_what_is_written_down_again_is_what_the_domains_know() -> None:
    assert policy.LAYERS == LAYERS
    assert ALIASES == (EMBEDDED_MODEL,)


@pytest.mark.parametrize("kind", Kind)
def test_a_request_survives_being_kept(kind: Kind) -> None:
    for given in (request(kind), KINDS[kind].request.model_validate(body(kind))):
        assert KINDS[kind].request.model_validate(given.model_dump(mode="json")) == given
        assert KINDS[kind].total(given) > 0


@pytest.mark.parametrize("kind", Kind)
def test_an_example_is_a_request_that_does_not_take_long(kind: Kind) -> None:
    job = KINDS[kind]
    assert job.total(job.request.model_validate(job.example)) <= 5


@pytest.mark.parametrize("kind", Kind)
def test_every_field_of_results_is_described(kind: Kind) -> None:
    undescribed: list[str] = []

    def look(model: dict[str, Any], name: str) -> None:
        for key, field in model.get("properties", {}).items():
            if "description" not in field and "$ref" not in field:
                undescribed.append(f"{name}.{key}")

    schema = KINDS[kind].results.model_json_schema(mode="serialization")
    for name, model in {"results": schema, **schema.get("$defs", {})}.items():
        look(model, name)
    # What stands for a model of its own is described there; marks before and after say so themselves.
    assert undescribed == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_results_hold_no_number_that_json_has_not(value: float) -> None:
    with pytest.raises(ValidationError):
        TransferMetric(jumpstart=value, area_ratio=None, asymptotic_gain=0.0)


@pytest.mark.parametrize(
    ("kind", "field", "value"),
    [
        (Kind.TASKS, "name", ""),
        (Kind.TASKS, "name", " \t"),
        (Kind.TASKS, "name", "a\0b"),
        (Kind.TASKS, "name", "x" * 201),
        (Kind.TASKS, "description", "x" * 4001),
        (Kind.TASKS, "colour", "red"),
        (Kind.TASKS, "total_episodes", 0),
        (Kind.TASKS, "total_episodes", "5"),
        (Kind.TASKS, "total_episodes", True),
        (Kind.TASKS, "total_episodes", 2.5),
        (Kind.TASKS, "total_episodes", 10**9),
        (Kind.TASKS, "learning_rate", 0),
        (Kind.TASKS, "learning_rate", -1e-3),
        (Kind.TASKS, "learning_rate", float("nan")),
        (Kind.TASKS, "learning_rate", float("inf")),
        (Kind.TASKS, "clusters", 100_000),
        (Kind.TASKS, "seed", -1),
        (Kind.TASKS, "task_distribution", {}),
        (Kind.TASKS, "task_distribution", "kubernetes_scaling"),
        (Kind.TASKS, "evaluation", {"adaptation_episodes": [1, 2]}),
        (Kind.TASKS, "evaluation", {"adaptation_episodes": [0]}),
        (Kind.TASKS, "evaluation", {"adaptation_episodes": [0, 3, 1]}),
        (Kind.TRANSFER, "source_task_id", "../secret"),
        (Kind.TRANSFER, "target_task_id", None),
        (Kind.TRANSFER, "transfer_type", "osmosis"),
        (Kind.TRANSFER, "frozen_layers", [-1]),
        (Kind.META, "meta_algorithm", "sgd"),
        (Kind.META, "inner_lr", 0),
        (Kind.META, "adaptation_steps", 0),
        (Kind.META, "meta_batch_size", None),
        (Kind.LLM, "algorithm", "qwen3_4b_math"),
        (Kind.LLM, "model", "../../etc"),
        (Kind.LLM, "model", "/etc"),
        (Kind.LLM, "model", ".."),
        (Kind.LLM, "model", ".hidden"),
        (Kind.LLM, "model", "a\\b"),
        (Kind.LLM, "model", "org/model"),
        (Kind.LLM, "model", "model\n"),
        (Kind.LLM, "tasks", {}),
        (Kind.LLM, "tasks", {"../up": {"support": [ROW], "query": [ROW]}}),
        (Kind.LLM, "tasks", {"one": {"support": [ROW], "query": []}}),
        (Kind.LLM, "tasks", {"one": {"support": [ROW], "query": [{**ROW, "prompt": " "}]}}),
        (Kind.LLM, "held_out_tasks", ["../up"]),
        (Kind.ADAPTATION, "examples", [ROW] * 4),
        (Kind.ADAPTATION, "examples", [ROW] * 51),
        (Kind.ADAPTATION, "examples", [ROW, ROW, ROW, ROW, {"prompt": "a"}]),
        (Kind.ADAPTATION, "examples", [ROW, ROW, ROW, ROW, {**ROW, "response": "\ud800"}]),
        (Kind.ADAPTATION, "test_examples", [ROW] * 51),
        (Kind.ADAPTATION, "steps", 0),
        (Kind.ADAPTATION, "model", "../x"),
    ],
)
def test_a_bad_field_is_refused_by_its_name(kind: Kind, field: str, value: object) -> None:
    with pytest.raises(ValidationError) as refused:
        request(kind, **{field: value})
    assert {error["loc"][0] for error in refused.value.errors()} == {field}


def test_a_layer_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValidationError) as refused:
        request(Kind.TRANSFER, frozen_layers=[0, 7])
    (error,) = refused.value.errors()
    assert error["loc"] == ("frozen_layers", 1)
    for number, layer in enumerate(policy.LAYERS):
        assert f"{number} {layer}" in error["msg"]


@pytest.mark.parametrize(
    ("kind", "fields", "words"),
    [
        (Kind.LLM, {"data": "d"}, "either data"),
        (Kind.LLM, {"tasks": None}, "either data"),
        (Kind.LLM, {"held_out_tasks": ["two"]}, "'two'"),
        (Kind.LLM, {"held_out_tasks": ["one"]}, "no task to train on"),
        (Kind.LLM, {"tasks": None, "data": "d", "held_out_tasks": ["a", "a"]}, "twice"),
        (Kind.LLM, {"algorithm": "reptile_sft", "outer_lr": 1.5}, "at most 1"),
        (Kind.ADAPTATION, {"model": "m", "source_task_id": IDENTIFIER}, "not both"),
    ],
)
def test_fields_that_contradict_each_other_are_refused(
    kind: Kind, fields: dict[str, object], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        request(kind, **fields)


def test_a_request_does_not_change() -> None:
    with pytest.raises(ValidationError):
        request(Kind.TASKS).seed = 1


def test_a_job_names_the_jobs_it_starts_from() -> None:
    rl = (Kind.TASKS, Kind.TRANSFER, Kind.META)
    named = {"source_task_id": IDENTIFIER}
    expected: dict[Kind, tuple[BaseModel, dict[str, Source]]] = {
        Kind.TASKS: (request(Kind.TASKS), {}),
        Kind.TRANSFER: (
            request(Kind.TRANSFER, target_task_id="t"),
            {
                "source_task_id": Source(IDENTIFIER, rl),
                "target_task_id": Source("t", (Kind.TASKS,), model=False),
            },
        ),
        Kind.META: (request(Kind.META, **named), {"source_task_id": Source(IDENTIFIER, rl)}),
        Kind.LLM: (request(Kind.LLM), {}),
        Kind.ADAPTATION: (
            request(Kind.ADAPTATION, **named),
            {"source_task_id": Source(IDENTIFIER, (Kind.LLM,))},
        ),
    }
    for kind, (made, sources) in expected.items():
        assert KINDS[kind].sources(made) == sources
    assert KINDS[Kind.META].sources(request(Kind.META)) == {}
    assert KINDS[Kind.ADAPTATION].sources(request(Kind.ADAPTATION)) == {}


@pytest.mark.parametrize(
    ("kind", "fields", "name", "called"),
    [
        (Kind.TASKS, {}, "return", "ppo/return"),
        (Kind.TRANSFER, {}, "transfer/parameter_distance_whole", "transfer/parameter_distance_whole"),
        (Kind.TRANSFER, {}, "return", "transfer/return"),
        (Kind.META, {"meta_algorithm": "maml"}, "meta/loss", "maml/loss"),
        (Kind.META, {"meta_algorithm": "fomaml"}, "meta/grad_norm", "fomaml/grad_norm"),
        (Kind.META, {"meta_algorithm": "reptile"}, "meta/loss", "meta/loss"),
        (Kind.META, {"meta_algorithm": "implicit_fomaml"}, "perf/seconds", "meta/perf/seconds"),
        (Kind.META, {}, "kubernetes_scaling/train/6/query_loss", None),
        (Kind.LLM, {}, "one/query_loss", "meta/one/query_loss"),
        (Kind.LLM, {}, "eval/one/query_loss", "meta/eval/one/query_loss"),
        (Kind.LLM, {"algorithm": "lora_sft"}, "train/loss", "sft/loss"),
        (Kind.ADAPTATION, {}, "loss", "adaptation/loss"),
    ],
)
def test_metrics_are_called_after_the_kind_once(
    kind: Kind, fields: dict[str, object], name: str, called: str | None
) -> None:
    assert KINDS[kind].metric_name(request(kind, **fields), name) == called
