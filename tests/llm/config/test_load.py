"""Where settings come from: packaged files, names, paths, words; which wins; how they are written back."""

import copy
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from importlib import resources
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from innerloop.core.errors import InputError
from innerloop.llm.config import (
    Config,
    ConfigWarning,
    available_configs,
    config_from_dict,
    load_config,
    to_dict,
    to_yaml,
    with_overrides,
)

STEADY = settings(
    deadline=None, derandomize=True, max_examples=50
)  # the same cases everywhere, however slow the machine

ALIASES = {
    "config_maml_sft_example": "maml_sft",
    "config_meta_lora_example": "meta_lora",
    "config_qwen3_4b_math": "qwen3_4b_math",
}
NAMED = {
    "fomaml_sft": "fomaml",
    "lora_sft": "sft",
    "maml_sft": "maml",
    "meta_lora": "fomaml",
    "quickstart": "fomaml",
    "qwen3_4b_math": "fomaml",
    "reptile_sft": "reptile",
    "sft": "sft",
}


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_the_shipped_names_are_those_promised() -> None:
    assert set(available_configs()) >= {*NAMED, *ALIASES}
    assert "default" not in available_configs()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", available_configs())
def test_every_packaged_config_loads_without_a_warning_and_survives_yaml(name: str, tmp_path: Path) -> None:
    config = load_config(name)
    assert load_config(path=write(tmp_path, to_yaml(config))) == config
    assert config_from_dict(to_dict(config), "artifact") == config


@pytest.mark.parametrize(("name", "algorithm"), NAMED.items())
def test_a_recipe_runs_the_algorithm_it_is_named_after(name: str, algorithm: str) -> None:
    assert load_config(name).meta.algorithm == algorithm


@pytest.mark.parametrize(("alias", "name"), ALIASES.items())
def test_an_older_name_stands_for_its_recipe(alias: str, name: str) -> None:
    assert load_config(alias) == load_config(name)


def test_the_control_differs_from_the_method_in_nothing_but_the_algorithm() -> None:
    method, control = to_dict(load_config("meta_lora")), to_dict(load_config("lora_sft"))
    for each in (method, control):
        del each["meta"]["algorithm"], each["trainer"]["experiment_name"]
        del each["trainer"]["default_local_dir"]
    assert method == control


def test_each_layer_goes_over_those_before(tmp_path: Path) -> None:
    file = write(tmp_path, "meta: {num_inner_steps: 7}\noptim: {lr: 0.5}\n")
    config = load_config("meta_lora", file, ["optim.lr=0.25"])
    assert config.trainer.seed == 0  # package default
    assert config.meta.inner_lr == 1.0  # named
    assert config.meta.num_inner_steps == 7  # file
    assert config.optim.lr == 0.25  # word


def test_a_folder_replaces_the_packaged_names(tmp_path: Path) -> None:
    write(tmp_path, "meta: {num_inner_steps: 7}\n", "meta_lora.yaml")
    config = load_config("meta_lora", tmp_path)
    assert (config.meta.num_inner_steps, config.model.lora_rank) == (7, 0)
    assert load_config("meta_lora.yaml", tmp_path) == config


def test_lists_are_replaced_and_sections_are_merged(tmp_path: Path) -> None:
    file = write(tmp_path, "data: {path: here}\nmeta: {tasks: [a, b]}\noptim: {betas: [0.5, 0.6]}\n")
    config = load_config(path=file, overrides=["meta.tasks=[c]"])
    assert [task.name for task in config.meta.tasks] == ["c"]
    assert config.optim.betas == (0.5, 0.6)
    assert config.meta.num_inner_steps == load_config().meta.num_inner_steps


def test_a_section_left_empty_says_nothing(tmp_path: Path) -> None:
    assert load_config(path=write(tmp_path, "meta:\nmodel:\n  # nothing yet\n")) == load_config()
    assert load_config(path=write(tmp_path, "")) == load_config()


def test_interpolations_follow_later_layers() -> None:
    config = load_config(overrides=["trainer.experiment_name=probe"])
    assert config.trainer.default_local_dir == "checkpoints/innerloop/probe"
    config = load_config(overrides=["checkpoint.save_contents=model"])
    assert config.checkpoint.load_contents == ("model",)


def test_the_outer_rate_is_the_rate_in_force() -> None:
    assert load_config(overrides=["meta.outer_lr=0.125"]).optim.lr == 0.125
    with pytest.warns(
        ConfigWarning, match=r"optim\.lr has no effect here: meta\.outer_lr=0\.125 overrides it"
    ):
        assert load_config(overrides=["meta.outer_lr=0.125", "optim.lr=0.5"]).optim.lr == 0.125


@pytest.mark.parametrize(
    ("word", "read"),
    [
        ("meta.inner_lr=1e-4", lambda config: config.meta.inner_lr == 1e-4),
        ("meta.inner_lr=1", lambda config: isinstance(config.meta.inner_lr, float)),
        ("trainer.total_steps=1e3", lambda config: type(config.trainer.total_steps) is int),
        ("trainer.logger=wandb", lambda config: config.trainer.logger == ("wandb",)),
        ("trainer.logger=[console, wandb]", lambda config: config.trainer.logger == ("console", "wandb")),
        ("trainer.logger=[]", lambda config: config.trainer.logger == ()),
        ("model.dtype=bf16", lambda config: config.model.dtype == "bfloat16"),
        ("optim.optimizer_type=AdamW", lambda config: config.optim.optimizer_type == "adamw"),
        ("model.target_modules=[q_proj]", lambda config: config.model.target_modules == ("q_proj",)),
        ("model.target_modules=all-linear", lambda config: config.model.target_modules == "all-linear"),
        ("meta.implicit.lambda=2", lambda config: config.meta.implicit.lambda_ == 2.0),
        ("data.path=a=b", lambda config: config.data.path == "a=b"),
        ("data.path=~/tasks", lambda config: config.data.path == str(Path.home() / "tasks")),
        ("trainer.max_ckpt_to_keep=null", lambda config: config.trainer.max_ckpt_to_keep is None),
        ("optim.clip_grad=", lambda config: config.optim.clip_grad is None),
        ("trainer.save_freq=-1", lambda config: config.trainer.save_freq == -1),
    ],
)
@pytest.mark.filterwarnings("ignore::innerloop.llm.config.ConfigWarning")
def test_words_are_read_as_their_key_wants_them(word: str, read: object) -> None:
    assert callable(read)
    assert read(load_config(overrides=[word]))


def test_lora_layers_take_all_their_forms() -> None:
    def layers(value: str) -> object:
        return load_config(overrides=["model.lora_rank=4", f"model.lora_layers={value}"]).model.lora_layers

    assert layers("null") is None
    assert layers("upper_half") == "upper_half"
    assert layers("[3, 4]") == (3, 4)


def test_settings_cannot_be_changed_but_be_made_anew() -> None:
    config = load_config("meta_lora")
    with pytest.raises(FrozenInstanceError):
        config.meta.inner_lr = 3.0  # type: ignore[misc]
    other = with_overrides(config, ["meta.inner_lr=3", "meta.algorithm=sft"])
    assert (other.meta.inner_lr, other.meta.algorithm, other.model) == (3.0, "sft", config.model)
    assert config.meta.inner_lr == 1.0


def test_settings_travel_between_processes() -> None:
    config = load_config("qwen3_4b_math")
    assert pickle.loads(pickle.dumps(config)) == config
    assert copy.deepcopy(config) == config


def test_text_that_looks_like_an_interpolation_survives_yaml(tmp_path: Path) -> None:
    config = load_config(overrides=[r"trainer.experiment_name=\${plain}"])
    assert config.trainer.experiment_name == "${plain}"
    assert load_config(path=write(tmp_path, to_yaml(config))) == config
    assert with_overrides(config, ["trainer.seed=3"]).trainer.experiment_name == "${plain}"


def test_every_default_is_explained() -> None:
    text = (resources.files("innerloop.configs") / "default.yaml").read_text(encoding="utf-8")
    plain = yaml.safe_load(text)
    assert set(plain) == set(to_dict(load_config()))
    keys = [line for line in text.splitlines() if ":" in line and not line.lstrip().startswith("#")]
    comments = [line for line in text.splitlines() if line.lstrip().startswith("#")]
    assert len(comments) > len(keys) / 2


def attempt(load: Callable[[], Config]) -> tuple[Config | None, str]:
    """The settings, or the line that refuses them. Any other error fails the test."""
    try:
        return load(), ""
    except InputError as error:
        return None, str(error)


KEYS = st.from_regex(r"[a-z_]{1,12}(\.[a-z_]{1,12}){0,2}", fullmatch=True)
REAL_KEYS = st.sampled_from(
    [
        "meta.inner_lr",
        "meta.tasks",
        "model.lora_layers",
        "trainer.logger",
        "optim.betas",
        "meta",
        "experiment",
    ]
)


@STEADY
@given(
    words=st.lists(st.one_of(st.text(), st.builds("{}={}".format, KEYS | REAL_KEYS, st.text())), max_size=3)
)
def test_any_words_at_all_give_settings_or_one_line(words: list[str]) -> None:
    config, refusal = attempt(lambda: load_config(overrides=words))
    assert config or refusal
    assert "\n" not in refusal


@STEADY
@given(text=st.one_of(st.text(), st.builds("{}: {}\n".format, KEYS | REAL_KEYS, st.text())))
def test_any_file_at_all_gives_settings_or_one_line(
    text: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_bytes(text.encode("utf-8", errors="surrogatepass"))
    config, refusal = attempt(lambda: load_config(path=file))
    assert config or "any.yaml" in refusal
    assert "\n" not in refusal


@settings(STEADY, max_examples=10)
@given(
    rate=st.floats(min_value=1e-12, max_value=1e6, exclude_min=True),
    steps=st.integers(1, 10_000),
    names=st.lists(st.from_regex(r"[A-Za-z0-9_ .-]{0,8}[a-z]", fullmatch=True), unique=True, max_size=4),
)
def test_what_is_written_is_read_back(
    rate: float, steps: int, names: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    tasks = [{"name": name, "support_files": [name], "query_files": [name]} for name in names]
    values = to_dict(load_config())
    values["meta"] |= {"inner_lr": rate, "num_inner_steps": steps, "tasks": tasks}
    config = config_from_dict(values, "test")
    assert [task.name for task in config.meta.tasks] == names
    file = tmp_path_factory.getbasetemp() / "written.yaml"
    file.write_text(to_yaml(config), encoding="utf-8")
    assert load_config(path=file) == config
