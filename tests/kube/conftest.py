"""Helm, and the chart as it is packed."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest

from .tools import HELM_FOLDER, HERE, TOOLS, run


@pytest.fixture(scope="session")
def helm() -> str:
    if not all((TOOLS / name).exists() for name in ("helm", "kubeconform", "schemas")):
        if shutil.which("go") is None:
            pytest.skip(f"neither helm and kubeconform in {TOOLS}, nor Go to build them with")
        run("bash", str(HERE / "build.sh"), str(TOOLS))
    return str(TOOLS / "helm")


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
