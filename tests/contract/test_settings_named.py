"""Every environment variable that a page, an image or a message names is one that something reads.

And every one that a service reads is on a page.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import pytest
from tunewheel_runtime.settings import ServiceSettings

ROOT = Path(__file__).resolve().parents[2]
SERVICES = sorted(path.parent for path in ROOT.glob("services/*/pyproject.toml"))
NAME = re.compile(r"TUNEWHEEL_[A-Z0-9_]*[A-Z0-9]")
OF_OTHERS = ("TUNEWHEEL_ENGINE_URL", "TUNEWHEEL_ENGINE_API_KEY")
"""Named by a service that does not read it: the engine's tests are pointed at another engine by it."""
OF_SPECS = ("TUNEWHEEL_TEACHER", "TUNEWHEEL_EMBEDDING", "TUNEWHEEL_JUDGE", "TUNEWHEEL_FALLBACK")
"""Beginnings of the names that a project's spec chooses itself."""
PAGES = sorted(
    path
    for pattern in (
        "*.md",
        "docs/**/*.md",
        "deploy/**/*.md",
        "cli/*.md",
        "client/*.md",
        "runtime/*.md",
        "services/*/README.md",
        "examples/**/*.md",
    )
    for path in ROOT.glob(pattern)
    if path.is_file() and ".venv" not in path.parts
)


def settings_class(service: str) -> Any:
    return importlib.import_module(f"tunewheel_{service.replace('-', '_')}.settings").Settings


def settings_of(service: Path) -> set[str]:
    return {f"TUNEWHEEL_{name.upper()}" for name in settings_class(service.name).model_fields}


def named(path: Path) -> set[str]:
    """Return the names in a file, those of ``OF_SPECS`` aside."""
    found = set(NAME.findall(path.read_text(encoding="utf-8")))
    return {name for name in found if not name.startswith(OF_SPECS)}


@pytest.fixture(scope="module")
def readable() -> set[str]:
    """Settings of any service, and what code or scripts read from the environment by name."""
    found = {name for service in SERVICES for name in settings_of(service)}
    for path in (*ROOT.glob("*/src/**/*.py"), *ROOT.glob("services/*/src/**/*.py")):
        found |= set(re.findall(r"[\"'{](TUNEWHEEL_[A-Z0-9_]+)\b", path.read_text(encoding="utf-8")))
    return found


def test_pages_name_only_what_is_read(readable: set[str]) -> None:
    told = {(str(path.relative_to(ROOT)), name) for path in PAGES for name in named(path)}
    assert len(told) > 40
    assert "TUNEWHEEL_NO_SUCH_THING" not in readable
    assert {(page, name) for page, name in told if name not in readable} == set()


def listed(page: Path) -> set[str]:
    """Return the names in a page, those of tables whose head says ``TUNEWHEEL_…`` once for all rows too."""
    text = page.read_text(encoding="utf-8")
    found = set(NAME.findall(text))
    for table in re.findall(r"^\| `TUNEWHEEL_…` \|.*\n((?:\|.*\n)+)", text, re.MULTILINE):
        cells = (row.split("|")[1] for row in table.splitlines())
        found |= {f"TUNEWHEEL_{name}" for cell in cells for name in re.findall(r"`([A-Z0-9_]+)`", cell)}
    return found


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_a_readme_lists_what_its_service_reads(service: Path) -> None:
    own = {name for name in listed(service / "README.md") if not name.startswith(OF_SPECS)}
    shared = listed(ROOT / "runtime" / "README.md")
    assert {f"TUNEWHEEL_{name.upper()}" for name in ServiceSettings.model_fields} <= shared
    assert settings_of(service) - shared <= own
    assert own - settings_of(service) <= shared | set(OF_OTHERS)


SIZES = {"MiB": 1 << 20, "GiB": 1 << 30}


def defaults_told(page: Path) -> dict[str, float]:
    """Return by setting the number that a table of a page gives as its default, sizes in bytes."""
    told: dict[str, float] = {}
    for row in re.findall(r"^\| (`.*)$", page.read_text(encoding="utf-8"), re.MULTILINE):
        first, second = row.split(" | ")[:2]
        names = re.findall(r"`(?:TUNEWHEEL_)?([A-Z][A-Z0-9_]+)`", first)
        values = second.split(", ")
        for name, value in zip(names, values if len(values) == len(names) else [], strict=False):
            if number := re.fullmatch(r"([\d,.]+)(?: ([MG]iB))?(?: .*)?", value):
                told[name.lower()] = float(number[1].replace(",", "")) * SIZES.get(number[2], 1)
    return told


def test_a_default_on_a_page_is_the_default_of_the_setting() -> None:
    checked = 0
    for service in SERVICES:
        fields = settings_class(service.name).model_fields
        told = {n: v for n, v in defaults_told(service / "README.md").items() if n in fields}
        assert {name: (value, fields[name].default) for name, value in told.items()} == {
            name: (value, value) for name, value in told.items()
        }, service.name
        checked += len(told)
    assert checked >= 60


@pytest.mark.parametrize("service", [s for s in SERVICES if s.name != "engine"], ids=lambda path: path.name)
def test_a_process_names_the_setting_that_is_wrong_and_ends_with_code_2(
    service: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNEWHEEL_SSL_CERTFILE", "client.pem")
    main = importlib.import_module(f"tunewheel_{service.name.replace('-', '_')}.main")
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == 2
    told = f"tunewheel-{service.name}: TUNEWHEEL_SSL_KEYFILE: is missing beside ssl_certfile"
    assert capsys.readouterr().err.startswith(told)


@pytest.mark.parametrize("service", SERVICES, ids=lambda path: path.name)
def test_messages_of_a_service_name_its_own_settings(service: Path) -> None:
    """A message that says what to set is of no use where nobody reads it."""
    told: set[str] = set()
    for path in (service / "src").rglob("*.py"):
        told |= named(path)
    assert told <= settings_of(service)
