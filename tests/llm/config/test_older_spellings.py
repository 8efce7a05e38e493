"""Files written for verl and for older meta-learning scripts run as they are; what has no effect is told."""

import warnings
from pathlib import Path

import pytest

from innerloop.llm.config import Config, ConfigWarning, load_config

FULL_PARAMETERS = """
model:
  partial_pretrain: "some-lab/Small-1B"
  trust_remote_code: true
  use_fsdp: true
  enable_gradient_checkpointing: true
  fsdp_config:
    wrap_policy:
      transformer_layer_cls_to_wrap: "SmallDecoderLayer"
    model_dtype: "bf16"
    cpu_offload: false
data:
  max_length: 512
  truncation: "right"
  prompt_key: "prompt"
  response_key: "response"
  use_shm: false
  shuffle: true
  seed: 7
  pad_mode: "no_padding"
  use_dynamic_bsz: false
  balance_dp_token: true
meta:
  use_fomaml: USE_FOMAML
  inner_lr: 1e-4
  num_inner_steps: 5
  inner_batch_size: 4
  outer_lr: 3e-5
  meta_batch_size: 2
  query_batch_size: 4
  tasks:
    - name: "poems"
      support_files: ["tasks/poems_support.parquet"]
      query_files: ["tasks/poems_query.parquet"]
      support_max_samples: 1000
      query_max_samples: -1
    - name: "letters"
      support_files: "tasks/letters_support.parquet"
      query_files: "tasks/letters_query.parquet"
optim:
  optimizer_type: "AdamW"
  lr: 3e-5
  weight_decay: 0.01
  betas: [0.9, 0.999]
  clip_grad: 1.0
  lr_scheduler: "cosine"
  lr_warmup_steps_ratio: 0.1
trainer:
  device: "cuda"
  total_steps: 10000
  save_freq: 500
  test_freq: 100
  project_name: "older"
  experiment_name: "full"
  logger: "wandb"
  default_local_dir: "./checkpoints/older"
  default_hdfs_dir: null
  resume_mode: "auto"
  resume_from_path: null
  max_ckpt_to_keep: 5
checkpoint:
  save_contents: ["model", "optimizer"]
  load_contents: ["model", "optimizer"]
"""

ADAPTER = """
model:
  partial_pretrain: "some-lab/Small-1B"
  trust_remote_code: true
  lora_rank: 16
  lora_alpha: 32
  lora_dropout: 0.05
  target_modules: [q_proj, v_proj]
meta:
  inner_lr: 1e-4
  num_inner_steps: 10
  inner_batch_size: 4
  meta_lr: 5e-5
  meta_batch_size: 4
  tasks:
    - name: "poems"
      train_files: ["tasks/poems_support.parquet", "tasks/more.parquet"]
      val_files: ["tasks/poems_query.parquet"]
      train_max_samples: 100
      val_max_samples: 200
data: {max_length: 2048, truncation: "right", prompt_key: "prompt", response_key: "response"}
optim: {optimizer_type: "AdamW", weight_decay: 0.01, clip_grad: 1.0, betas: [0.9, 0.999]}
trainer:
  device: "cuda"
  total_steps: 3000
  save_freq: 300
  test_freq: 100
  project_name: "older"
  experiment_name: "adapter"
  logger: "wandb"
  default_local_dir: "./checkpoints/adapter"
  max_ckpt_to_keep: 5
checkpoint:
  save_contents: ["lora"]
  load_contents: ["lora"]
"""

REPTILE = """
meta:
  inner_lr: 1e-5
  outer_stepsize: 0.5
  num_inner_steps: 8
  batch_size: 6
  decay_outer_stepsize: true
  stepsize_decay_rate: 0.99
  tasks:
    - {name: poems, data_files: [tasks/poems.parquet], max_samples: 50}
"""

PLAIN_SFT = """
data:
  train_batch_size: 256
  micro_batch_size: null
  micro_batch_size_per_gpu: 4
  train_files: [mixed/train.parquet]
  val_files: [mixed/test.parquet]
  prompt_key: question
  response_key: answer
  prompt_dict_keys: null
  response_dict_keys: null
  multiturn: {enable: false, messages_key: turns, tools_key: tools}
  max_length: 1024
  truncation: error
  balance_dp_token: False
  chat_template: null
  custom_cls: {path: null, name: null}
  use_shm: False
model:
  partial_pretrain: models/some-7b
  use_shm: False
  fsdp_config:
    model_dtype: fp32
    wrap_policy: {min_num_params: 0}
    cpu_offload: False
    offload_params: False
  external_lib: null
  enable_gradient_checkpointing: True
  trust_remote_code: False
  lora_rank: 0
  lora_alpha: 16
  target_modules: all-linear
  use_liger: False
  strategy: fsdp2
optim:
  lr: 1e-5
  betas: [0.9, 0.95]
  weight_decay: 0.01
  warmup_steps_ratio: 0.1
  clip_grad: 1.0
  lr_scheduler: cosine
ulysses_sequence_parallel_size: 1
use_remove_padding: False
trainer:
  default_local_dir: checkpoints/${trainer.project_name}/${trainer.experiment_name}
  default_hdfs_dir: null
  project_name: sums
  experiment_name: test
  total_epochs: 4
  total_training_steps: null
  logger: ['console', 'wandb']
  seed: 1
  save_freq: -1
  test_freq: -1
  nnodes: 1
  n_gpus_per_node: 8
  max_ckpt_to_keep: null
  resume_mode: auto
  resume_from_path: null
  checkpoint:
    save_contents: ["model", "optimizer", "extra"]
    load_contents: ${trainer.checkpoint.save_contents}
  device: cuda
"""


def load(folder: Path, text: str, *overrides: str) -> tuple[Config, list[str]]:
    """The settings of a file, and the notes its user is shown."""
    file = folder / "older.yaml"
    file.write_text(text, encoding="utf-8")
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        config = load_config(path=file, overrides=overrides)
    assert all(issubclass(warning.category, ConfigWarning) for warning in shown)
    return config, [str(warning.message) for warning in shown]


@pytest.mark.parametrize(("use_fomaml", "algorithm"), [("true", "fomaml"), ("false", "maml")])
def test_a_full_parameter_file(use_fomaml: str, algorithm: str, tmp_path: Path) -> None:
    config, notes = load(tmp_path, FULL_PARAMETERS.replace("USE_FOMAML", use_fomaml))
    assert config.meta.algorithm == algorithm
    assert (config.meta.inner_lr, config.optim.lr) == (1e-4, 3e-5)
    assert config.optim.optimizer_type == "adamw"
    assert config.model.fsdp_config.model_dtype == "bfloat16"
    assert config.model.fsdp_config.wrap_policy.transformer_layer_cls_to_wrap == ("SmallDecoderLayer",)
    assert config.trainer.logger == ("wandb",)
    assert config.checkpoint.load_contents == ("model", "optimizer")
    poems, letters = config.meta.tasks
    assert (poems.support_max_samples, poems.query_max_samples) == (1000, -1)
    assert letters.support_files == ("tasks/letters_support.parquet",)
    assert not poems.is_prepared
    assert len(notes) == 1
    assert "data.balance_dp_token" in notes[0]
    assert "older.yaml:22" in notes[0]


def test_an_adapter_file(tmp_path: Path) -> None:
    config, notes = load(tmp_path, ADAPTER)
    assert (config.meta.algorithm, config.model.adapts, config.model.lora_rank) == ("fomaml", "lora", 16)
    assert config.meta.outer_lr == config.optim.lr == 5e-5
    (task,) = config.meta.tasks
    assert task.support_files == ("tasks/poems_support.parquet", "tasks/more.parquet")
    assert task.query_files == ("tasks/poems_query.parquet",)
    assert (task.support_max_samples, task.query_max_samples) == (100, 200)
    assert config.checkpoint.save_contents == ("lora",)
    assert notes == []


def test_a_reptile_file(tmp_path: Path) -> None:
    config, notes = load(tmp_path, REPTILE, "meta.algorithm=reptile")
    assert (config.meta.reptile_epsilon, config.meta.inner_batch_size) == (0.5, 6)
    (task,) = config.meta.tasks
    assert (task.support_files, task.support_max_samples) == (("tasks/poems.parquet",), 50)
    assert [note.split(" ")[0] for note in notes] == ["meta.decay_outer_stepsize", "meta.stepsize_decay_rate"]


def test_a_plain_sft_file_of_verl(tmp_path: Path) -> None:
    config, notes = load(tmp_path, PLAIN_SFT)
    assert config.meta.algorithm == "sft"
    (task,) = config.meta.tasks
    assert (task.name, task.support_files) == ("train", ("mixed/train.parquet",))
    assert (config.data.prompt_key, config.data.messages_key) == ("question", "turns")
    assert config.optim.lr_warmup_steps_ratio == 0.1
    assert config.checkpoint.load_contents == ("model", "optimizer", "extra")
    assert config.trainer.total_steps == load_config().trainer.total_steps
    assert {note.split(" ")[0] for note in notes} == {
        "data.train_files",
        "data.val_files",
        "data.train_batch_size",
        "data.micro_batch_size_per_gpu",
        "data.multiturn",
        "model.strategy",
        "model.fsdp_config.model_dtype",
        "model.fsdp_config.wrap_policy.min_num_params",
        "trainer.total_epochs",
        "trainer.nnodes",
        "trainer.n_gpus_per_node",
        "ulysses_sequence_parallel_size",
    }


def test_training_files_have_no_effect_beside_tasks_and_say_so(tmp_path: Path) -> None:
    config, notes = load(tmp_path, ADAPTER, "data.train_files=[other.parquet]")
    assert config.meta.algorithm == "fomaml"
    assert [task.name for task in config.meta.tasks] == ["poems"]
    assert len(notes) == 1
    assert "data.train_files has no effect here" in notes[0]


def test_training_files_of_chosen_sft_are_read_without_a_word(tmp_path: Path) -> None:
    text = "meta: {algorithm: sft}\ndata: {train_files: mixed.parquet, train_max_samples: 9}\n"
    config, notes = load(tmp_path, text)
    assert (config.meta.tasks[0].support_files, config.meta.tasks[0].support_max_samples) == (
        ("mixed.parquet",),
        9,
    )
    assert notes == []


def test_a_later_layer_wins_however_either_spells_a_key(tmp_path: Path) -> None:
    config, _ = load(tmp_path, ADAPTER, "meta.outer_lr=0.5")
    assert config.optim.lr == 0.5
    config, _ = load(tmp_path, "meta: {outer_lr: 0.5}", "meta.meta_lr=0.25")
    assert config.optim.lr == 0.25
    config, _ = load(tmp_path, FULL_PARAMETERS.replace("USE_FOMAML", "true"), "meta.algorithm=implicit_maml")
    assert config.meta.algorithm == "implicit_maml"


def test_two_spellings_that_agree_are_no_conflict(tmp_path: Path) -> None:
    config, _ = load(tmp_path, "meta: {meta_lr: 0.5, outer_lr: 0.5, use_fomaml: true, algorithm: fomaml}")
    assert (config.optim.lr, config.meta.algorithm) == (0.5, "fomaml")


def test_a_reference_to_an_older_key_follows_its_value(tmp_path: Path) -> None:
    config, _ = load(tmp_path, "meta: {meta_lr: 0.5, inner_lr: '${meta.meta_lr}'}")
    assert config.meta.inner_lr == 0.5


def test_hydra_sections_are_taken_out(tmp_path: Path) -> None:
    _, notes = load(tmp_path, "defaults: [_self_]\nhydra: {run: {dir: .}}\n")
    assert [note.split(" ")[0] for note in notes] == ["hydra"]


@pytest.mark.parametrize(
    ("word", "reader"),
    [
        ("meta.implicit.cg_steps=9", "meta.algorithm=implicit_maml"),
        ("meta.hvp=central", "meta.algorithm=maml or implicit_maml"),
        ("meta.differentiation=unroll", "meta.algorithm=maml"),
        ("meta.inner_moments=carry", "meta.inner_rule=adam"),
        ("meta.eval_tasks_per_round=3", "meta.eval_tasks"),
        ("data.use_shm=true", "compatibility"),
        ("trainer.default_hdfs_dir=hdfs://x", "compatibility"),
    ],
)
def test_a_setting_that_this_run_never_looks_at_says_so(word: str, reader: str) -> None:
    with pytest.warns(
        ConfigWarning, match=rf"^{word.partition('=')[0]} .*has no effect here: .*command line"
    ) as shown:
        load_config(overrides=[word])
    assert len(shown) == 1
    assert reader in str(shown[0].message)


def test_a_setting_equal_to_its_default_is_not_worth_a_word() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        load_config(overrides=["meta.hvp=auto", "data.use_shm=false", "data.val_files=null"])
    assert not shown


def test_each_note_is_shown_once() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")  # as Python starts with: each text once
        for _ in range(3):
            load_config(overrides=["data.train_batch_size=8", "trainer.nnodes=2"])
    assert len(shown) == 2
