"""Every service folder has what its reader and its image need."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from tunewheel_contracts import topics
from tunewheel_contracts.topics import TOPICS, TopicSpec
from tunewheel_registry.lineage.index import TOPICS as LINEAGE
from tunewheel_wheel import facts

ROOT = Path(__file__).resolve().parents[2]
SERVICES = sorted(path.parent for path in ROOT.glob("services/*/pyproject.toml"))


def _package(service: Path) -> Path:
    return service / "src" / f"tunewheel_{service.name.replace('-', '_')}"


def _text(path: Path) -> str:
    assert path.is_file(), f"{path.relative_to(ROOT)} is missing"
    return path.read_text(encoding="utf-8")


def _begun(service: Path) -> Path:
    """Return the service's package; skip where it has no entry point yet."""
    package = _package(service)
    if not (package / "main.py").is_file():
        pytest.skip(f"{service.name} has no main.py yet")
    return package


def test_all_services_are_seen() -> None:
    names = {path.name for path in SERVICES}
    on_the_bus = {name for spec in TOPICS for name in (*spec.producers, *spec.consumers)}
    assert names == (on_the_bus - {"upstream", "cli"}) | {"engine"}
    assert len(names) >= 9


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_a_service_has_its_files(service: Path) -> None:
    package = _begun(service)
    for name in ("README.md", "requirements.lock"):
        assert (service / name).is_file(), f"services/{service.name}/{name} is missing"
    for name in ("settings.py", "main.py"):
        assert (package / name).is_file(), f"{package.name}/{name} is missing"
    assert list((service / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_a_service_is_named_and_started_like_the_others(service: Path) -> None:
    project = tomllib.loads((service / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["name"] == f"tunewheel-{service.name}"
    scripts = project["scripts"]
    assert scripts.pop(project["name"]) == f"{_package(service).name}.main:main"
    assert all(name.startswith(f"{project['name']}-") for name in scripts), "are named after the service"


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_the_readme_names_what_the_service_consumes_and_produces(service: Path) -> None:
    _begun(service)
    text = _text(service / "README.md")
    topics = [spec.name for spec in TOPICS if service.name in (*spec.producers, *spec.consumers)]
    missing = [name for name in topics if f"`{name}`" not in text]
    assert not missing, f"services/{service.name}/README.md does not name {missing}"


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_a_service_reads_the_topics_that_name_it_as_a_consumer(service: Path) -> None:
    """Operators give rights by these names. The console, which reads nearly all, is named nowhere."""
    constants = {name: value.name for name, value in vars(topics).items() if isinstance(value, TopicSpec)}
    assert len(constants) == len(TOPICS)
    source = "\n".join(path.read_text(encoding="utf-8") for path in (service / "src").rglob("*.py"))
    read = {constants[word] for word in re.findall(r"\b[A-Z]+_[A-Z]+\b", source) if word in constants}
    for name, group in (("TURNS", facts.TURNS), ("ALARMS", facts.ALARMS)):
        if re.search(rf"from tunewheel_wheel.facts import .*\b{name}\b", source):
            read |= {spec.name for spec in group}
    if service.name == "registry":  # the graph names events, not their topics
        read |= {spec.name for spec in LINEAGE}
    consumed = {spec.name for spec in TOPICS if service.name in spec.consumers}
    assert consumed == (set() if service.name == "console" else read)
