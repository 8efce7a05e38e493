"""Clusters as tasks: the same episodes for the same arguments, alone or side by side."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from innerloop.core.metagrad import Exact, FirstOrder
from innerloop.core.params import Params
from innerloop.rl.artifacts import fresh_policy
from innerloop.rl.config import Config
from innerloop.rl.meta import build_collector, build_learner, build_strategy
from innerloop.rl.policy import ClusterPolicy
from innerloop.rl.rollout import Trajectories
from innerloop.rl.tasks import ClusterSampler, ClusterTask, Collector, Support
from rl.small import tiny

TASKS = 4


@pytest.fixture(params=["kubernetes_scaling", "load_balancing"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Config:
    return tiny(tmp_path, f"family.name={request.param}", "meta.support_episodes=2", "meta.inner_lr=0.1")


def tasks_of(config: Config, policy: ClusterPolicy, episodes: int = 2) -> list[ClusterTask]:
    collector = build_collector(config, policy)
    members = config.family.split("train")
    return [
        ClusterTask(members.scenario(number), 100 + number, collector, Support(episodes), 3)
        for number in range(TASKS)
    ]


def own(policy: ClusterPolicy) -> Params:
    return {name: p.detach() for name, p in policy.named_parameters()}


def assert_same(left: Trajectories, right: Trajectories) -> None:
    for name, one, other in zip(left._fields, left, right, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}")


def test_a_batch_follows_from_its_arguments(config: Config) -> None:
    policy = fresh_policy(config)
    task, params = tasks_of(config, policy)[0], own(policy)
    first = task.support(0, params)
    torch.rand(3)  # the state of the global generator is nothing to it
    for one, again in zip(first, task.support(0, params), strict=True):
        assert one.equal(again)
    others = [
        task.support(1, params),
        replace(task, seed=1).support(0, params),
        task.support(0, {name: p + torch.randn_like(p) for name, p in params.items()}),
        Trajectories(*(tensor[:2] for tensor in task.query(params))),
    ]
    for other in others:
        assert not other.rewards.equal(first.rewards)


@pytest.mark.parametrize("together", [False, True])
def test_support_episodes_are_used_for_as_many_steps_as_asked(config: Config, together: bool) -> None:
    policy = fresh_policy(config)
    tasks = [replace(task, support_use=Support(2, uses=2)) for task in tasks_of(config, policy)]
    bundle = build_learner(config, policy, TASKS).bundle(tasks) if together else tasks[0]
    steps = []
    for step in range(4):
        params = {name: p + 0.1 * step for name, p in own(policy).items()}
        given = {name: p.expand(TASKS, *p.shape) for name, p in params.items()} if together else params
        steps.append(bundle.support(step, given).rewards)
    assert steps[0].equal(steps[1])
    assert steps[2].equal(steps[3])
    assert not steps[0].equal(steps[2])


@pytest.mark.parametrize("together", [False, True])
def test_remembered_episodes_are_those_of_all_steps_so_far(config: Config, together: bool) -> None:
    policy = fresh_policy(config)
    axis = 1 if together else 0

    def course(remembered: bool) -> list[Trajectories]:
        use = Support(2, uses=2, remembered=remembered)
        tasks = [replace(task, support_use=use, given=[], played=[]) for task in tasks_of(config, policy)]
        bundle = build_learner(config, policy, TASKS).bundle(tasks) if together else tasks[0]
        batches = []
        for step in range(6):
            params = {name: p + 0.1 * step for name, p in own(policy).items()}
            given = {name: p.expand(TASKS, *p.shape) for name, p in params.items()} if together else params
            bundle.query(given)  # asked for in between, it is no support
            batches.append(bundle.support(step, given))
        return batches

    newest, all_of_them = course(False), course(True)
    for step, batch in enumerate(all_of_them):
        so_far = [newest[played] for played in range(0, step + 1, 2)]
        expected = Trajectories(*(torch.cat(tensors, axis) for tensors in zip(*so_far, strict=True)))
        assert_same(batch, expected)


def test_batches_have_the_shapes_they_say(config: Config) -> None:
    policy = fresh_policy(config)
    task, params = tasks_of(config, policy)[0], own(policy)
    for batch, episodes in ((task.support(0, params), 2), (task.query(params), 3)):
        assert batch.observations.shape == (episodes, config.family.steps, policy.layout.size)
        assert batch.actions.shape[:2] == (episodes, config.family.steps)
        for tensor in (batch.log_probabilities, batch.rewards, batch.advantages, batch.targets):
            assert tensor.shape == (episodes, config.family.steps)
        torch.testing.assert_close(
            batch.log_probabilities, policy.log_probability(batch.observations, batch.actions).detach()
        )
        discount, scale = config.meta.discount, config.ppo.reward_scale
        left = torch.zeros(episodes)
        for step in reversed(range(config.family.steps)):
            left = scale * batch.rewards[:, step] + discount * left
            torch.testing.assert_close(batch.targets[:, step], left)


def test_playing_side_by_side_changes_nothing(config: Config) -> None:
    policy = fresh_policy(config)
    tasks = tasks_of(config, policy)
    learner = build_learner(config, policy, TASKS)
    bundle = learner.bundle(tasks)
    spread = {
        name: torch.stack([p + 0.1 * number for number in range(TASKS)]) for name, p in own(policy).items()
    }
    for step in (0, 1, None):
        together = bundle.query(spread) if step is None else bundle.support(step, spread)
        for number, task in enumerate(tasks):
            mine = {name: p[number] for name, p in spread.items()}
            alone = task.query(mine) if step is None else task.support(step, mine)
            assert_same(alone, Trajectories(*(tensor[number] for tensor in together)))


@pytest.mark.parametrize("algorithm", ["maml", "fomaml", "implicit_fomaml", "reptile"])
def test_several_clusters_at_once_give_the_gradient_of_one_after_another(
    config: Config, algorithm: str
) -> None:
    config = replace(config, meta=replace(config.meta, algorithm=algorithm, cg_steps=2))  # type: ignore[arg-type]
    policy = fresh_policy(config)
    strategy = build_strategy(config.meta, policy)
    learner = build_learner(config, policy, TASKS)
    together = strategy(learner, learner.bundle(tasks_of(config, policy)))
    one_by_one = [strategy(learner, learner.bundle([task])) for task in tasks_of(config, policy)]
    assert any(g.abs().max() > 1e-3 for g in together.gradient.values())
    for name, gradient in together.gradient.items():
        total = torch.stack([result.gradient[name] for result in one_by_one]).sum(0)
        torch.testing.assert_close(gradient, total, rtol=1e-4, atol=1e-5)
    for name, gradient in together.rate_gradient.items():
        total = torch.stack([result.rate_gradient[name] for result in one_by_one]).sum(0)
        torch.testing.assert_close(gradient, total, rtol=1e-4, atol=1e-5)
    for field in ("support_loss", "query_loss_before", "query_loss"):
        separate = torch.cat([getattr(result, field).reshape(-1) for result in one_by_one])
        torch.testing.assert_close(getattr(together, field).reshape(-1), separate, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("repeats", [1, 3])
def test_the_sampler_goes_on_where_it_was(config: Config, repeats: int) -> None:
    collector = build_collector(config, fresh_policy(config))

    def sampler() -> ClusterSampler:
        return ClusterSampler(config.family.split("train"), 2, 7, collector, 1, 1, repeats=repeats)

    def drawn(from_: ClusterSampler, steps: int) -> list[tuple[str, int]]:
        return [(task.name, task.seed) for _ in range(steps) for task in from_.sample()]  # type: ignore[attr-defined]

    whole = sampler()
    found = drawn(whole, 6)
    for steps in range(7):
        part, again = sampler(), sampler()
        first = drawn(part, steps)
        again.load_state_dict(part.state_dict())
        assert first + drawn(again, 6 - steps) == found
    # Two clusters a meta-batch, all of them new, each meta-batch as often as asked.
    batches = [found[2 * step : 2 * step + 2] for step in range(6)]
    assert all(batches[step] == batches[step - step % repeats] for step in range(6))
    assert len({name for name, _ in found}) == len({seed for _, seed in found}) == 12 // repeats


def test_a_meta_batch_that_is_used_again_gives_the_episodes_it_gave(config: Config) -> None:
    policy = fresh_policy(config)
    learner = build_learner(config, policy, TASKS)
    tasks = tasks_of(config, policy)
    here = {name: torch.stack([p] * TASKS) for name, p in own(policy).items()}
    there = {name: p + torch.randn_like(p) for name, p in here.items()}

    def asked(params: Params) -> list[Trajectories]:
        bundle = learner.bundle(tasks)
        return [bundle.support(0, params), bundle.support(1, params), bundle.query(params)]

    first, again = asked(here), asked(there)
    for one, other in zip(first, again, strict=True):
        assert all(left.equal(right) for left, right in zip(one, other, strict=True))
    anew = learner.bundle(tasks_of(config, policy)).support(0, there)
    assert not anew.actions.equal(first[0].actions)


def test_the_ledger_counts_control_steps(config: Config) -> None:
    policy = fresh_policy(config)
    learner = build_learner(config, policy, TASKS)
    strategy = build_strategy(config.meta, policy)
    assert isinstance(strategy, FirstOrder)
    assert not isinstance(strategy, Exact)
    strategy(learner, learner.bundle(tasks_of(config, policy)))
    support = config.meta.inner_steps * 2 * config.family.steps
    assert learner.ledger.units % (TASKS * config.family.steps) == 0
    assert learner.ledger.units >= TASKS * (support + 3 * config.family.steps)


def test_a_collector_is_what_the_settings_say(config: Config) -> None:
    collector = build_collector(config, fresh_policy(config))
    assert isinstance(collector, Collector)
    assert collector.control == config.control
    assert (collector.advantages.discount, collector.advantages.smoothing) == (0.8, 0.95)
