"""A policy trained in the simulator, used on a real control plane as it is."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from innerloop.cli.main import main
from innerloop.core.errors import InputError, Interrupted
from innerloop.rl.artifacts import Artifact, Training, fresh_policy, load_artifact
from innerloop.rl.config import load_config
from innerloop.rl.controls import ScalingControl
from innerloop.rl.live import Step, run_on_cluster, write_course
from innerloop.rl.observation import Layout
from innerloop.rl.policy import ClusterPolicy
from innerloop.rl.ppo_run import train
from innerloop.rl.rollout import play, silence
from innerloop.rl.simulator import Scenario
from rl.kubernetes.fake_server import Answer, FakeServer
from rl.kubernetes.scenarios import one_node
from rl.kubernetes.world import World

MakeWorld = Callable[[Scenario], World]

pytestmark = pytest.mark.filterwarnings("ignore:Unverified HTTPS request")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    overrides = [
        f"trainer.default_local_dir={folder}",
        "trainer.total_steps=3",
        "trainer.logger=[]",
        "ppo.clusters=8",
        "ppo.lr=0.01",
    ]
    return train(load_config(None, None, overrides)).checkpoint


@pytest.fixture
def trained(model: Path) -> Artifact:
    return load_artifact(model)


@pytest.fixture
def restless(trained: Artifact) -> Artifact:
    """The trained policy, its last layer so large that what it does hangs on what it sees."""
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(2)
        torch.nn.init.normal_(trained.policy.actor[-1].weight, std=3.0)
    return trained


@pytest.fixture
def prometheus() -> Iterator[FakeServer]:
    """A server that knows of nothing: every query finds no series."""
    with FakeServer() as server:
        nothing = {"status": "success", "data": {"resultType": "vector", "result": []}}
        server.answers["GET /api/v1/query"] = [Answer(nothing)]
        yield server


@pytest.mark.parametrize("which", ["trained", "restless"])
def test_it_does_there_what_it_does_in_the_simulator(
    make_world: MakeWorld, request: pytest.FixtureRequest, which: str, tmp_path: Path
) -> None:
    artifact: Artifact = request.getfixturevalue(which)
    scenario = one_node()
    layout = Layout(2, 1)
    policy = ClusterPolicy(artifact.config.shape, layout)
    policy.load_state_dict(artifact.policy.state_dict())
    control = ScalingControl(artifact.config.policy.most)
    played = play(policy, [scenario], [0], control, layout, silence(policy, 1, scenario.steps))

    world = make_world(scenario)
    told: list[Step] = []
    course = run_on_cluster(
        artifact,
        world.settings(),
        world.metrics,
        told.append,
        clock=lambda: world.kubelet.now,
        sleep=world.wait,
    )
    assert [step.reward for step in course.steps] == pytest.approx(played.rewards[0].tolist(), rel=1e-5)
    assert tuple(told) == course.steps
    assert course.failed == ()
    asked = {tuple(step.deployments.values()) for step in course.steps}
    assert asked != {(2, 1)}  # it scaled
    if which == "restless":
        assert len(asked) > 2
    assert [world.replicas(name) for name in world.names] == [2, 1]  # and put back what it found
    lines = write_course(tmp_path, course).read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [step.number for step in course.steps]


def test_a_policy_that_spreads_traffic_is_refused(make_world: MakeWorld) -> None:
    config = load_config(None, None, ["family.name=load_balancing"])
    balancing = Artifact(fresh_policy(config), {}, config, Training("ppo", 0, 0, 0.0))
    world = make_world(one_node())
    with pytest.raises(InputError, match="scaling family"):
        run_on_cluster(balancing, world.settings(), world.metrics, lambda _: None)


def test_the_policy_is_not_changed_by_acting(make_world: MakeWorld, trained: Artifact) -> None:
    before = {name: p.clone() for name, p in trained.policy.state_dict().items()}
    world = make_world(one_node())
    run_on_cluster(
        trained,
        world.settings(steps=2),
        world.metrics,
        lambda _: None,
        clock=lambda: world.kubelet.now,
        sleep=world.wait,
    )
    assert all(torch.equal(before[name], p) for name, p in trained.policy.state_dict().items())


def test_a_stop_signal_ends_the_episode_and_puts_back_what_was_found(
    make_world: MakeWorld, trained: Artifact
) -> None:
    world = make_world(one_node())
    told: list[Step] = []

    def tell(step: Step) -> None:
        told.append(step)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM"):
        run_on_cluster(
            trained,
            world.settings(),
            world.metrics,
            tell,
            clock=lambda: world.kubelet.now,
            sleep=world.wait,
        )
    assert len(told) == 1
    assert [world.replicas(name) for name in world.names] == [2, 1]


def command(world: World, model: Path, folder: Path, *words: str) -> list[str]:
    return [
        *("rl", "run", "--model-path", str(model), "--output-dir", str(folder)),
        *("--namespace", world.namespace, "--deployments", *world.names),
        *("--kubeconfig", str(world.kubeconfig), "--node-selector", world.settings().node_selector),
        *("--steps", "2", "--interval", "0.1", *words),
    ]


def test_the_command_scales_tells_and_keeps(
    make_world: MakeWorld,
    model: Path,
    prometheus: FakeServer,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    world = make_world(one_node())
    words = ["--prometheus", prometheus.url, "--replicas", "3", "5", "--keep"]
    assert main(command(world, model, tmp_path, *words)) == 0
    seen = capsys.readouterr()
    assert [line.split("  ")[0] for line in seen.err.splitlines()] == ["step 1/2", "step 2/2"]
    steps = [json.loads(line) for line in (tmp_path / "course.jsonl").read_text().splitlines()]
    asked = steps[-1]["deployments"]
    # Between the least and the most, whatever the policy wants; and left so.
    assert all(3 <= count <= 5 for count in asked.values())
    assert [world.replicas(name) for name in world.names] == list(asked.values())
    assert f"course: {tmp_path / 'course.jsonl'}" in seen.out


def test_the_command_says_what_is_missing_and_changes_nothing(
    make_world: MakeWorld, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    world = make_world(one_node())
    # The control plane has no metrics server.
    assert main(command(world, model, tmp_path)) in (1, 2)
    assert "metrics" in capsys.readouterr().err
    assert [world.replicas(name) for name in world.names] == [2, 1]
    assert not (tmp_path / "course.jsonl").exists()
