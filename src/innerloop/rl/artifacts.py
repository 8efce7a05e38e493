"""A trained policy on disk: its weights, its learned inner rates, its settings. No pickles."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from innerloop.core.errors import InputError
from innerloop.core.params import Params
from innerloop.rl.config import Config, config_from_dict, to_dict
from innerloop.rl.policy import ClusterPolicy

INFO_FILE, WEIGHTS_FILE = "innerloop.json", "policy.safetensors"
FORMAT = 1

Way = Literal["ppo", "transfer", "meta"]


@dataclass(frozen=True)
class Training:
    """What training took.

    Args:
        way: how it was trained.
        steps: rounds of PPO, or meta-steps.
        environment_steps: control steps simulated to learn from.
        seconds: of computing.
        source: the policy it began with, if any.
    """

    way: Way
    steps: int
    environment_steps: int
    seconds: float
    source: str | None = None


@dataclass(frozen=True)
class Artifact:
    """A policy ready to act or to be adapted.

    Args:
        policy: with the trained weights.
        rates: learned inner rates; empty where none were learned.
        config: what it was trained with.
        training: what training took.
    """

    policy: ClusterPolicy
    rates: Params
    config: Config
    training: Training


def save_artifact(
    folder: Path, policy: ClusterPolicy, rates: Params, config: Config, training: Training
) -> None:
    """Writes a policy into a checkpoint's folder."""
    tensors = {
        **{f"policy/{name}": tensor for name, tensor in policy.state_dict().items()},
        **{f"rates/{name}": tensor for name, tensor in rates.items()},
    }
    save_file({name: t.detach().contiguous() for name, t in tensors.items()}, folder / WEIGHTS_FILE)
    info = {"format": FORMAT, "domain": "rl", "training": asdict(training), "config": to_dict(config)}
    (folder / INFO_FILE).write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")


def load_artifact(path: Path) -> Artifact:
    """Reads a policy.

    Args:
        path: a checkpoint, or a run's folder, which stands for its newest checkpoint.

    Raises:
        InputError: there is none, or it is damaged or of another release.
    """
    folder = path / "latest" if (path / "latest").exists() else path
    try:
        info = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
        if info.get("domain") != "rl" or info.get("format") != FORMAT:
            raise InputError(f"{folder} is no scaling policy that this release of innerloop reads")
        config = config_from_dict(info["config"], str(folder / INFO_FILE))
        training = Training(**info["training"])
        saved = load_file(folder / WEIGHTS_FILE)
    except FileNotFoundError as error:
        # The reader of weights does not say which file it missed.
        missing = error.filename or folder / WEIGHTS_FILE
        raise InputError(f"{path} holds no trained policy ({missing} is missing)") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise InputError(f"the artifact {folder} is damaged ({error}); take another checkpoint") from error
    policy = ClusterPolicy(config.shape, config.family.layout)
    weights = _section(saved, "policy")
    if {name: t.shape for name, t in weights.items()} != {
        name: t.shape for name, t in policy.state_dict().items()
    }:
        raise InputError(f"the artifact {folder} is damaged: its weights do not fit its settings")
    policy.load_state_dict(weights)
    return Artifact(policy, _section(saved, "rates"), config, training)


def _section(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}/"): t for key, t in tensors.items() if key.startswith(f"{name}/")}


def fresh_policy(config: Config) -> ClusterPolicy:
    """A policy that has learned nothing, its first values drawn from the run's seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(config.trainer.seed)
        return ClusterPolicy(config.shape, config.family.layout)
