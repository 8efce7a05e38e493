"""Sharding a language model over processes with FSDP2, and gathering it again to be saved."""

from dataclasses import dataclass

import torch
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from transformers import PreTrainedModel

from innerloop.core.errors import InputError
from innerloop.core.learner.sharded import Holders
from innerloop.core.parallel import World, start_group
from innerloop.core.params import whole
from innerloop.llm.config import FsdpConfig
from innerloop.llm.devices import parse_dtype


@dataclass(frozen=True)
class Sharding:
    """How a model lies on the processes.

    Args:
        world: the processes, grouped as the shards of adapted weights ask for.
        holders: those that hold the shards of this process's copy.
        computes_in: the dtype of forward and backward; none is that of the parameters.
    """

    world: World
    holders: Holders
    computes_in: torch.dtype | None


def shard(
    model: PreTrainedModel | PeftModel, settings: FsdpConfig, world: World, device: torch.device
) -> Sharding:
    """Shards a model in place: each decoder layer is a unit, and what is left another.

    Frozen weights are sharded under a LoRA adapter, which every process keeps whole, so that each has tasks
    of its own. Where all parameters train, the processes that hold the shards of one copy share its tasks.

    Args:
        model: in host memory, so that no device ever holds more than a layer of it whole.
        settings: ``model.fsdp_config``.
        world: the processes; all must come here.
        device: of this process.

    Raises:
        InputError: the layers to shard cannot be found, or the shards do not divide the processes.
    """
    start_group()
    count = world.size if settings.fsdp_size == -1 else settings.fsdp_size
    if world.size % count:
        raise InputError(
            f"model.fsdp_config.fsdp_size={count} does not divide the {world.size} processes of this run"
        )
    mesh = init_device_mesh(device.type, (world.size // count, count), mesh_dim_names=("copies", "shards"))
    computes_in = None if settings.model_dtype is None else parse_dtype(settings.model_dtype)
    precision = MixedPrecisionPolicy(param_dtype=computes_in, reduce_dtype=torch.float32)
    # Without a GPU the shards are in host memory anyway.
    offload = CPUOffloadPolicy() if settings.cpu_offload and device.type == "cuda" else OffloadPolicy()
    adapter = {p for p in model.parameters() if p.requires_grad} if isinstance(model, PeftModel) else set()
    for parameter in adapter:
        parameter.data = parameter.data.to(device)
    for unit in [*_layers(model, settings.wrap_policy.transformer_layer_cls_to_wrap), model]:
        fully_shard(
            unit,
            mesh=mesh["shards"],
            # FSDP would keep the last unit whole after a forward pass, and so miss steps taken on its shards.
            reshard_after_forward=True,
            mp_policy=precision,
            offload_policy=offload,
            ignored_params=adapter or None,
        )
        assert isinstance(unit, FSDPModule)
        # Each process has its share of the loss, not a mean of its own: gradients add up.
        unit.set_gradient_divide_factor(1.0)
        unit.set_force_sum_reduction_for_comms(True)
    holders = Holders(mesh.get_local_rank("shards"), count, mesh.get_group("shards"))
    if adapter:
        grouped = world.in_groups(1, in_step=count > 1, across=None)
    else:
        grouped = world.in_groups(count, in_step=count > 1, across=mesh.get_group("copies"))
    return Sharding(grouped, holders, computes_in)


def gathered(model: nn.Module, world: World) -> dict[str, Tensor] | None:
    """The model's state, whole and in host memory, on the main process; none on the others.

    Every process must ask. Tensors that are tied stay so.
    """
    if world.group:
        return None
    state: dict[str, Tensor] = {}
    seen: dict[int, Tensor] = {}
    tied = {name: id(p) for name, p in model.named_parameters(remove_duplicate=False)}
    for name, tensor in model.state_dict().items():
        key = tied.get(name, id(tensor))
        if key not in seen:
            full = whole(tensor)
            seen[key] = full.cpu() if world.is_main else torch.empty(())
        state[name] = seen[key]
    return state if world.is_main else None


def _layers(model: nn.Module, named: tuple[str, ...] | None) -> list[nn.Module]:
    classes = set(named or getattr(model, "_no_split_modules", None) or ())
    layers = [module for module in model.modules() if type(module).__name__ in classes]
    if not layers:
        raise InputError(
            f"model.fsdp_config.wrap_policy.transformer_layer_cls_to_wrap: this model has no layer of class "
            f"{', '.join(sorted(classes)) or '(none is known)'}; name the class of its decoder layers"
        )
    return layers
