"""From settings to the core's objects: which inner loop, strategy and learner a configuration asks for."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.modeling_layers import GradientCheckpointingLayer

from innerloop.core.errors import InputError
from innerloop.core.inner import SGD, Adam, InnerRule, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.learner import FunctionalLearner, InPlaceLearner, Learner, ShardedLearner, VmapLearner
from innerloop.core.learner.base import BatchSize, HessianProduct
from innerloop.core.metagrad import Exact, FirstOrder, Implicit, Joint, Reptile, Strategy, Unroll
from innerloop.core.trainer import OuterSettings
from innerloop.llm.config import Config, MetaConfig
from innerloop.llm.lora import LoraSpec
from innerloop.llm.loss import batch_tokens, response_loss, stack_token_batches
from innerloop.llm.model import ModelSpec
from innerloop.llm.row_split import part_of
from innerloop.llm.sharding import Sharding

LearnerName = Literal["functional", "vmap", "in_place"]
SECOND_ORDER = ("maml", "implicit_maml")


def build_inner_loop(meta: MetaConfig, names: Sequence[str]) -> InnerLoop:
    """The inner loop of a configuration.

    Args:
        meta: the bilevel settings.
        names: the adapted tensors, for learned rates.
    """
    rule: InnerRule
    if meta.inner_rule == "adam":
        rule = Adam(betas=meta.inner_betas, max_norm=meta.inner_max_grad_norm, moments=meta.inner_moments)
    else:
        rule = SGD(max_norm=meta.inner_max_grad_norm)
    rates = LearningRates(meta.inner_lr, names, meta.num_inner_steps, learned=meta.learn_inner_lr)
    proximal = meta.implicit.lambda_ if meta.algorithm == "implicit_maml" else 0.0
    return InnerLoop(rule, rates, meta.num_inner_steps, proximal)


def take_up_rates(rates: LearningRates, saved: Mapping[str, Sequence[float]]) -> None:
    """Puts learned rates that an artifact saved back into the inner loop.

    Raises:
        InputError: if they are of other tensors.
    """
    if set(saved) != set(rates.values):
        raise InputError("the artifact's learned rates belong to other tensors than its weights")
    for name, values in saved.items():
        rates.values[name] = torch.tensor(values, dtype=torch.float32)


def build_strategy(meta: MetaConfig, inner: InnerLoop) -> Strategy:
    """The meta-gradient strategy of a configuration."""
    match meta.algorithm:
        case "maml":
            return Unroll(inner) if meta.differentiation == "unroll" else Exact(inner)
        case "fomaml":
            return FirstOrder(inner)
        case "implicit_maml":
            return Implicit(inner, meta.implicit.cg_steps, meta.implicit.cg_damping)
        case "reptile":
            return Reptile(inner)
        case "sft":
            return Joint(inner)


def learner_name(config: Config) -> LearnerName:
    """The learner a configuration asks for; ``auto`` is vmap for several tasks at once, functional for LoRA
    and unrolling, and in place for full parameters, where a second copy of the model would not pay."""
    meta = config.meta
    if config.model.use_fsdp:
        return "in_place"
    if meta.learner != "auto":
        return meta.learner
    if meta.tasks_per_chunk > 1:
        return "vmap"
    if config.model.adapts == "lora" or meta.differentiation == "unroll" or meta.hvp == "forward":
        return "functional"
    return "in_place"


def hessian_product(config: Config) -> HessianProduct:
    """How Hessian-vector products are taken; ``auto`` is exact unless the model is sharded."""
    if config.meta.hvp != "auto":
        return config.meta.hvp
    return "central" if config.model.use_fsdp else "reverse"


def build_learner(
    config: Config, model: nn.Module, sharding: Sharding | None = None, batch_size: BatchSize = batch_tokens
) -> Learner:
    """The learner that runs the model, sharded or not; ``batch_size`` counts what goes into the ledger."""
    if sharding is not None:
        return ShardedLearner(
            model,
            response_loss,
            sharding.holders,
            # Where each process has a whole adapter it has tasks of its own, too.
            part_of if config.model.adapts == "full" else None,
            sharding.computes_in,
            batch_size,
        )
    product = hessian_product(config)
    match learner_name(config):
        case "vmap":
            if config.model.enable_gradient_checkpointing:
                raise InputError(
                    "model.enable_gradient_checkpointing cannot run several tasks at once; "
                    "set meta.tasks_per_chunk=1 and meta.learner=functional"
                )
            return VmapLearner(
                model,
                response_loss,
                config.meta.tasks_per_chunk,
                stack_token_batches,
                batch_size,
                product,
            )
        case "functional":
            return FunctionalLearner(model, response_loss, batch_size, product)
        case "in_place":
            return InPlaceLearner(model, response_loss, batch_size, product)


def attention_for(config: Config) -> str:
    """The attention back end: ``auto`` is eager where second derivatives are taken through the model."""
    chosen = config.model.attn_implementation
    twice = config.meta.algorithm in SECOND_ORDER and (
        config.meta.differentiation == "unroll" or hessian_product(config) != "central"
    )
    return "eager" if chosen == "auto" and (twice or learner_name(config) == "vmap") else chosen


def model_spec(config: Config) -> ModelSpec:
    """What to load."""
    model = config.model
    lora = None
    if model.adapts == "lora":
        targets = model.target_modules
        lora = LoraSpec(
            rank=model.lora_rank,
            alpha=model.lora_alpha,
            dropout=model.lora_dropout,
            target_modules="all-linear" if targets == "all-linear" else _as_tuple(targets),
            layers=model.lora_layers,
            seed=model.lora_seed,
        )
    return ModelSpec(
        name=model.partial_pretrain,
        dtype=model.dtype,
        attn_implementation=attention_for(config),
        gradient_checkpointing=model.enable_gradient_checkpointing,
        trust_remote_code=model.trust_remote_code,
        use_chat_template=config.data.use_chat_template,
        lora=lora,
        device=config.trainer.device,
        strict_device=config.trainer.strict_device,
    )


def set_modes(config: Config, model: PreTrainedModel | nn.Module) -> None:
    """Puts the model in the mode the run needs: dropout only where asked for, checkpointing where set.

    Plain SFT drops out as it always does; the inner loops of the other algorithms only with
    ``meta.inner_dropout``, and never where a second derivative needs the same loss twice.
    """
    meta = config.meta
    if meta.inner_dropout and meta.algorithm in SECOND_ORDER:
        raise InputError(
            f"meta.inner_dropout changes the loss between the two derivatives {meta.algorithm} takes; "
            "unset it"
        )
    model.train(meta.inner_dropout or meta.algorithm == "sft")
    if config.model.enable_gradient_checkpointing:
        for module in model.modules():
            # Layers recompute in training mode only; set on the layer alone it brings no dropout with it.
            if isinstance(module, GradientCheckpointingLayer):
                module.training = True


def outer_settings(config: Config) -> OuterSettings:
    """The outer optimization. ``meta.reptile_epsilon`` is plain interpolation, ε falling to 0."""
    total = config.trainer.total_steps
    if config.meta.reptile_epsilon is not None:
        return OuterSettings(config.meta.reptile_epsilon, total, optimizer="sgd", schedule="linear")
    return config.optim.outer(total)


def _as_tuple(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value
