"""Meta-learning over clusters: settings put together for the core's trainer and its algorithms."""

from pathlib import Path

from innerloop.core.errors import InputError
from innerloop.core.inner import SGD, LearningRates
from innerloop.core.inner_loop import InnerLoop
from innerloop.core.metagrad import Exact, FirstOrder, Implicit, Reptile, Strategy
from innerloop.core.sampler import derive_seed
from innerloop.core.trainer import MetaTrainer, TrainingResult
from innerloop.rl.artifacts import Training, fresh_policy, load_artifact, save_artifact
from innerloop.rl.config import Config, MetaConfig, to_dict
from innerloop.rl.policy import ClusterPolicy, freeze
from innerloop.rl.policy_gradient import Advantages, PolicyLoss
from innerloop.rl.tasks import ClusterLearner, ClusterSampler, Collector, Support
from innerloop.rl.transfer import transferred_policy
from innerloop.tracking import trackers_of_run


def meta_train(config: Config, source: Path | None = None) -> TrainingResult:
    """Meta-trains a policy on the family's training members, or goes on where it stopped.

    Args:
        config: the settings.
        source: a policy to begin with, for example one trained by PPO; none begins with nothing learned.

    Raises:
        InputError: a setting is wrong, a source that does not fit, or the folder cannot be written.
        NonFiniteError: a loss became NaN or infinite; the last whole step is saved.
        Interrupted: a signal came; the last whole step is saved.
    """
    meta, run = config.meta, config.trainer
    _check_repeats(config)
    policy = fresh_policy(config) if source is None else transferred_policy(load_artifact(source), config)
    freeze(policy, ())
    strategy = build_strategy(meta, policy)
    learner = build_learner(config, policy, meta.clusters_at_once)
    sampler = ClusterSampler(
        config.family.split("train"),
        meta.clusters,
        derive_seed(run.seed, "meta-train"),
        build_collector(config, policy),
        support_use(meta),
        meta.query_episodes,
        meta.repeats,
    )
    folder = run.folder

    def export(checkpoint: Path) -> None:
        origin = None if source is None else str(source)
        taken = environment_steps(config, trainer.step)
        training = Training("meta", trainer.step, taken, trainer.seconds, origin)
        save_artifact(checkpoint, policy, strategy.inner.rates.values, config, training)

    trainer = MetaTrainer(
        learner,
        strategy,
        sampler,
        config.optim.outer(run.total_steps),
        run.settings("environment_steps"),
        trackers=lambda start: trackers_of_run(run, folder, run.total_steps, start, to_dict(config)),
        export=export,
    )
    return TrainingResult(trainer.fit(), folder / "metrics.jsonl")


def build_strategy(meta: MetaConfig, policy: ClusterPolicy) -> Strategy:
    """The meta-gradient that the settings name.

    Raises:
        InputError: an algorithm that has no gradient for learned rates, or settings out of range.
    """
    names = [name for name, p in policy.named_parameters() if p.requires_grad]
    start = {name: meta.task_lr if name == "task" else meta.inner_lr for name in names}
    learned = meta.learn_inner_lr and meta.algorithm in ("maml", "fomaml")
    rates = LearningRates(start, names, meta.inner_steps, learned=learned)
    proximal = meta.proximal if meta.algorithm == "implicit_fomaml" else 0.0
    inner = InnerLoop(SGD(), rates, meta.inner_steps, proximal)
    match meta.algorithm:
        case "maml":
            return Exact(inner)
        case "fomaml":
            return FirstOrder(inner)
        case "reptile":
            return Reptile(inner)
        case "implicit_fomaml":
            return Implicit(inner, meta.cg_steps)


def support_use(meta: MetaConfig) -> Support:
    """How the inner loop comes by its episodes."""
    return Support(meta.support_episodes, meta.support_uses, meta.support_remembered)


def environment_steps(config: Config, steps: int) -> int:
    """Control steps simulated to learn from in so many meta-steps; those for monitoring are not counted."""
    meta = config.meta
    # Reptile looks at the query episodes, and does not learn from them.
    judged = 0 if meta.algorithm == "reptile" else meta.query_episodes
    episodes = meta.inner_steps // meta.support_uses * meta.support_episodes + judged
    return -(-steps // meta.repeats) * meta.clusters * episodes * config.family.steps


def _check_repeats(config: Config) -> None:
    """Refuses to use episodes again where that cannot be right, or could not be resumed."""
    meta, every = config.meta, config.trainer.save_freq
    if meta.inner_steps % meta.support_uses:
        raise InputError(
            f"meta.inner_steps={meta.inner_steps} must be a multiple of meta.support_uses="
            f"{meta.support_uses}, so that all episodes are used as often"
        )
    if meta.repeats > 1 and meta.surrogate == "dice":
        raise InputError("meta.repeats above 1 needs meta.surrogate=likelihood_ratio: dice has no clipping")
    for key, steps in (("save_freq", every), ("total_steps", config.trainer.total_steps)):
        if steps > 0 and steps % meta.repeats:
            raise InputError(
                f"trainer.{key}={steps} must be a multiple of meta.repeats={meta.repeats}, "
                "so that checkpoints fall between two meta-batches"
            )


def build_learner(config: Config, policy: ClusterPolicy, clusters_at_once: int) -> ClusterLearner:
    """The policy as the core adapts it."""
    meta = config.meta
    return ClusterLearner(
        policy,
        PolicyLoss(meta.surrogate, meta.clip, meta.value_weight, meta.entropy_weight, meta.cost_weight),
        clusters_at_once,
    )


def build_collector(config: Config, policy: ClusterPolicy) -> Collector:
    """What plays the episodes."""
    advantages = Advantages(config.meta.discount, config.meta.smoothing)
    return Collector(policy, config.control, advantages, config.ppo.reward_scale)
