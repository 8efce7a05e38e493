"""A trained few-shot learner on disk: its weights, its learned rates, its settings."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from innerloop.core.errors import InputError
from innerloop.fewshot.backbones import Backbone, build_backbone
from innerloop.fewshot.config import Config, config_from_dict, to_dict
from innerloop.fewshot.learners import FewShotLearner, Problem

INFO_FILE, WEIGHTS_FILE = "innerloop.json", "learner.safetensors"
FORMAT = 1


@dataclass(frozen=True)
class Training:
    """What training took.

    Args:
        steps: meta-steps.
        episodes: training episodes.
        seconds: of computing.
        parameters: numbers that training moved, learned rates among them.
    """

    steps: int
    episodes: int
    seconds: float
    parameters: int


@dataclass(frozen=True)
class Artifact:
    """A learner ready to classify.

    Args:
        learner: with the trained weights.
        config: what it was trained with.
        problem: what it was built for.
        training: what training took.
    """

    learner: FewShotLearner
    config: Config
    problem: Problem
    training: Training


def build_learner(config: Config, channels: int, device: torch.device) -> tuple[FewShotLearner, Problem]:
    """A fresh learner and what it is built for.

    Raises:
        InputError: the backbone cannot take images of this size.
    """
    problem = Problem(channels, config.data.size, config.train.ways)

    def backbone(*, running: bool) -> Backbone:
        return build_backbone(
            config.backbone.name, channels, config.data.size, config.backbone.width, running
        )

    learner = config.method.build(problem, backbone)
    learner.module.to(device)
    return learner, problem


def save_artifact(
    folder: Path, learner: FewShotLearner, config: Config, channels: int, training: Training
) -> None:
    """Writes a learner into a checkpoint's folder."""
    save_file(
        {name: tensor.detach().cpu().contiguous() for name, tensor in _tensors(learner).items()},
        folder / WEIGHTS_FILE,
    )
    info = {
        "format": FORMAT,
        "domain": "fewshot",
        "channels": channels,
        "training": asdict(training),
        "config": to_dict(config),
    }
    (folder / INFO_FILE).write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")


def load_artifact(path: Path, device: torch.device) -> Artifact:
    """Reads a learner.

    Args:
        path: a checkpoint, or a run's folder, which stands for its newest checkpoint.
        device: where it shall compute.

    Raises:
        InputError: there is none, or it is damaged or of another release.
    """
    folder = path / "latest" if (path / "latest").exists() else path
    try:
        info = json.loads((folder / INFO_FILE).read_text(encoding="utf-8"))
        if info.get("domain") != "fewshot" or info.get("format") != FORMAT:
            raise InputError(f"{folder} is no few-shot artifact that this release of innerloop reads")
        config = config_from_dict(info["config"], str(folder / INFO_FILE))
        channels, training = int(info["channels"]), Training(**info["training"])
        saved = load_file(folder / WEIGHTS_FILE)
    except FileNotFoundError as error:
        raise InputError(f"{path} holds no trained few-shot learner ({error.filename} is missing)") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise InputError(f"the artifact {folder} is damaged ({error}); take another checkpoint") from error
    learner, problem = build_learner(config, channels, device)
    tensors = _tensors(learner)
    if {name: t.shape for name, t in saved.items()} != {name: t.shape for name, t in tensors.items()}:
        raise InputError(f"the artifact {folder} is damaged: its weights do not fit its settings")
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(saved[name])
    return Artifact(learner, config, problem, training)


def parameter_count(learner: FewShotLearner) -> int:
    """The numbers that training moves."""
    moved = [*learner.learner.theta.values(), *learner.strategy.inner.rates.values.values()]
    return sum(tensor.numel() for tensor in moved)


def _tensors(learner: FewShotLearner) -> dict[str, Tensor]:
    """Everything a learner is made of, sharing memory with it."""
    return {
        **{f"module/{name}": tensor for name, tensor in learner.module.state_dict().items()},
        **{f"rates/{name}": tensor for name, tensor in learner.strategy.inner.rates.values.items()},
    }
