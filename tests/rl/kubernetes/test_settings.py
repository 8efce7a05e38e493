"""Settings that no cluster could be asked for are refused in one line."""

import pytest

from innerloop.core.errors import InputError
from innerloop.rl.kubernetes import ClusterSettings


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"deployments": ()}, "list them"),
        ({"namespace": ""}, "no name of a namespace"),
        ({"namespace": "Shop"}, "no name of a namespace"),
        ({"deployments": ("shop/web",)}, "without the namespace in front"),
        ({"deployments": ("web", "web")}, "web is listed twice"),
        ({"min_replicas": 5, "max_replicas": 4}, "do not fit together"),
        ({"min_replicas": -1}, "do not fit together"),
        ({"min_replicas": 0, "max_replicas": 0}, "do not fit together"),
        ({"steps": 0}, "at least one step"),
        ({"retries": -1}, "retries is -1"),
        ({"interval": 0.0}, "interval is 0.0 s"),
        ({"timeout": float("nan")}, "timeout is nan s"),
        ({"threshold": float("inf")}, "threshold is inf s"),
        ({"refused_latency": -1.0}, "refused_latency is -1.0 s"),
        ({"regions": {"west": {"n1": -0.1}}}, "from region west to node n1"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        ClusterSettings(**({"namespace": "shop", "deployments": ("web",)} | changes))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
