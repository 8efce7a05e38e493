"""What an API server may answer, and the one line that comes of it; no control plane is needed."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from innerloop.core.errors import InputError
from innerloop.rl.kubernetes import ClusterError, ClusterSettings
from innerloop.rl.kubernetes.api import KubernetesApi
from rl.kubernetes.fake_server import Answer, FakeServer, refusal

NODES, PODS = "/api/v1/nodes", "/api/v1/namespaces/shop/pods"
DEPLOYMENT = "/apis/apps/v1/namespaces/shop/deployments/web"
SCALE = f"{DEPLOYMENT}/scale"


def scale(replicas: int, version: str = "1") -> dict[str, object]:
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {"name": "web", "namespace": "shop", "resourceVersion": version},
        "spec": {"replicas": replicas},
        "status": {"replicas": replicas},
    }


def pods(*names: str, following: str = "") -> dict[str, object]:
    items = [{"metadata": {"name": name}} for name in names]
    return {"kind": "PodList", "apiVersion": "v1", "metadata": {"continue": following}, "items": items}


class Served:
    """The API under test, in front of a server that answers as told."""

    def __init__(self, server: FakeServer, folder: Path) -> None:
        self.server, self._folder = server, folder
        self.pauses: list[float] = []

    def api(self, **changes: object) -> KubernetesApi:
        values: dict[str, object] = {
            "namespace": "shop",
            "deployments": ("web",),
            "kubeconfig": self.server.kubeconfig(self._folder),
            "retries": 2,
            "timeout": 5.0,
        }
        return KubernetesApi(ClusterSettings(**(values | changes)), self.pauses.append)  # type: ignore[arg-type]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with FakeServer() as server:
        yield Served(server, tmp_path)


def test_forbidden_names_the_permission_that_is_missing(served: Served) -> None:
    served.server.answers[f"GET {PODS}"] = [refusal(403, 'User "u" cannot list resource "pods"')]
    with pytest.raises(ClusterError) as caught:
        served.api().pods()
    said = str(caught.value)
    assert served.server.url in said
    assert 'User "u" cannot list' in said
    assert 'grant verb list on resource pods of API group ""' in said
    assert len(served.server.asked) == 1  # asking again would not help
    served.server.answers[f"GET {SCALE}"] = [Answer(scale(1))]
    served.server.answers[f"PUT {SCALE}"] = [refusal(403, "no")]
    with pytest.raises(ClusterError, match='update on resource deployments/scale of API group "apps"'):
        served.api().scale("web", 3)


@pytest.mark.parametrize("trouble", [refusal(503, "starting"), refusal(429, "slow"), Answer(breaks=True)])
def test_a_passing_trouble_is_waited_out(served: Served, trouble: Answer) -> None:
    served.server.answers[f"GET {PODS}"] = [trouble, trouble, Answer(pods("a"))]
    assert [pod.metadata.name for pod in served.api().pods()] == ["a"]
    assert served.pauses == [0.1, 0.2]


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        (refusal(500, "etcd is\naway"), r"in trouble \(to list pods in namespace shop\): 500 etcd is away"),
        (Answer("<html>Bad Gateway</html>", 502), "502 <html>Bad Gateway</html>"),
        (Answer(breaks=True), "cannot reach http.*check that the cluster is up and that kubeconfig"),
    ],
)
def test_a_trouble_that_stays_is_told(served: Served, trouble: Answer, says: str) -> None:
    served.server.answers[f"GET {PODS}"] = [trouble]
    with pytest.raises(ClusterError, match=says) as caught:
        served.api().pods()
    assert "\n" not in str(caught.value)
    assert len(served.server.asked) == 3


def test_a_host_that_is_not_known_is_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> object:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(ClusterError, match=r"cannot reach http.*Name or service not known"):
        served.api(retries=0).nodes()


def test_no_answer_within_the_timeout_is_told(served: Served) -> None:
    served.server.answers[f"GET {NODES}"] = [Answer(waits=True)]
    with pytest.raises(ClusterError, match=r"no answer from .* in time \(to list nodes in the cluster\)"):
        served.api(timeout=0.2, retries=0).nodes()


def test_a_server_that_is_not_kubernetes_is_told(served: Served) -> None:
    served.server.answers[f"GET {NODES}"] = [Answer("<html>Welcome</html>")]
    with pytest.raises(ClusterError, match="does not answer as Kubernetes does"):
        served.api().nodes()


def test_a_refused_value_is_told(served: Served) -> None:
    served.server.answers[f"GET {SCALE}"] = [Answer(scale(1))]
    served.server.answers[f"PUT {SCALE}"] = [refusal(422, "spec.replicas: Invalid value")]
    with pytest.raises(ClusterError, match=r"refuses to update .* 422 spec.replicas: Invalid"):
        served.api().scale("web", 3)


def test_a_list_is_read_page_by_page(served: Served) -> None:
    served.server.answers[f"GET {PODS}"] = [Answer(pods("a", "b", following="more")), Answer(pods("c"))]
    assert [pod.metadata.name for pod in served.api().pods()] == ["a", "b", "c"]
    assert [asked.query.get("continue") for asked in served.server.asked] == [None, "more"]


def test_a_scale_is_written_over_the_version_that_was_read(served: Served) -> None:
    conflict = refusal(409, "the object has been modified")
    served.server.answers[f"GET {SCALE}"] = [Answer(scale(1, "7")), Answer(scale(2, "8"))]
    served.server.answers[f"PUT {SCALE}"] = [conflict, Answer(scale(5))]
    served.api().scale("web", 5)
    written = [asked.body for asked in served.server.asked if asked.method == "PUT"]
    assert [body["metadata"]["resourceVersion"] for body in written] == ["7", "8"]  # type: ignore[index]
    assert [body["spec"]["replicas"] for body in written] == [5, 5]  # type: ignore[index]


def test_replicas_that_are_as_they_should_be_are_not_written(served: Served) -> None:
    served.server.answers[f"GET {SCALE}"] = [Answer(scale(0) | {"spec": {}})]  # the server leaves out a 0
    served.api(min_replicas=0).scale("web", 0)
    assert [asked.method for asked in served.server.asked] == ["GET"]


@pytest.mark.parametrize("dry_run", [True, False])
def test_a_dry_run_is_left_to_the_server(served: Served, dry_run: bool) -> None:
    served.server.answers |= {f"GET {SCALE}": [Answer(scale(1))], f"PUT {SCALE}": [Answer(scale(2))]}
    served.api(dry_run=dry_run).scale("web", 2)
    assert served.server.asked[-1].query == ({"dryRun": "All"} if dry_run else {})
    served.api().check_scale("web")
    assert served.server.asked[-1].method == "PUT"
    assert served.server.asked[-1].query == {"dryRun": "All"}


def test_what_is_not_listed_is_refused_before_anything_is_asked(served: Served) -> None:
    with pytest.raises(InputError, match="deployment db in namespace shop is not listed"):
        served.api().scale("db", 0)
    assert served.server.asked == []


# How a cluster is found


@pytest.fixture
def homeless(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def test_no_cluster_at_all_is_told(homeless: Path) -> None:
    with pytest.raises(InputError, match="set KUBECONFIG or kubeconfig"):
        KubernetesApi(ClusterSettings("shop", ("web",)))


def test_the_environment_names_the_cluster(
    homeless: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(served.server.kubeconfig(homeless)))
    assert KubernetesApi(ClusterSettings("shop", ("web",))).server == served.server.url
    (homeless / ".kube").mkdir()
    monkeypatch.delenv("KUBECONFIG")
    served.server.kubeconfig(homeless / ".kube")
    assert KubernetesApi(ClusterSettings("shop", ("web",))).server == served.server.url


def test_inside_a_pod_its_service_account_is_used(
    homeless: Path, served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubernetes.config import incluster_config as in_cluster

    token, certificate = homeless / "token", homeless / "ca.crt"
    token.write_text("secret")
    certificate.write_text("certificate")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    load = in_cluster.InClusterConfigLoader

    def from_here(**_: object) -> object:
        return load(token_filename=str(token), cert_filename=str(certificate))

    monkeypatch.setattr(in_cluster, "InClusterConfigLoader", from_here)
    assert KubernetesApi(ClusterSettings("shop", ("web",))).server == "https://127.0.0.1:443"


@pytest.mark.parametrize("text", [None, "", "a: [", "just words", "clusters: []", "current-context: x"])
def test_a_kubeconfig_that_cannot_be_used_is_named(homeless: Path, text: str | None) -> None:
    path = homeless / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=f"cannot use the kubeconfig {path}") as caught:
        KubernetesApi(ClusterSettings("shop", ("web",), kubeconfig=path))
    assert "\n" not in str(caught.value)


def test_a_context_that_is_not_there_is_named(served: Served) -> None:
    with pytest.raises(InputError, match="elsewhere"):
        served.api(context="elsewhere")
    assert served.api(context="x").server == served.server.url
