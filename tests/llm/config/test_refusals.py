"""Bad settings: each is refused in one line that names the key, what is wrong and where it stood."""

from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.llm.config import load_config, method_config

BAD_WORDS = [
    # (words, parted by "; ", and what the line must say)
    ("meta.inner_lrr=1", ["unknown key 'meta.inner_lrr'", "'meta.inner_lr'"]),
    ("meta.num_inner_step=1", ["unknown key", "'meta.num_inner_steps'"]),
    ("trainer.inner_lr=1", ["unknown key 'trainer.inner_lr'", "'meta.inner_lr'"]),
    ("inner_lr=1", ["unknown key 'inner_lr'", "'meta.inner_lr'"]),
    ("meta.use_fomal=true", ["unknown key", "'meta.use_fomaml'"]),
    ("mteta.inner_lr=1", ["unknown key 'mteta'", "'meta'"]),
    ("meta.implicit.lamda=1", ["unknown key", "'meta.implicit.lambda'"]),
    ("model.fsdp_config.wrap_policy.transformer_layer=x", ["unknown key", "transformer_layer_cls_to_wrap"]),
    ("meta.inner_lr=.nan", ["meta.inner_lr must be a finite number above 0", "not nan"]),
    ("optim.lr=.nan", ["optim.lr", "not nan"]),
    ("meta.outer_lr=.inf", ["meta.outer_lr", "finite", "inf"]),
    ("meta.inner_lr=1e999", ["meta.inner_lr", "finite"]),
    ("meta.inner_lr=0", ["meta.inner_lr", "above 0", "not 0"]),
    ("meta.inner_lr=-1e-3", ["meta.inner_lr", "-0.001"]),
    ("meta.inner_lr=fast", ["meta.inner_lr", "'fast'"]),
    ('meta.inner_lr="0.1"', ["meta.inner_lr", "a finite number", "'0.1'"]),
    ("meta.inner_lr=true", ["meta.inner_lr", "not true"]),
    ("meta.inner_lr=null", ["meta.inner_lr", "not null"]),
    ("meta.num_inner_steps=-1", ["meta.num_inner_steps", "at least 1", "-1"]),
    ("meta.num_inner_steps=2.5", ["meta.num_inner_steps", "a whole number", "2.5"]),
    ("meta.num_inner_steps=true", ["meta.num_inner_steps", "not true"]),
    ("trainer.total_steps=0", ["trainer.total_steps", "at least 1"]),
    ("trainer.save_freq=0", ["trainer.save_freq", "at least 1 or -1"]),
    ("trainer.seed=-1", ["trainer.seed", "at least 0"]),
    ("meta.algorithm=mamle", ["meta.algorithm", "maml, fomaml, implicit_maml, reptile, sft", "'mamle'"]),
    ("trainer.device=tpu", ["trainer.device", "auto, cpu, cuda, mps"]),
    ("trainer.logger=[console, mlflow]", ["trainer.logger[1]", "console, tensorboard, wandb", "'mlflow'"]),
    ("data.truncation=middle", ["data.truncation", "error, left, right"]),
    ("data.shuffle=1", ["data.shuffle", "true or false"]),
    ("data.max_length=1", ["data.max_length", "at least 2"]),
    ("data.prompt_key=", ["data.prompt_key", "text", "null"]),
    ('data.prompt_key=" "', ["data.prompt_key", "not empty"]),
    ("trainer.experiment_name=7", ["trainer.experiment_name", "text", "not 7"]),
    ("optim.betas=[0.9]", ["optim.betas", "2 values"]),
    ("optim.betas=[0.9, 1]", ["optim.betas[1]", "below 1"]),
    ("optim.lr_warmup_steps_ratio=1.5", ["optim.lr_warmup_steps_ratio", "at most 1", "1.5"]),
    ("optim.clip_grad=0", ["optim.clip_grad", "above 0", "or null"]),
    ("model.lora_rank=-4", ["model.lora_rank", "at least 0"]),
    ("model.lora_dropout=1", ["model.lora_dropout", "below 1"]),
    (
        "model.lora_layers=lower_half; model.lora_rank=4",
        ["model.lora_layers", "upper_half, all", "'lower_half'"],
    ),
    ("model.lora_layers=[0,-1]; model.lora_rank=4", ["model.lora_layers[1]", "-1"]),
    ("meta.tasks=algebra", ["meta.tasks", "a list", "'algebra'"]),
    ("meta.tasks={name: x}", ["meta.tasks must be a list"]),
    ("meta.tasks=[3]", ["meta.tasks[0]", "a name or a section", "not 3"]),
    ("meta.tasks=[{support_files: a}]", ["meta.tasks[0].name is missing"]),
    ("meta.tasks=[a/b]; data.path=here", ["meta.tasks[0].name", "without slashes", "'a/b'"]),
    ("meta=3", ["meta must be a section", "not 3"]),
    ("meta.implicit=[1]", ["meta.implicit must be a section"]),
    ("meta.inner_lr", ["'meta.inner_lr'", "section.key=value"]),
    ("=3", ["'=3'", "section.key=value"]),
    ("meta.tasks=[a", ["meta.tasks", "'[a'"]),
    ("trainer.project_name=${nobody}", ["trainer.project_name cannot be resolved", "nobody"]),
    ("trainer.project_name=${trainer.project_name}", ["trainer.project_name cannot be resolved"]),
    ("trainer.project_name=${", ["trainer.project_name", "'${'"]),
    # two settings that contradict each other
    ("model.lora_layers=upper_half", ["model.lora_layers", "model.lora_rank is 0"]),
    ("checkpoint.save_contents=lora", ["checkpoint.save_contents", "model.lora_rank is 0"]),
    ("checkpoint.load_contents=[model]; checkpoint.save_contents=extra", ["load_contents", "'model'"]),
    ("meta.learn_inner_lr=true; meta.algorithm=reptile", ["meta.learn_inner_lr", "maml or fomaml"]),
    ("meta.reptile_epsilon=0.5", ["meta.reptile_epsilon", "meta.algorithm=reptile"]),
    ("meta.algorithm=maml; meta.differentiation=unroll; meta.learner=in_place", ["meta.differentiation"]),
    ("meta.algorithm=maml; meta.hvp=forward; meta.learner=in_place", ["meta.hvp", "in_place"]),
    ("model.use_fsdp=true; meta.learner=vmap", ["meta.learner", "model.use_fsdp"]),
    ("model.use_fsdp=true; meta.hvp=reverse", ["meta.hvp", "model.use_fsdp"]),
    ("data.use_dynamic_bsz=true", ["data.use_dynamic_bsz", "data.micro_batch_tokens"]),
    ("data.micro_batch_tokens=64", ["data.micro_batch_tokens", "data.use_dynamic_bsz"]),
    ("data.response_key=prompt", ["data.response_key", "data.prompt_key"]),
    ("meta.tasks=[algebra]", ["'algebra'", "data.path"]),
    ("meta.eval_tasks=[algebra]", ["meta.eval_tasks", "data.path"]),
    ("meta.tasks=[a,a]; data.path=here", ["meta.tasks[1].name", "'a'"]),
    ("meta.tasks=[a]; meta.eval_tasks=[a]; data.path=here", ["meta.eval_tasks[0]", "held out"]),
    ("trainer.resume_mode=resume_path", ["trainer.resume_mode", "trainer.resume_from_path"]),
    ("trainer.resume_from_path=here", ["trainer.resume_from_path", "resume_path"]),
    # two spellings of one thing
    ("meta.meta_lr=0.1; meta.outer_lr=0.2", ["'meta.meta_lr' and 'meta.outer_lr'"]),
    ("meta.use_fomaml=true; meta.algorithm=maml", ["'meta.use_fomaml' and 'meta.algorithm'"]),
    ("meta.use_fomaml=maybe", ["meta.use_fomaml must be true or false", "'maybe'"]),
    ("meta.meta_lr=-1", ["meta.outer_lr", "-1", "as meta.meta_lr"]),
]


@pytest.mark.parametrize(("words", "says"), BAD_WORDS, ids=[words for words, _ in BAD_WORDS])
def test_bad_words_are_refused_in_one_line(words: str, says: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_config(overrides=words.split("; "))
    message = str(caught.value)
    assert "\n" not in message
    assert "command line" in message
    for part in says:
        assert part in message


BAD_FILES = [
    # (contents, where the line must point, what it must say)
    (
        "meta:\n  inner_lr: 1\n  num_iner_steps: 3\n",
        "bad.yaml:3",
        ["num_iner_steps", "'meta.num_inner_steps'"],
    ),
    ("meta:\n  inner_lr: -1\n", "bad.yaml:2", ["meta.inner_lr", "-1"]),
    ("meta: {inner_lr: .nan}\n", "bad.yaml:1", ["meta.inner_lr", "nan"]),
    ("meta:\n  inner_lr: [1\n", "bad.yaml:3", ["broken YAML"]),
    ("meta:\n\tinner_lr: 1\n", "bad.yaml:2", ["broken YAML"]),
    ("meta:\n  inner_lr: 1\n  inner_lr: 2\n", "bad.yaml:3", ["broken YAML", "duplicate key inner_lr"]),
    ("a: 1\n\x00\n", "bad.yaml:2", ["broken YAML"]),
    ("a: &a [*a]\n", "bad.yaml", []),
    ("meta:\n  inner_lr: ${\n", "bad.yaml:2", ["cannot be read"]),
    ("meta:\n  inner_lr: !!python/name:os.system\n", "bad.yaml:2", ["broken YAML"]),
    ("just words\n", "bad.yaml", ["'key: value' lines"]),
    ("- a\n- b\n", "bad.yaml", ["'key: value' lines"]),
    ("1: 2\n", "bad.yaml:1", ["unknown key '1'"]),
    ("meta.inner_lr: 1\n", "bad.yaml:1", ["has a dot"]),
    ("model: gpt\n", "bad.yaml:1", ["model must be a section", "'gpt'"]),
    ("meta:\n  tasks:\n  - name: a\n    support_file: x\n", "bad.yaml:4", ["meta.tasks[0].support_files"]),
    ("meta:\n  tasks:\n  - name: a\n    train_fils: x\n", "bad.yaml:4", ["meta.tasks.train_files"]),
    ("meta:\n  tasks:\n  - support_files: x\n", "bad.yaml:3", ["meta.tasks[0].name is missing"]),
    (
        "meta:\n  tasks:\n  - {name: a, support_files: x, query_files: y, support_max_samples: 0}\n",
        "bad.yaml:3",
        ["meta.tasks[0].support_max_samples", "at least 1 or -1", "not 0"],
    ),
    (
        "meta:\n  tasks:\n  - {name: a, train_files: x, support_files: z, val_files: y}\n",
        "bad.yaml:3",
        ["'meta.tasks[0].train_files' and 'meta.tasks[0].support_files'"],
    ),
    ("meta:\n  tasks:\n  - {name: a, support_files: x}\n", "bad.yaml:3", ["no query_files", "fomaml"]),
    ("meta:\n  tasks:\n  - {name: a, query_files: x}\n", "bad.yaml:3", ["no support_files"]),
    ("meta:\n  use_fomaml: true\n  algorithm: reptile\n", "bad.yaml:2, bad.yaml:3", ["meta.use_fomaml"]),
    ("experiment: {}\n", "bad.yaml:1", ["experiment.prepare is missing"]),
    (
        "experiment:\n  prepare: {preset: math}\n  output_dir: out\n  methods: []\n",
        "bad.yaml:4",
        ["experiment.methods", "not empty"],
    ),
    (
        "experiment:\n  prepare: {preset: math}\n  output_dir: out\n  methods: [{name: a, kind: best}]\n",
        "bad.yaml:4",
        ["experiment.methods[0].kind", "meta, control, base, icl"],
    ),
    (
        "experiment:\n  prepare: {preset: math}\n  output_dir: out\n  methods:\n"
        "  - {name: a, kind: base}\n  - {name: a, kind: icl}\n",
        "bad.yaml:6",
        ["experiment.methods[1].name", "'a'"],
    ),
    (
        "experiment:\n  prepare: {preset: math}\n  output_dir: out\n  methods: [{name: a, kind: base}]\n"
        "  evaluate: {tasks: [x], validation_tasks: [x]}\n",
        "bad.yaml:5",
        ["experiment.evaluate.tasks[0]", "validation_tasks"],
    ),
]


@pytest.mark.parametrize(("text", "where", "says"), BAD_FILES)
def test_bad_files_are_refused_with_file_and_line(
    text: str, where: str, says: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        load_config(path=Path("bad.yaml"))
    message = str(caught.value)
    assert "\n" not in message
    for part in [where, *says]:
        assert part in message


EXPERIMENT = """
experiment:
  prepare: {preset: math, args: {support_ratio: 0.3, holdout: [geometry], balance: true}}
  output_dir: out
  methods:
  - {name: ours, kind: meta}
  - {name: control, kind: control, overrides: OVERRIDES}
"""


def test_an_experiment_reads_its_methods_and_options(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(EXPERIMENT.replace("OVERRIDES", "[meta.algorithm=sft, optim.lr=0.5]"), encoding="utf-8")
    experiment = load_config(path=file).experiment
    assert experiment is not None
    assert experiment.prepare.args == {"support_ratio": 0.3, "holdout": ("geometry",), "balance": True}
    assert experiment.methods[1].overrides == ("meta.algorithm=sft", "optim.lr=0.5")
    assert experiment.evaluate.n_shots == (0, 5, 10, 25, 50)


def test_a_method_runs_on_the_common_settings_with_its_own_over_them(tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(EXPERIMENT.replace("OVERRIDES", "[meta.algorithm=sft, optim.lr=0.5]"), encoding="utf-8")
    config = load_config(path=file, overrides=["meta.num_inner_steps=9"])
    assert config.experiment is not None
    ours, control = (method_config(config, method) for method in config.experiment.methods)
    assert (ours.meta.algorithm, control.meta.algorithm) == ("fomaml", "sft")
    assert (ours.optim.lr, control.optim.lr) == (config.optim.lr, 0.5)
    assert ours.meta.num_inner_steps == control.meta.num_inner_steps == 9
    assert ours.experiment is control.experiment is None


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ("meta.algoritm=sft", "unknown key 'meta.algoritm'"),
        ("optim.lr=-1", "optim.lr"),
        ("[]", "must set meta.algorithm=sft"),
        ("nonsense", "section.key=value"),
    ],
)
def test_a_method_that_could_not_run_is_refused_at_once(overrides: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "experiment.yaml"
    file.write_text(EXPERIMENT.replace("OVERRIDES", overrides), encoding="utf-8")
    with pytest.raises(InputError, match="control") as caught:
        load_config(path=file)
    assert says in str(caught.value)


def test_files_that_are_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read settings file .*absent\.yaml: No such file"):
        load_config(path=tmp_path / "absent.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(InputError, match=r"bytes\.yaml is not UTF-8 text"):
        load_config(path=tmp_path / "bytes.yaml")
    with pytest.raises(InputError, match=r"no settings 'mine' in .* \(there: bytes\)"):
        load_config("mine", tmp_path)
    with pytest.raises(InputError, match="is a folder; name a file in it with --config-name"):
        load_config(path=tmp_path)


def test_an_unknown_name_is_told_its_neighbour() -> None:
    with pytest.raises(InputError, match=r"no packaged settings 'meta-lora'; did you mean 'meta_lora'\?"):
        load_config("meta-lora")
    with pytest.raises(InputError, match="there are: fomaml_sft, "):
        load_config("../../secrets")
