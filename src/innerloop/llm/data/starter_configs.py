"""A ready configuration for every algorithm beside the data: a packaged recipe with data and tasks set.

What the keys mean stands in ``innerloop/configs/default.yaml``; nothing is checked here.
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from omegaconf import OmegaConf

import innerloop.configs
from innerloop.llm.data.prepared import Manifest

CONFIG_PATTERN = "config_*.yaml"
TEST_FREQUENCY = 50
TASKS_A_ROUND = 4


@dataclass(frozen=True)
class Starter:
    """One file to write.

    Args:
        name: also the name of the experiment; the file is ``config_{name}.yaml``.
        recipe: the packaged settings it starts from.
        algorithm: what it sets ``meta.algorithm`` to.
    """

    name: str
    recipe: str
    algorithm: str


STARTERS = (
    Starter("maml_sft", "maml_sft", "maml"),
    Starter("fomaml_sft", "fomaml_sft", "fomaml"),
    Starter("implicit_maml", "meta_lora", "implicit_maml"),
    Starter("reptile_sft", "reptile_sft", "reptile"),
    Starter("meta_lora", "meta_lora", "fomaml"),
    Starter("sft", "sft", "sft"),
    Starter("lora_sft", "lora_sft", "sft"),
)


def write_starter_configs(folder: Path, manifest: Manifest, data_path: Path) -> None:
    """Writes ``config_*.yaml`` for every algorithm.

    Args:
        folder: where to write.
        manifest: of the data; its training tasks are trained on, and those for validation (or, without any,
            the held-out ones) are evaluated on the way.
        data_path: where the data will be found, as the user named it.
    """
    evaluated = manifest.names("validation") or manifest.names("held_out")
    for starter in STARTERS:
        recipe = OmegaConf.create((files(innerloop.configs) / f"{starter.recipe}.yaml").read_text())
        changes = {
            "model": {"partial_pretrain": "smollm2-135m"},
            "data": {"path": str(data_path), "truncation": "right"},
            "meta": {
                "algorithm": starter.algorithm,
                "tasks": list(manifest.names("train")),
                "eval_tasks": list(evaluated),
                "eval_tasks_per_round": TASKS_A_ROUND,
            },
            "trainer": {
                "project_name": manifest.preset,
                "experiment_name": starter.name,
                "test_freq": TEST_FREQUENCY if evaluated else -1,
            },
        }
        name = f"config_{starter.name}"
        header = f"# innerloop train --config-path {data_path} --config-name {name}\n"
        (folder / f"{name}.yaml").write_text(header + OmegaConf.to_yaml(OmegaConf.merge(recipe, changes)))
