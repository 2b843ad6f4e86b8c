"""The chart installed on a control plane: what the server and its controllers make of a release.

Not part of ``make test``, hence the file's name.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from .chart import beside_the_gateway
from .control_plane import KWOK, SIMULATED, ControlPlane, until
from .pods import Material, container_of, path_of
from .release import SERVICES, Published, Release
from .tools import EXAMPLES

Releases = Callable[..., Release]


@pytest.fixture
def release(plane: ControlPlane, helm: str, chart: Path, request: pytest.FixtureRequest) -> Releases:
    def make(example: str, *more: Path, of: Published | Path = chart) -> Release:
        namespace = re.sub(r"[^a-z0-9]+", "-", request.node.name[5:45].lower()).strip("-")
        found = Release(plane, helm, of, EXAMPLES[example], f"{namespace}-{example}"[:63], *more).prepare()
        request.addfinalizer(found.remove)
        return found

    return make


KEPT = {
    "minimal": {("PersistentVolumeClaim", "wheel-tunewheel-store")},
    "one-gpu": {("PersistentVolumeClaim", "wheel-tunewheel-store")},
    # Completions that wait for Kafka may lie on them.
    "highly-available": {
        ("PersistentVolumeClaim", f"data-wheel-tunewheel-serve-gateway-{n}") for n in range(3)
    },
}
"""What an uninstall leaves, by example."""
OTHER_IMAGES = ("train-launcher", "cli")


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_release_is_installed_upgraded_rolled_back_and_uninstalled(
    plane: ControlPlane, release: Releases, published: Published, example: str, tmp_path: Path
) -> None:
    """From a registry, with the digests of the images beside it: ``make release REGISTRY=…`` writes both."""
    digests = {name: f"sha256:{sha256(name.encode()).hexdigest()}" for name in (*SERVICES, *OTHER_IMAGES)}
    images = tmp_path / "images.yaml"
    images.write_text(yaml.safe_dump({"image": {"repository": "registry/wheels", "digests": digests}}))
    wheel = release(example, images, of=published)
    before = everything_in(plane, wheel.namespace)
    wheel.helm("install", "--wait", "--timeout", "15m")
    wheel.until_available()
    first = wheel.templates()
    pinned = {f"registry/wheels/{name}@{digest}" for name, digest in digests.items()}
    for pod in wheel.pods():
        assert container_of(pod)["image"] in pinned
        material = Material(plane, wheel.namespace)
        material.environment(pod)
        for volume in pod["spec"]["volumes"]:
            material.files(pod, volume)
    wheel.helm("upgrade", "--set", "services.monitor.settings.clock_seconds=9")
    wheel.until_available()
    second = wheel.templates()
    assert {name for name in second if second[name] != first[name]} == {"monitor"}, (
        "only its settings changed"
    )
    wheel.helm("rollback")
    wheel.until_available()
    assert wheel.templates() == first
    wheel.helm("uninstall", "--wait", "--timeout", "15m")
    kept = KEPT.get(example) or {("KafkaTopic", name) for name in topics_of(plane, wheel.namespace)}
    assert kept
    until(lambda: everything_in(plane, wheel.namespace) - before == kept, f"the end of all but {kept}")


def test_projects_share_a_node_with_one_gpu_and_an_upgrade_needs_no_second(
    plane: ControlPlane, release: Releases, tmp_path: Path
) -> None:
    """Every pod is on the node of the size that docs/operations.md names; none waits for another GPU."""
    node = "one-gpu"
    room = {"cpu": "16", "memory": "64Gi", "pods": "110", "nvidia.com/gpu": "1"}
    there = {"nodeSelector": {"kubernetes.io/hostname": node}}
    values = tmp_path / "there.yaml"
    values.write_text(yaml.safe_dump({"services": dict.fromkeys(SERVICES, there)}))
    plane.add_node(node, KWOK, room=room)
    try:
        wheel = release("one-gpu", values)
        wheel.helm("install", "--wait", "--timeout", "15m")
        wheel.until_available()
        first = wheel.templates()
        assert {pod["spec"]["nodeName"] for pod in wheel.pods()} == {node}
        assert holders_of_gpus(wheel) == ["train"]
        # The pod that holds the GPU is made anew: it must go before the next one fits.
        wheel.helm(
            "upgrade", "--wait", "--timeout", "15m", "--set", "services.train.settings.train_threads=2"
        )
        wheel.until_available()
        second = wheel.templates()
        assert {name for name in second if second[name] != first[name]} == {"train"}
        assert holders_of_gpus(wheel) == ["train"]
        wheel.helm("uninstall", "--wait", "--timeout", "15m")
    finally:
        plane.delete(f"/api/v1/nodes/{node}")


def holders_of_gpus(release: Release) -> list[str]:
    """Return the service of each GPU that a pod holds."""
    found = ((one["name"], one["resources"]["limits"]) for one in map(container_of, release.pods()))
    return [name for name, limits in found for _ in range(int(limits.get("nvidia.com/gpu", 0)))]


def test_an_engine_moves_into_each_gateway_s_pod_by_an_upgrade(
    plane: ControlPlane, helm: str, chart: Path, release: Releases, tmp_path: Path
) -> None:
    """From a release whose values knew nothing of that, first as it is and then to the values of the page."""
    before = tmp_path / "tunewheel"
    shutil.copytree(chart, before)
    values = yaml.safe_load((chart / "values.yaml").read_text("utf-8"))
    del values["adapters"]["perPod"], values["image"]["digests"]
    (before / "values.yaml").write_text(yaml.safe_dump(values))
    wheel = release("minimal", of=before)
    wheel.helm("install", "--wait", "--timeout", "15m")
    wheel.until_available()
    first = wheel.templates()
    wheel = Release(plane, helm, chart, EXAMPLES["minimal"], wheel.namespace)
    wheel.helm("upgrade", "--reuse-values")
    wheel.until_available()
    assert wheel.templates() == first, "nothing starts anew for values that mean what they meant"
    bucket = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "wheel-store"}}
    plane.apply(f"/api/v1/namespaces/{wheel.namespace}/secrets", bucket)
    beside = tmp_path / "beside.yaml"
    beside.write_text(beside_the_gateway())
    wheel = Release(plane, helm, chart, EXAMPLES["minimal"], wheel.namespace, beside)
    wheel.helm("upgrade", "--wait", "--timeout", "15m", "--set", "services.serve-gateway.replicas=2")
    wheel.until_available()
    gateways = [pod for pod in wheel.pods() if container_of(pod)["name"] == "serve-gateway"]
    assert len({pod["metadata"]["name"] for pod in gateways}) == 2
    for pod in gateways:
        (engine,) = pod["spec"]["initContainers"]
        assert (engine["name"], engine["restartPolicy"]) == ("vllm", "Always")
        Material(plane, wheel.namespace).environment(pod)
        assert not [one for one in pod["spec"]["volumes"] if "persistentVolumeClaim" in one]
    engine = ("StatefulSet", "wheel-tunewheel-engine")
    adapters = ("PersistentVolumeClaim", "wheel-tunewheel-adapters")
    until(lambda: {engine, adapters}.isdisjoint(everything_in(plane, wheel.namespace)), "what nobody uses")
    store = ("PersistentVolumeClaim", "wheel-tunewheel-store")
    assert store in everything_in(plane, wheel.namespace), "it may be copied to the bucket"


def topics_of(plane: ControlPlane, namespace: str) -> set[str]:
    path = f"/apis/kafka.strimzi.io/v1/namespaces/{namespace}/kafkatopics"
    return {one["metadata"]["name"] for one in plane.items(path)}


def everything_in(plane: ControlPlane, namespace: str) -> set[tuple[str, str]]:
    """Return kind and name of all objects of a namespace but events."""
    groups = [group["preferredVersion"]["groupVersion"] for group in plane.get("/apis")["groups"]]
    found: set[tuple[str, str]] = set()
    for path in ("/api/v1", *(f"/apis/{group}" for group in groups)):
        for resource in plane.get(path)["resources"]:
            if resource["namespaced"] and "list" in resource["verbs"] and resource["kind"] != "Event":
                items = plane.items(f"{path}/namespaces/{namespace}/{resource['name']}")
                found |= {(resource["kind"], item["metadata"]["name"]) for item in items}
    return found


def test_a_rollout_whose_pods_do_not_get_ready_takes_no_replica_away(
    release: Releases, tmp_path: Path
) -> None:
    wheel = release("highly-available")
    wheel.helm("install", "--wait", "--timeout", "15m")
    wheel.until_available()
    nowhere = {"nodeSelector": {"there-is": "no-such-node"}}
    values = tmp_path / "values.yaml"
    values.write_text(yaml.safe_dump({"services": {"registry": nowhere, "eval": nowhere}}))
    wheel.helm("upgrade", "--values", str(values))

    def status(service: str) -> tuple[int, ...]:
        one = wheel.workload(service)
        if one["status"]["observedGeneration"] != one["metadata"]["generation"]:
            return ()
        return tuple(one["status"].get(name, 0) for name in ("availableReplicas", "updatedReplicas"))

    until(lambda: status("registry") == (2, 1), "the one new pod of two that serve")
    # No GPU is spare for a new pod beside the old ones.
    until(lambda: status("eval") == (1, 1), "the new pod in the place of one that served")
    assert {"wheel-tunewheel-train", "wheel-tunewheel-monitor"} <= wheel.available(), "nothing else changed"
    wheel.helm("rollback")
    wheel.until_available()


def test_a_drain_takes_one_pod_of_a_service_at_a_time(plane: ControlPlane, release: Releases) -> None:
    wheel = release("highly-available")
    wheel.helm("install", "--wait", "--timeout", "15m")
    wheel.until_available()
    budgets = f"/apis/policy/v1/namespaces/{wheel.namespace}/poddisruptionbudgets"
    until(
        lambda: all(one["status"].get("disruptionsAllowed") == 1 for one in plane.items(budgets)), "budgets"
    )
    guarded = {
        one["spec"]["selector"]["matchLabels"]["app.kubernetes.io/component"]: []
        for one in plane.items(budgets)
    }
    for pod in wheel.pods():
        guarded.get(pod["metadata"]["labels"]["app.kubernetes.io/component"], []).append(pod)
    several = {service: pods for service, pods in guarded.items() if len(pods) > 1}
    assert {"train", "registry", "serve-gateway", "monitor"} <= set(several)
    node = f"/api/v1/nodes/{SIMULATED}"
    plane.patch(node, {"spec": {"unschedulable": True}})
    try:
        for service, (first, second, *_) in several.items():
            assert evict(plane, first) == httpx.codes.CREATED, service
            assert evict(plane, second) == httpx.codes.TOO_MANY_REQUESTS, service
    finally:
        plane.patch(node, {"spec": {"unschedulable": False}})
    wheel.until_available()
    until(lambda: all(one["status"]["disruptionsAllowed"] == 1 for one in plane.items(budgets)), "budgets")
    for service, (_, second, *_) in several.items():
        assert evict(plane, second) == httpx.codes.CREATED, service


def evict(plane: ControlPlane, pod: dict[str, Any]) -> int:
    """Ask for the pod's end as ``kubectl drain`` does; return the answer's code."""
    name = {"name": pod["metadata"]["name"]}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": name}
    return plane.api.post(f"{path_of(pod)}/eviction", json=body).status_code
