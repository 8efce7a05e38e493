"""``innerloop.json``: what is written is read back, and every fault is named with its file and key."""

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.core.errors import InputError
from innerloop.llm.artifact_info import INFO_FILE, ArtifactInfo, InnerRuleInfo, read_info, write_info

STEADY = settings(deadline=None, derandomize=True)
INFO = ArtifactInfo(
    algorithm="fomaml",
    adapts="lora",
    base_model="smollm2-135m",
    base_path="/cache/smollm2-135m",
    inner=InnerRuleInfo("sgd", 1e-2, steps=3, batch_size=4, max_grad_norm=1.0),
    data_manifest_hash="abc",
    seed=1,
    step=20,
    config={"meta": {"inner_lr": 1e-2, "tasks": ["a", "b"]}, "note": None},
    versions={"innerloop": "0.1.0"},
)

finite = st.floats(allow_nan=False, allow_infinity=False)
rates = finite | st.dictionaries(st.text(), st.lists(finite, max_size=4).map(tuple), max_size=3)
inner_rules = st.builds(
    InnerRuleInfo,
    rule=st.text(),
    learning_rate=rates,
    steps=st.integers(0, 100),
    batch_size=st.integers(1, 100),
    max_grad_norm=st.none() | finite,
)
infos = st.builds(
    ArtifactInfo,
    algorithm=st.text(),
    adapts=st.sampled_from(["full", "lora"]),
    base_model=st.text(),
    base_path=st.text(),
    inner=st.none() | inner_rules,
    data_manifest_hash=st.none() | st.text(),
    seed=st.integers(),
    step=st.integers(0),
    config=st.dictionaries(st.text(), st.none() | finite | st.text() | st.lists(st.integers()), max_size=3),
    versions=st.dictionaries(st.text(), st.text(), max_size=3),
)


@STEADY
@given(infos)
def test_what_is_written_is_read_back(tmp_path_factory: pytest.TempPathFactory, info: ArtifactInfo) -> None:
    folder = tmp_path_factory.mktemp("info")
    write_info(folder, info)
    assert read_info(folder) == info
    assert [path.name for path in folder.iterdir()] == [INFO_FILE]


def test_a_number_that_json_cannot_hold_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_info(tmp_path, replace(INFO, config={"rate": float("nan")}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": None}, "'seed' is not a whole number"),
        ({"seed": True}, "'seed' is not a whole number"),
        ({"step": 1.5}, "'step' is not a whole number"),
        ({"algorithm": 3}, "'algorithm' is not text"),
        ({"adapts": "some"}, "'adapts' is 'some'; it must be 'full' or 'lora'"),
        ({"config": []}, "'config' is not an object"),
        ({"inner": "sgd"}, "'inner' is not an object"),
        ({"inner": {"rule": "sgd"}}, r"'inner\.learning_rate' is missing"),
        ({"format": 2}, "has format 2, and this release reads 1"),
        ({"format": None}, "has format None"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, change: dict[str, object], message: str) -> None:
    write_info(tmp_path, INFO)
    document = json.loads((tmp_path / INFO_FILE).read_text())
    (tmp_path / INFO_FILE).write_text(json.dumps(document | change))
    with pytest.raises(InputError, match=message):
        read_info(tmp_path)


@pytest.mark.parametrize("rate", ["fast", True, float("inf"), {"a": 0.1}, {"a": [0.1, "x"]}])
def test_a_wrong_rate_is_named(tmp_path: Path, rate: object) -> None:
    write_info(tmp_path, INFO)
    document = json.loads((tmp_path / INFO_FILE).read_text())
    document["inner"]["learning_rate"] = rate
    (tmp_path / INFO_FILE).write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"'inner\.learning_rate[.a]*' is not"):
        read_info(tmp_path)


@pytest.mark.parametrize("key", [field.name for field in fields(ArtifactInfo)])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    write_info(tmp_path, INFO)
    document = json.loads((tmp_path / INFO_FILE).read_text())
    del document[key]
    (tmp_path / INFO_FILE).write_text(json.dumps(document))
    with pytest.raises(InputError, match=f"'{key}' is missing"):
        read_info(tmp_path)


@pytest.mark.parametrize("content", [b"", b'{"algorithm": "fom', b"[]", b"\xff\xfe"])
def test_a_cut_file_is_one_clear_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / INFO_FILE).write_bytes(content)
    with pytest.raises(InputError, match=r"innerloop\.json (cannot be read as JSON|is not a JSON object)"):
        read_info(tmp_path)


def test_a_missing_file_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no innerloop\.json"):
        read_info(tmp_path)
