"""Helm, the chart as it is packed, and a control plane."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tunewheel_testing.oci_registry import oci_registry

from .control_plane import BINARIES, ControlPlane
from .release import Published
from .tools import CRDS, HELM_FOLDER, TOOLS, run


def require(*names: str) -> None:
    """Skip what needs a binary that ``build.sh`` has not built."""
    missing = [name for name in names if not (TOOLS / name).exists()]
    if missing:
        pytest.skip(f"no {', '.join(missing)} in {TOOLS}: `make test-kube` builds them, with Go")


@pytest.fixture(scope="session")
def helm() -> str:
    require("helm", "kubeconform", "schemas")
    return str(TOOLS / "helm")


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane that knows the custom resources which the chart may use."""
    require(*BINARIES)
    with ControlPlane(TOOLS, tmp_path_factory.mktemp("plane")) as found:
        for path in sorted(CRDS.glob("*.yaml")):
            for definition in yaml.safe_load_all(path.read_text("utf-8")):
                found.define(definition)
        yield found


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart as it is packed, with a rule and a dashboard where the repository has none."""
    folder = tmp_path_factory.mktemp("chart")
    run(sys.executable, str(HELM_FOLDER / "generate.py"), "--pack", str(folder))
    packed = folder / "tunewheel"
    rule = {"groups": [{"name": "g", "rules": [{"alert": "A", "expr": "up == 0"}]}]}
    for name, content in (("rules/one.yml", rule), ("dashboards/one.json", {"title": "{{ label }}"})):
        place = packed / "observability" / name
        if not place.parent.is_dir():
            place.parent.mkdir(parents=True)
            place.write_text(json.dumps(content))
    return packed


@pytest.fixture(scope="session")
def published(helm: str, chart: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Published]:
    """The packed chart, pushed to a registry."""
    folder = tmp_path_factory.mktemp("registry")
    run(helm, "package", str(chart), "--destination", str(folder))
    (archive,) = folder.glob("tunewheel-*.tgz")
    with oci_registry(folder / "registry") as host:
        run(helm, "push", "--plain-http", str(archive), f"oci://{host}/wheels")
        version = archive.stem.removeprefix("tunewheel-")
        yield Published(f"oci://{host}/wheels/tunewheel", version)


@pytest.fixture(scope="session")
def core_schemas(helm: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of JSON Schemas of Kubernetes' own objects, which refuse unknown fields."""
    (found,) = (TOOLS / "schemas").rglob("v1.34.0-local-strict")
    folder = tmp_path_factory.mktemp("schemas")
    for path in found.glob("*.json"):
        # By their ids they would be looked for on the net.
        schema = json.loads(
            path.read_text("utf-8").replace('"/api/_definitions.json#', '"_definitions.json#')
        )
        schema.pop("$id", None)
        (folder / path.name).write_text(json.dumps(schema))
    return folder
