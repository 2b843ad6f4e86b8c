"""Reading requirement locks; a service that knows keys and the tokens of a real issuer."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from tunewheel_testing.oidc_issuer import Issuer

from .oidc_world import World

Pins = dict[tuple[str, str], set[str]]
_HASH = re.compile(r"--hash=(sha256:[0-9a-f]{64})")


def _read_lock(path: Path) -> Pins:
    """Return hashes by (name, pinned version)."""
    pins: Pins = {}
    for entry in path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines():
        if not entry.strip() or entry.startswith("#"):
            continue
        requirement = Requirement(entry.split(" --hash", 1)[0].strip())
        (specifier,) = requirement.specifier
        assert specifier.operator == "==", f"{path}: {requirement} is not pinned"
        key = (canonicalize_name(requirement.name), specifier.version)
        pins.setdefault(key, set()).update(_HASH.findall(entry))
    return pins


@pytest.fixture(scope="session")
def read_lock() -> Callable[[Path], Pins]:
    return _read_lock


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    with Issuer("ES256") as made:
        yield made


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys.yaml"
    keys = {"ada": {"sha256": hashlib.sha256(b"k-ada").hexdigest(), "roles": ["operator"]}}
    groups = {"support-leads": {"roles": ["reviewer"], "projects": ["desk"]}, "ml": {"roles": ["operator"]}}
    path.write_text(yaml.safe_dump({"keys": keys, "groups": groups}))
    return path


@pytest.fixture
def world(issuer: Issuer, key_file: Path) -> World:
    return World(issuer, key_file)
