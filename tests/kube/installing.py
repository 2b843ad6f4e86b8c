"""The chart installed on a control plane: what the server and its controllers make of a release.

Not part of ``make test``, hence the file's name.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from .control_plane import ControlPlane, until
from .pods import Material
from .release import Release, make_release
from .tools import EXAMPLES

Releases = Callable[..., Release]


@pytest.fixture
def release(plane: ControlPlane, helm: str, chart: Path, request: pytest.FixtureRequest) -> Releases:
    def make(example: str) -> Release:
        namespace = re.sub(r"[^a-z0-9]+", "-", request.node.name[5:45].lower()).strip("-")
        found = make_release(plane, helm, chart, EXAMPLES[example], f"{namespace}-{example}"[:63])
        request.addfinalizer(found.remove)
        return found

    return make


KEPT = {
    "minimal": {("PersistentVolumeClaim", "wheel-tunewheel-store")},
    # Completions that wait for Kafka may lie on them.
    "highly-available": {
        ("PersistentVolumeClaim", f"data-wheel-tunewheel-serve-gateway-{n}") for n in range(3)
    },
}
"""What an uninstall leaves, by example."""


@pytest.mark.parametrize("example", EXAMPLES)
def test_a_release_is_installed_upgraded_rolled_back_and_uninstalled(
    plane: ControlPlane, release: Releases, example: str
) -> None:
    wheel = release(example)
    before = everything_in(plane, wheel.namespace)
    wheel.helm("install", "--wait", "--timeout", "3m")
    wheel.until_available()
    first = wheel.templates()
    for pod in wheel.pods():
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
    wheel.helm("uninstall", "--wait", "--timeout", "3m")
    kept = KEPT.get(example) or {("KafkaTopic", name) for name in topics_of(plane, wheel.namespace)}
    assert kept
    until(lambda: everything_in(plane, wheel.namespace) - before == kept, f"the end of all but {kept}")


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
