"""Tracked files name no package registry and no path of the machine they were written on."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
# [.] keeps these lines from being found by themselves
REGISTRY = re.compile(
    r"pypi[.]org/simple|pythonhosted[.]org|registry[.]npmjs[.]org|registry[.]yarnpkg[.]com|"
    r"repo1?[.]maven[.](org|apache[.]org)|proxy[.]golang[.]org|(?<!no-emit-)(extra-)?index-url\s*=?\s*[\"']?http"
)
MACHINE_PATH = re.compile(r"(?<![\w./$}-])/(home|Users|root|work)/(?!tunewheel\b)[\w.]+|\b[A-Z]:\\Users\\")
INDEX_VARIABLES = ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX")


def _tracked() -> list[Path]:
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git does not list the tracked files here: {error}")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def _naming(*patterns: re.Pattern[str]) -> list[str]:
    """Return the lines of tracked files that match one of ``patterns``. A file is searched as a whole first:
    hardly one has such a line."""
    tracked = _tracked()
    assert len(tracked) >= 100
    found: list[str] = []
    for path in tracked:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        if any(pattern.search(text) for pattern in patterns):
            found += (
                f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}"
                for number, line in enumerate(text.splitlines(), 1)
                if any(pattern.search(line) for pattern in patterns)
            )
    return found


def _own_registries() -> set[str]:
    """Return the hosts this machine installs from: of them the files must not know either."""
    urls = (url for name in INDEX_VARIABLES for url in os.environ.get(name, "").split())
    hosts = {urlsplit(url.split("=", 1)[-1]).hostname for url in urls}
    return {host for host in hosts if host and host not in {"localhost", "127.0.0.1", "pypi.org"}}


@pytest.mark.parametrize(
    "line",
    [
        "https://files.python" + "hosted.org/packages/x.whl",
        "--index-" + "url https://mirror.example/simple",
        "index-" + 'url = "https://mirror.example"',
        "https://repo1." + "maven.org/maven2",
    ],
)
def test_a_registry_is_recognised(line: str) -> None:
    assert REGISTRY.search(line)


@pytest.mark.parametrize(
    "line", ["open('/" + "home/ada/x')", "cd /" + "work/main", "path: /" + "root/.cache"]
)
def test_a_machine_path_is_recognised(line: str) -> None:
    assert MACHINE_PATH.search(line)


@pytest.mark.parametrize("line", ["/home/tunewheel/app", "a/home/x", "see https://x.example/root/y", "/work"])
def test_other_paths_are_not(line: str) -> None:
    assert not MACHINE_PATH.search(line)


def test_no_tracked_file_names_a_registry() -> None:
    hosts = map(re.escape, _own_registries())
    found = _naming(REGISTRY, *map(re.compile, hosts))
    assert not found, "\n".join(found)


def test_no_tracked_file_names_a_path_of_this_machine() -> None:
    roots = "|".join(re.escape(str(path)) for path in (ROOT, Path.home()) if path.parent != path)
    found = _naming(MACHINE_PATH, re.compile(rf"(?<![\w./$}}-])({roots})/"))
    assert not found, "\n".join(found)


def test_no_lock_that_names_hosts_is_tracked() -> None:
    names = {path.name for path in _tracked()}
    assert not names & {"uv.lock", "poetry.lock", "Pipfile.lock", "pdm.lock"}
