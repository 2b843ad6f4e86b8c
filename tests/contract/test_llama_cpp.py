"""Who asks for llama.cpp on a machine without compilers is told what to install; other targets go on."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ("bash", "sh", "make", "dirname", "mkdir", "ls", "sed", "env", "true")
"""What the targets themselves run."""


@pytest.fixture
def make(tmp_path: Path):
    """Run make on a machine that has ``compilers``."""

    def run(*arguments: str, compilers: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        programs = tmp_path / "bin"
        programs.mkdir()
        for name in TOOLS:
            (programs / name).symlink_to(str(shutil.which(name)))
        for name in compilers:
            (programs / name).symlink_to(str(shutil.which("true")))
        command = ["make", "--no-print-directory", *arguments, "UV=true", f"LLAMA_CPP={tmp_path / 'built'}"]
        return subprocess.run(
            command, cwd=ROOT, env={"PATH": str(programs), "HOME": os.environ.get("HOME", "/")},
            capture_output=True, text=True, check=False,
        )  # fmt: skip

    return run


@pytest.mark.parametrize(("compilers", "lacking"), [((), "cc"), (("cc",), "c++"), (("c++",), "cc")])
def test_without_a_compiler_nothing_is_built_and_it_is_told_what_to_install(
    make, tmp_path: Path, compilers: tuple[str, ...], lacking: str
) -> None:
    done = make("llama-cpp", compilers=compilers)
    assert done.returncode != 0
    assert f"{lacking} is not here: apt-get install g++" in done.stderr
    assert list((tmp_path / "built").iterdir()) == []


@pytest.mark.parametrize(
    ("compilers", "part", "is_built"),
    [((), "gguf", False), (("cc", "c++"), "gguf", True), (("cc", "c++"), "paths", False)],
)
def test_the_nightly_tests_build_it_where_they_can(
    make, compilers: tuple[str, ...], part: str, is_built: bool
) -> None:
    done = make("--dry-run", "nightly", f"PART={part}", compilers=compilers)
    assert done.returncode == 0, done.stderr
    assert f"--nightly {part}" in done.stdout or "--nightly $part" in done.stdout
    assert ("build.sh" in done.stdout) == is_built


@pytest.mark.parametrize("folder", ["var", "var/llama.cpp/tools/server/tests"])
def test_tests_of_what_was_fetched_are_not_ours(folder: str, request: pytest.FixtureRequest):
    """pytest looks into no folder below one that is passed over."""
    path = ROOT / folder
    ignored = [
        request.config.hook.pytest_ignore_collect(collection_path=at, config=request.config)
        for at in (path, *path.parents)
        if at.is_relative_to(ROOT / "var")
    ]
    assert any(ignored)
    ours = request.config.hook.pytest_ignore_collect(collection_path=Path(__file__), config=request.config)
    assert not ours
