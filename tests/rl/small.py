"""Small families, settings, policies and clusters that the tests of reinforcement learning share."""

from dataclasses import replace
from pathlib import Path

import torch

from innerloop.rl.artifacts import Training, fresh_policy, save_artifact
from innerloop.rl.config import Config, load_config
from innerloop.rl.families import Family, KubernetesScaling, LoadBalancing
from innerloop.rl.policy import ClusterPolicy
from innerloop.rl.simulator import Simulation
from innerloop.rl.simulator.scenario import Scenario
from innerloop.rl.simulator.snapshot import Snapshot

SCALING = KubernetesScaling(steps=6, nodes=(2, 4), applications=(1, 3))
BALANCING = LoadBalancing(steps=6, nodes=(2, 4))
BOTH = (SCALING, BALANCING)

TINY = (
    "family.steps=5",
    "policy.width=8",
    "policy.task_width=4",
    "ppo.clusters=2",
    "ppo.epochs=2",
    "ppo.batch_size=5",
    "meta.clusters=2",
    "meta.clusters_at_once=2",
    "meta.inner_steps=2",
    "meta.support_uses=1",
    "meta.value_weight=0.5",
    "meta.repeats=1",
    "meta.query_episodes=2",
    "test.clusters=2",
    "test.seeds=1",
    "test.episodes=1",
    "test.adaptation_episodes=[0,2]",
    "trainer.save_freq=-1",
    "trainer.logger=[]",
)
"""Settings of a run that takes a moment."""


def tiny(folder: Path, *words: str) -> Config:
    """The settings of a run in a folder."""
    return load_config(None, None, [*TINY, f"trainer.default_local_dir={folder}", *words])


def policy_of(family: Family, width: int = 8) -> ClusterPolicy:
    """A policy for a family whose actor says something, unlike a fresh one's."""
    config = load_config(None, None, [f"family.name={family.name}", f"policy.width={width}"])
    policy = fresh_policy(replace(config, family=family))
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter += 0.3 * torch.randn_like(parameter)
    return policy


def scenarios(family: Family, count: int) -> list[Scenario]:
    """Training members."""
    return [family.split("train").scenario(number) for number in range(count)]


def course(given: list[Scenario], seed: int = 0) -> list[Snapshot]:
    """The snapshots of an episode in which nothing is changed, the beginning among them."""
    simulation = Simulation(given, [seed + number for number in range(len(given))])
    seen = [simulation.snapshot()]
    while not simulation.done:
        simulation.step(seen[-1].desired)
        seen.append(simulation.snapshot())
    return seen


def saved(folder: Path, config: Config, way: str = "ppo") -> Path:
    """The artifact of an untrained policy."""
    folder.mkdir(parents=True)
    training = Training(way, 3, 30, 1.5)  # type: ignore[arg-type]  # one of the three ways
    save_artifact(folder, fresh_policy(config), {}, config, training)
    return folder


def weights(policy: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the parameters."""
    return {name: p.detach().clone() for name, p in policy.named_parameters()}
