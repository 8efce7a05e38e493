"""Settings: packaged ones are sound, families take theirs, and what is wrong is refused where it stands."""

from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.rl.config import available_configs, config_from_dict, load_config, to_dict
from innerloop.rl.controls import BalancingControl, ScalingControl
from innerloop.rl.families import KubernetesScaling, LoadBalancing
from innerloop.rl.policy import PolicyShape


@pytest.mark.parametrize("name", available_configs())
def test_packaged_settings_are_sound(name: str) -> None:
    config = load_config(name)
    assert config.trainer.experiment_name == name
    assert name in (f"scaling_{config.meta.algorithm}", "scaling_told" if config.ppo.told else "scaling_ppo")
    assert config.family == KubernetesScaling()


def test_every_algorithm_has_packaged_settings() -> None:
    names = {f"scaling_{name}" for name in ("maml", "fomaml", "implicit_fomaml", "reptile", "ppo", "told")}
    assert set(available_configs()) == names


def test_the_family_takes_its_own_settings() -> None:
    words = ["family.max_pods=[4,8]", "family.cpu_requirement=[50, 60.5]", "family.seed=3"]
    config = load_config(None, None, words)
    assert config.family == KubernetesScaling(max_pods=(4, 8), cpu_requirement=(50.0, 60.5), seed=3)
    words = ["family.name=load_balancing", "family.traffic_pattern=[step]", "family.regions=[1,4]"]
    config = load_config(None, None, words)
    assert config.family == LoadBalancing(traffic_pattern=("step",), regions=(1, 4))


def test_a_file_goes_over_the_defaults_and_words_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("family: {name: load_balancing, max_pods: [2, 3]}\nppo: {clusters: 7, lr: 0.5}\n")
    config = load_config(None, file, ["ppo.lr=0.25"])
    assert config.family == LoadBalancing(max_pods=(2, 3))
    assert (config.ppo.clusters, config.ppo.lr) == (7, 0.25)


def test_the_family_decides_what_the_policy_is() -> None:
    words = ["policy.most=2", "policy.width=5", "policy.task_width=3", "policy.sharpness=1.5"]
    scaling = load_config(None, None, words)
    assert scaling.shape == PolicyShape("scaling", 5, 5, 3)
    assert scaling.control == ScalingControl(2)
    balancing = load_config(None, None, [*words, "family.name=load_balancing"])
    assert balancing.shape.kind == "balancing"
    assert balancing.control == BalancingControl(1.5)


@pytest.mark.parametrize("name", ["kubernetes_scaling", "load_balancing"])
def test_settings_come_back_from_plain_containers(name: str) -> None:
    config = load_config(None, None, [f"family.name={name}", "family.max_pods=[4,8]"])
    assert config_from_dict(to_dict(config), "somewhere") == config


@pytest.mark.parametrize(
    ("word", "line"),
    [
        (
            "family.name=scaling",
            "no family 'scaling'",
        ),
        ("family.max_pod=[4,8]", "max_pods"),
        ("family.max_pods=[8,4]", "max_pods must be [from, to], not [8, 4]"),
        ("family.max_pods=[0,4]", "family.max_pods"),
        ("family.max_pods=4", "family.max_pods"),
        ("family.traffic_pattern=[weekly]", "family.traffic_pattern"),
        ("family.interval=0", "family.interval"),
        ("meta.algorithm=mmaml", "meta.algorithm"),
        ("meta.inner_step=2", "inner_steps"),
        ("ppo.discount=1.5", "ppo.discount"),
        ("transfer.kind=freeze", "transfer.kind"),
        ("trainer.save_freq=0", "trainer.save_freq"),
        ("test.adaptation_episodes=[]", "test.adaptation_episodes"),
        ("polcy.width=3", "policy"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place(word: str, line: str) -> None:
    with pytest.raises(InputError) as refusal:
        load_config(None, None, [word])
    message = str(refusal.value)
    assert line in message
    assert "\n" not in message
    assert "command line" in message or message.startswith("family kubernetes_scaling")
