"""The settings of language-model training, as one tree of frozen sections.

What each key means and its default stand in ``innerloop/configs/default.yaml``; here are its type and what it
may be. Only sections that may be left out altogether, or be listed several times, have defaults of their own.
How files become these objects: `load`. What two keys may not be together: `checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from innerloop.settings.constraints import (
    NotEmpty,
    OneOrMany,
    Range,
    Shorthand,
    SingleName,
    Spelled,
)
from innerloop.settings.kinds import (
    Betas,
    Count,
    CountOrAll,
    LocalPath,
    NonNegative,
    Positive,
    Probability,
    Seed,
    TaskName,
    Text,
)
from innerloop.settings.optim import OptimConfig

Dtype = Annotated[
    Literal["auto", "float32", "bfloat16", "float16"],
    Spelled(("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")),
]
Algorithm = Literal["maml", "fomaml", "implicit_maml", "reptile", "sft"]
CheckpointPart = Annotated[Literal["model", "optimizer", "extra", "lora"], Spelled(("hf_model", "model"))]
CheckpointParts = Annotated[tuple[CheckpointPart, ...], OneOrMany(), NotEmpty()]


@dataclass(frozen=True)
class WrapPolicy:
    """Which modules are sharded as one piece."""

    transformer_layer_cls_to_wrap: Annotated[tuple[Text, ...], OneOrMany()] | None


@dataclass(frozen=True)
class FsdpConfig:
    """How a model is sharded, where ``model.use_fsdp`` asks for it."""

    wrap_policy: WrapPolicy
    model_dtype: Dtype | None
    cpu_offload: bool
    fsdp_size: Count | Literal[-1]


@dataclass(frozen=True)
class ModelConfig:
    """Which model is trained, in what precision, and which of its parameters."""

    partial_pretrain: LocalPath
    trust_remote_code: bool
    dtype: Dtype
    attn_implementation: Literal[
        "auto", "eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"
    ]
    enable_gradient_checkpointing: bool
    compile: bool
    use_fsdp: bool
    fsdp_config: FsdpConfig
    lora_rank: Annotated[int, Range(at_least=0)]
    lora_alpha: Positive
    lora_dropout: Probability
    target_modules: Annotated[tuple[Text, ...], NotEmpty()] | Text
    lora_layers: (
        Annotated[tuple[Annotated[int, Range(at_least=0)], ...], NotEmpty()]
        | Literal["upper_half", "all"]
        | None
    )
    lora_seed: Seed
    frozen_prefix_mib: Annotated[int, Range(at_least=0)]

    @property
    def adapts(self) -> Literal["full", "lora"]:
        """Which parameters the inner and outer loops move."""
        return "lora" if self.lora_rank else "full"


@dataclass(frozen=True)
class DataConfig:
    """Where the rows are and how they become batches."""

    path: LocalPath | None
    max_length: Annotated[int, Range(at_least=2)]
    truncation: Literal["error", "left", "right"]
    prompt_key: Text
    response_key: Text
    messages_key: Text
    use_chat_template: bool
    append_eos: bool
    pad_mode: Literal["auto", "padding", "no_padding"]
    use_dynamic_bsz: bool
    micro_batch_tokens: Count | None
    balance_dp_token: bool
    use_shm: bool
    shuffle: bool
    seed: Seed


@dataclass(frozen=True)
class TaskEntry:
    """A task to train on: a prepared one by its name, or one made of the user's own files.

    Attributes:
        name: of the task; of its folder under ``data.path`` when no files are given.
        support_files: rows for the inner loop.
        query_files: rows for the outer loop; plain SFT and Reptile do without.
        support_max_samples: at most so many support rows are used; -1 takes all.
        query_max_samples: the same for the query rows.
    """

    name: TaskName
    support_files: Annotated[tuple[LocalPath, ...], OneOrMany()] = ()
    query_files: Annotated[tuple[LocalPath, ...], OneOrMany()] = ()
    support_max_samples: CountOrAll = -1
    query_max_samples: CountOrAll = -1

    @property
    def is_prepared(self) -> bool:
        """Whether the rows come from the folder of prepared tasks."""
        return not (self.support_files or self.query_files)


@dataclass(frozen=True)
class ImplicitConfig:
    """The proximal inner problem and its conjugate-gradient solve."""

    lambda_: Positive
    cg_steps: Annotated[int, Range(at_least=0)]
    cg_damping: NonNegative


@dataclass(frozen=True)
class MetaConfig:
    """The bilevel problem: its tasks, its inner loop, and how its meta-gradient is had."""

    algorithm: Algorithm
    tasks: tuple[Annotated[TaskEntry, Shorthand("name")], ...]
    meta_batch_size: Count
    tasks_per_chunk: Count
    inner_rule: Literal["sgd", "adam"]
    inner_lr: Positive
    num_inner_steps: Count
    inner_batch_size: Count
    query_batch_size: Count
    inner_max_grad_norm: Positive | None
    inner_betas: Betas
    inner_moments: Literal["reset", "carry"]
    inner_dropout: bool
    learn_inner_lr: bool
    outer_lr: Positive | None
    learner: Literal["auto", "functional", "vmap", "in_place"]
    differentiation: Literal["adjoint", "unroll"]
    hvp: Literal["auto", "reverse", "forward", "central"]
    reptile_epsilon: Annotated[float, Range(above=0, at_most=1)] | None
    implicit: ImplicitConfig
    eval_tasks: Annotated[tuple[TaskName, ...], OneOrMany()]
    eval_tasks_per_round: Count | None


@dataclass(frozen=True)
class TrainerConfig:
    """The run: where, how long, what is written and where it resumes."""

    device: Literal["auto", "cpu", "cuda", "mps"]
    strict_device: bool
    seed: Seed
    total_steps: Count
    save_freq: Count | Literal[-1]
    test_freq: Count | Literal[-1]
    monitor_freq: Count
    project_name: Text
    experiment_name: Text
    logger: Annotated[tuple[Literal["console", "tensorboard", "wandb"], ...], OneOrMany()]
    default_local_dir: LocalPath
    default_hdfs_dir: str | None
    resume_mode: Literal["auto", "disable", "resume_path"]
    resume_from_path: LocalPath | None
    max_ckpt_to_keep: Count | None


@dataclass(frozen=True)
class CheckpointConfig:
    """What a checkpoint holds, and what of it a resumed run takes up."""

    save_contents: CheckpointParts
    load_contents: CheckpointParts


PrepareValue = bool | int | float | str | tuple[int | float | str, ...]


@dataclass(frozen=True)
class PrepareConfig:
    """How the experiment's data is made.

    Attributes:
        preset: one of the presets of ``innerloop data prepare``.
        source_dir: local raw files; without it the preset loads from the hub.
        args: the preset's other options, by their long names with underscores (``support_ratio: 0.3``).
    """

    preset: Annotated[str, SingleName()]
    source_dir: LocalPath | None = None
    args: Mapping[str, PrepareValue] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodConfig:
    """One method of the comparison.

    Attributes:
        name: its folder and its label in the report.
        kind: meta (meta-trained), control (matched-compute SFT), base (adapted from the untrained model), or
            icl (shots in the prompt, no training).
        overrides: ``key=value`` settings that make this method out of the experiment's common ones.
    """

    name: TaskName
    kind: Literal["meta", "control", "base", "icl"]
    overrides: Annotated[tuple[str, ...], OneOrMany()] = ()


@dataclass(frozen=True)
class EvaluateConfig:
    """How the trained methods are compared on tasks that none of them saw.

    Attributes:
        tasks: tasks to evaluate on; empty takes those that the manifest holds out.
        validation_tasks: tasks on which each method's adaptation rate and steps are chosen; empty takes the
            manifest's validation tasks.
        n_shots: support rows given to adapt with; 0 is the un-adapted model.
        n_runs: draws of the shots, shared by all methods.
        max_test_samples: at most so many test rows a task; -1 takes all.
        adaptation_lrs: the grid of adaptation rates; empty keeps each method's inner rate.
        adaptation_steps: the grid of step counts; empty keeps each method's inner steps.
    """

    tasks: tuple[TaskName, ...] = ()
    validation_tasks: tuple[TaskName, ...] = ()
    n_shots: Annotated[tuple[Annotated[int, Range(at_least=0)], ...], OneOrMany(), NotEmpty()] = (
        0,
        5,
        10,
        25,
        50,
    )
    n_runs: Count = 5
    max_test_samples: CountOrAll = -1
    adaptation_lrs: Annotated[tuple[Positive, ...], OneOrMany()] = ()
    adaptation_steps: Annotated[tuple[Count, ...], OneOrMany()] = ()


@dataclass(frozen=True)
class ExperimentConfig:
    """The whole pipeline: prepare, train every method, evaluate all, report."""

    prepare: PrepareConfig
    methods: Annotated[tuple[MethodConfig, ...], NotEmpty()]
    output_dir: LocalPath
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


@dataclass(frozen=True)
class Config:
    """All settings of a run, checked. Made by `innerloop.llm.config.load_config`."""

    model: ModelConfig
    data: DataConfig
    meta: MetaConfig
    optim: OptimConfig
    trainer: TrainerConfig
    checkpoint: CheckpointConfig
    experiment: ExperimentConfig | None
