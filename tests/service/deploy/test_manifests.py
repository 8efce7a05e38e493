"""Kubernetes takes the manifests, and what they say of the service is so."""

import json
import re
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from kubernetes import client
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import DynamicApiError

from innerloop.service.api.guard import OPEN_PATHS
from innerloop.service.work.settings import WorkerSettings
from service.deploy.files import (
    DEPLOY,
    KUBERNETES,
    ROOT,
    Resource,
    find,
    image_environment,
    kustomization,
    resources,
)

FOLDERS = [KUBERNETES, KUBERNETES / "policy"]
SECRET: Resource = yaml.safe_load((KUBERNETES / "secret.example.yaml").read_text())
ALL = [*resources(KUBERNETES), *resources(KUBERNETES / "policy"), SECRET]
DEPLOYMENTS = [resource for resource in ALL if resource["kind"] == "Deployment"]
GRACE = WorkerSettings("any", Path()).grace


def named(resource: Resource) -> str:
    return f"{resource['kind']}-{resource['metadata']['name']}"


def pod(deployment: Resource) -> dict[str, Any]:
    spec: dict[str, Any] = deployment["spec"]["template"]["spec"]
    return spec


def container(deployment: Resource) -> dict[str, Any]:
    (only,) = pod(deployment)["containers"]
    found: dict[str, Any] = only
    return found


# The files


def test_the_files_are_linted() -> None:
    command = [sys.executable, "-m", "yamllint", "--strict", "--config-file", str(DEPLOY / ".yamllint.yaml")]
    found = subprocess.run([*command, str(KUBERNETES)], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_every_file_is_named_once(folder: Path) -> None:
    besides = {"kustomization.yaml", "secret.example.yaml"}
    there = {path.name for path in folder.glob("*.yaml")} - besides
    assert sorted(kustomization(folder)["resources"]) == sorted(there)


@pytest.mark.parametrize("resource", ALL, ids=named)
def test_a_resource_meets_the_schema(resource: Resource) -> None:
    kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_kustomize_renders_them(folder: Path) -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not installed")
    found = subprocess.run(["kubectl", "kustomize", str(folder)], capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    rendered = list(yaml.safe_load_all(found.stdout))
    assert sorted(map(named, rendered)) == sorted(map(named, resources(folder)))
    images = [container(r)["image"] for r in rendered if r["kind"] == "Deployment"]
    assert all(image == "registry.example.org/innerloop:0.1.0" for image in images)


# The server


@pytest.fixture
def namespaces(admin: client.ApiClient) -> Iterator[dict[str, str]]:
    """Fresh namespaces in place of the manifests': a dry run makes none to put things in."""
    core, end = client.CoreV1Api(admin), secrets.token_hex(4)
    made = {name: f"innerloop-deploy-{name}-{end}" for name in ("innerloop", "shop")}
    for name in made.values():
        core.create_namespace(client.V1Namespace(metadata=client.V1ObjectMeta(name=name)))
    yield made
    for name in made.values():
        core.delete_namespace(name)


def moved(resource: Resource, namespaces: dict[str, str]) -> Resource:
    """The resource in a namespace of the test."""
    text = json.dumps(resource)
    for name, other in namespaces.items():
        text = text.replace(f'"namespace": "{name}"', f'"namespace": "{other}"')
    found: Resource = json.loads(text)
    return found


def test_a_server_takes_them_all(admin: client.ApiClient, namespaces: dict[str, str], tmp_path: Path) -> None:
    server = DynamicClient(admin, cache_file=str(tmp_path / "discovery"))
    refused = []
    for resource in ALL:
        body = moved(resource, namespaces)
        if body["kind"] == "Namespace":
            body["metadata"]["name"] += f"-{secrets.token_hex(4)}"
        api = server.resources.get(api_version=body["apiVersion"], kind=body["kind"])
        where = body["metadata"].get("namespace")
        try:
            made = server.create(api, body=body, namespace=where, dry_run="All")
        except DynamicApiError as error:
            refused.append(f"{named(resource)}: {error.body}")
        else:
            assert made.metadata.name == body["metadata"]["name"]
    assert not refused


def test_a_server_refuses_what_is_wrong(
    admin: client.ApiClient, namespaces: dict[str, str], tmp_path: Path
) -> None:
    """The dry run above is one that looks."""
    server = DynamicClient(admin, cache_file=str(tmp_path / "discovery"))
    body = moved(find("Deployment", "innerloop"), namespaces)
    body["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"] = "other"
    api = server.resources.get(api_version="apps/v1", kind="Deployment")
    with pytest.raises(DynamicApiError, match="does not match template"):
        server.create(api, body=body, namespace=namespaces["innerloop"], dry_run="All")


# What they say


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=named)
def test_a_pod_is_confined(deployment: Resource) -> None:
    spec, inside = pod(deployment), container(deployment)
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inside["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"requests", "limits"} <= inside["resources"].keys()


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=named)
def test_all_that_is_written_lies_on_a_volume(deployment: Resource) -> None:
    mounted = {mount["mountPath"]: mount["name"] for mount in container(deployment)["volumeMounts"]}
    assert mounted == {"/var/lib/innerloop": "home", "/tmp": "tmp"}
    volumes = {volume["name"]: volume for volume in pod(deployment)["volumes"]}
    claim = find("PersistentVolumeClaim", volumes["home"]["persistentVolumeClaim"]["claimName"])
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    told = image_environment() | find("ConfigMap", "innerloop")["data"]
    for variable in ("INNERLOOP_HOME", "INNERLOOP_CACHE", "MPLCONFIGDIR"):
        assert told[variable].startswith(tuple(mounted)), variable


def test_the_pods_run_as_the_image_does() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    (user,) = re.findall(r"^USER (\d+):\d+$", text, re.MULTILINE)
    assert {pod(deployment)["securityContext"]["runAsUser"] for deployment in DEPLOYMENTS} == {int(user)}


def test_a_job_has_the_time_to_be_saved() -> None:
    assert pod(find("Deployment", "innerloop-worker"))["terminationGracePeriodSeconds"] > GRACE + 10


def test_the_probes_ask_what_needs_no_token() -> None:
    inside = container(find("Deployment", "innerloop"))
    paths = {name: inside[name]["httpGet"]["path"] for name in inside if name.endswith("Probe")}
    assert {*paths.values()} <= {*OPEN_PATHS}
    assert paths["readinessProbe"] == "/healthz"
    # A service without its database must not be started again and again.
    assert paths["livenessProbe"] != "/healthz"


def test_the_parts_find_each_other() -> None:
    service, deployment = find("Service", "innerloop"), find("Deployment", "innerloop")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    (port,) = container(deployment)["ports"]
    assert str(port["containerPort"]) == find("ConfigMap", "innerloop")["data"]["INNERLOOP_PORT"]
    assert [entry["targetPort"] for entry in service["spec"]["ports"]] == [port["name"]]
    policy = find("NetworkPolicy", "innerloop-service")["spec"]
    assert policy["podSelector"]["matchLabels"].items() <= labels.items()
    assert [entry["port"] for entry in policy["ingress"][0]["ports"]] == [port["name"]]
    for made in DEPLOYMENTS:
        assert container(made)["envFrom"] == [
            {"configMapRef": {"name": "innerloop"}},
            {"secretRef": {"name": SECRET["metadata"]["name"]}},
        ]


def test_the_secret_stays_out_of_what_is_applied() -> None:
    assert not [resource for resource in resources(KUBERNETES) if resource["kind"] == "Secret"]
    assert SECRET["stringData"]["INNERLOOP_TOKEN"] == ""


def test_a_policy_may_do_what_it_does_and_no_more() -> None:
    """The roles are the requests that the code names."""
    code = (ROOT / "src/innerloop/rl/kubernetes/api.py").read_text()
    asked = set(re.findall(r'Request\("(\w+)", "([\w/]+)", "([\w.]*)"', code))
    roles = [r for r in resources(KUBERNETES / "policy") if r["kind"] in ("Role", "ClusterRole")]
    granted = {
        (verb, resource, group)
        for role in roles
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert granted == asked
