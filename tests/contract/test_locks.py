"""One lock for the whole, a subset of it per service; nothing here needs the network."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"
PROJECTS = sorted(
    path.parent
    for pattern in ("*/pyproject.toml", "services/*/pyproject.toml")
    for path in ROOT.glob(pattern)
)
SERVICES = [path for path in PROJECTS if path.parent.name == "services"]
ALONE = [*SERVICES, ROOT / "cli"]
"""What is installed by itself, in an image, and has a lock for that."""
TORCH = {"torch", "peft", "trl", "bitsandbytes", "accelerate"}
"""Not transformers: its tokenizers and chat templates work without torch, and curate uses them."""
HEAVY = {"train", "eval", "engine"}
LAUNCHER = ROOT / "services/train/launcher.lock"
"""Of the train service whose runs are Jobs: without its extras."""
OF_IMAGES = [*(folder / "requirements.lock" for folder in ALONE), LAUNCHER]
Pins = dict[tuple[str, str], set[str]]
ReadLock = Callable[[Path], Pins]
REMEDY = "run scripts/lock.sh"


def _project(folder: Path) -> dict[str, Any]:
    return tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def _needed(folder: Path, extras: frozenset[str] = frozenset()) -> list[Requirement]:
    """Return what ``folder`` with these extras needs from outside the workspace, also through it."""
    by_name = {str(_project(path)["name"]): path for path in PROJECTS}
    project, found = _project(folder), list[Requirement]()
    texts = [
        *project["dependencies"],
        *(t for e in sorted(extras) for t in project["optional-dependencies"][e]),
    ]
    for requirement in map(Requirement, texts):
        inner = by_name.get(requirement.name)
        found += [requirement] if inner is None else _needed(inner, frozenset(requirement.extras))
    return found


def _named(lock: Path) -> str:
    return lock.parent.name if lock.stem == "requirements" else f"{lock.parent.name}-{lock.stem}"


def test_all_projects_are_seen() -> None:
    assert len(SERVICES) >= 9
    assert len(PROJECTS) >= 13


@pytest.mark.parametrize("lock", [LOCK, *OF_IMAGES], ids=_named)
def test_every_pin_is_hashed_and_no_workspace_package_is_pinned(lock: Path, read_lock: ReadLock) -> None:
    pins = read_lock(lock)
    assert len(pins) >= 30
    assert all(pins.values()), REMEDY
    assert not [name for name, _ in pins if name.startswith("tunewheel")]


@pytest.mark.parametrize("lock", OF_IMAGES, ids=_named)
def test_what_is_installed_alone_has_a_subset_of_the_whole_lock(lock: Path, read_lock: ReadLock) -> None:
    whole = read_lock(LOCK)
    differing = {pin for pin, hashes in read_lock(lock).items() if whole.get(pin) != hashes}
    assert not differing, f"{differing}; {REMEDY}"


@pytest.mark.parametrize("folder", PROJECTS, ids=lambda path: path.name)
def test_what_a_project_declares_is_locked(folder: Path, read_lock: ReadLock) -> None:
    locks = [LOCK, folder / "requirements.lock"] if folder in ALONE else [LOCK]
    needed = _needed(folder, frozenset(_project(folder).get("optional-dependencies", {})))
    assert needed
    for lock in locks:
        assert _lacking(needed, read_lock(lock)) == [], f"{lock}; {REMEDY}"


def test_the_launchers_lock_holds_what_the_service_needs_and_nothing_that_trains(read_lock: ReadLock) -> None:
    needed, pins = _needed(LAUNCHER.parent), read_lock(LAUNCHER)
    assert len(needed) > 10
    assert _lacking(needed, pins) == []
    assert {name for name, _ in pins} & (TORCH | {"transformers", "tokenizers", "datasets", "numpy"}) == set()
    whole = _needed(LAUNCHER.parent, frozenset({"worker"}))
    assert {"torch", "transformers", "trl"} <= {one.name for one in _lacking(whole, pins)}


def _lacking(needed: list[Requirement], pins: Pins) -> list[Requirement]:
    versions: dict[str, set[str]] = {}
    for name, version in pins:
        versions.setdefault(name, set()).add(version)
    return [
        requirement
        for requirement in needed
        if not _satisfied(requirement.specifier, versions.get(canonicalize_name(requirement.name), set()))
    ]


def _satisfied(specifier: SpecifierSet, versions: set[str]) -> bool:
    return bool(versions) and all(specifier.contains(version, prereleases=True) for version in versions)


@pytest.mark.parametrize("folder", ALONE, ids=lambda path: path.name)
def test_only_what_trains_or_infers_locks_torch(folder: Path, read_lock: ReadLock) -> None:
    names = {name for name, _ in read_lock(folder / "requirements.lock")}
    assert bool(names & TORCH) is (folder.name in HEAVY)


def test_an_extra_of_a_workspace_package_counts() -> None:
    heavy = {requirement.name for requirement in _needed(ROOT / "services" / "engine")}
    light = {requirement.name for requirement in _needed(ROOT / "services" / "curate")}
    assert "torch" in heavy - light
    assert "transformers" in heavy & light


def test_a_foreign_pin_is_noticed(tmp_path: Path, read_lock: ReadLock) -> None:
    lock = tmp_path / "requirements.lock"
    lock.write_text(f"pydantic==0.0.1 \\\n    --hash=sha256:{'0' * 64}\n")
    assert set(read_lock(lock)) == {("pydantic", "0.0.1")}
    assert not set(read_lock(lock)) & set(read_lock(LOCK))
