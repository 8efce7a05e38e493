"""A policy adapted to one cluster, and kept."""

from dataclasses import dataclass, replace
from pathlib import Path

from innerloop.core.checkpoint import CheckpointFolder
from innerloop.core.errors import InputError
from innerloop.core.sampler import derive_seed
from innerloop.rl.adapt import adapt
from innerloop.rl.artifacts import load_artifact, save_artifact
from innerloop.rl.evaluate import Trial, judge
from innerloop.rl.families import Split


@dataclass(frozen=True)
class AdaptationResult:
    """One adaptation.

    Args:
        cluster: its name.
        before: mean return before.
        after: mean return after.
        violations_before: share of requests.
        violations_after: share of requests.
        folder: of the adapted policy.
    """

    cluster: str
    before: float
    after: float
    violations_before: float
    violations_after: float
    folder: Path


def adapt_to_one(
    model: Path, output_dir: Path, split: Split, cluster: int, episodes: int, seed: int
) -> AdaptationResult:
    """Adapts a policy to one member of its family, measures it, and saves it.

    Args:
        model: an artifact.
        output_dir: for the adapted one.
        split: of the members.
        cluster: number of the member.
        episodes: to adapt on, at least 1.
        seed: of these episodes.

    Raises:
        InputError: the artifact cannot be read, the adapted one cannot be written, or the episodes do not
            fit.
    """
    if cluster < 0 or episodes < 1:
        raise InputError(
            f"--cluster must be at least 0 and --episodes at least 1, not {cluster} and {episodes}"
        )
    artifact = load_artifact(model)
    scenario = artifact.config.family.split(split).scenario(cluster)
    test = artifact.config.test
    counts = sorted({0, episodes})
    found = adapt(artifact, [scenario], [derive_seed(seed, "adapt")], counts, test.fine_tuning_lr)
    judged = tuple(derive_seed(seed, "judge", number) for number in range(test.episodes))
    trial = Trial(scenario, seed, judged)
    (before,), (slow_before,) = judge(artifact, found[0], [trial])
    (after,), (slow_after,) = judge(artifact, found[episodes], [trial])
    policy = artifact.policy
    policy.load_state_dict({**policy.state_dict(), **{n: p[0] for n, p in found[episodes].items()}})
    training = replace(artifact.training, source=str(model))
    folder = CheckpointFolder(output_dir, keep=1).save(
        episodes, lambda path: save_artifact(path, policy, artifact.rates, artifact.config, training)
    )
    return AdaptationResult(
        scenario.name, float(before), float(after), float(slow_before), float(slow_after), folder
    )
