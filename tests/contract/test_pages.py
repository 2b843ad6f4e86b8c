"""What pages point to is there: links, files, make targets, benches."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "basemodel",
    "cli",
    "client",
    "contracts",
    "demo",
    "embedding",
    "generation",
    "local",
    "outputs",
    "planner",
    "redaction",
    "retrieval",
    "runtime",
    "wheel",
    *(f"services/{p.name}" for p in ROOT.glob("services/*")),
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
PYTHON_FILE = re.compile(r"`([\w/-]+\.py)`")


def _tracked() -> list[str]:
    command = ["git", "-C", str(ROOT), "ls-files"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        pytest.skip(f"git does not list the tracked files here: {error}")


@pytest.fixture(scope="module")
def tracked() -> list[str]:
    return _tracked()


@pytest.fixture(scope="module")
def pages(tracked: list[str]) -> dict[str, str]:
    """Text by path. The documents of an example are data."""
    names = [name for name in tracked if name.endswith(".md") and "/sops" not in name]
    found = {name: (ROOT / name).read_text(encoding="utf-8") for name in names if (ROOT / name).is_file()}
    assert len(found) >= 30
    return found


def _anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_within_the_repository_lead_somewhere(pages: dict[str, str]) -> None:
    broken: list[str] = []
    followed = 0
    for name, text in pages.items():
        for link in LINK.findall(text):
            if "://" in link:
                continue
            followed += 1
            path, _, anchor = link.partition("#")
            target = (ROOT / name).parent / path if path else ROOT / name
            if not target.exists():
                broken.append(f"{name}: {link}")
            elif anchor and anchor not in _anchors(target.read_text(encoding="utf-8")):
                broken.append(f"{name}: {link} has no such heading")
    assert followed > 60
    assert broken == []


def test_python_files_that_a_page_names_exist(pages: dict[str, str], tracked: list[str]) -> None:
    """In a package's own README a module is one of that package, unless its path begins at the root."""
    named, missing = 0, list[str]()
    for name, text in pages.items():
        package = next((one for one in PACKAGES if name == f"{one}/README.md"), "")
        for module in PYTHON_FILE.findall(text):
            named += 1
            own = [path for path in tracked if path.startswith(package)]
            if module not in tracked and not any(path.endswith(f"/{module}") for path in own):
                missing.append(f"{name}: {module}")
    assert named > 100
    assert missing == []


def test_make_targets_and_benches_that_a_page_names_exist(pages: dict[str, str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):.*## ", makefile, re.MULTILINE))
    benches = {path.stem for path in (ROOT / "tests/bench").glob("*.py")}
    text = "\n".join(pages.values())
    asked = set(re.findall(r"`make ([a-z-]+)|^make ([a-z-]+)(?= +#| NAME=|$)", text, re.MULTILINE))
    asked = {name for pair in asked for name in pair if name}
    measured = {one for names in re.findall(r"make bench NAME=([a-z_|]+)", text) for one in names.split("|")}
    assert {"demo", "test", "bench"} <= asked <= targets
    assert len(measured) >= 10
    assert measured <= benches


def test_the_metrics_that_the_runtime_makes_are_on_its_page(pages: dict[str, str]) -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "runtime/src").rglob("*.py"))
    made = re.findall(r"(?:create_counter|create_histogram|gauge)\([^\"]*\"(tunewheel\.[a-z_.]+)\"", source)
    assert len(made) >= 10
    told = set(re.findall(r"`(tunewheel_[a-z_]+?)(?:_total)?`", pages["docs/operations.md"]))
    assert {name.replace(".", "_") for name in made} <= told


def test_who_follows_the_readme_has_the_command_and_the_files(pages: dict[str, str]) -> None:
    if not (ROOT / ".venv").is_dir():
        pytest.skip("the environment is elsewhere (make VENV=…)")
    _, own, _, bundled, *_ = pages["README.md"].split("## Use it")[1].split("```")
    lines = [line for line in own.splitlines() if line.strip()]
    first = next(number for number, line in enumerate(lines) if line.startswith("tunewheel"))
    before = [line for line in lines[:first] if not line.startswith("make ")]
    script = "\n".join([*before, "command -v tunewheel"])
    bare = {"PATH": "/usr/bin:/bin"}
    found = subprocess.run(["sh", "-c", script], cwd=ROOT, env=bare, capture_output=True, text=True)
    assert found.stdout.strip() == str(ROOT / ".venv" / "bin" / "tunewheel")
    read = {("project", "declare"): 3, ("publish",): 2, ("plan",): 2}
    typed = [tuple(shlex.split(line, comments=True)) for line in bundled.splitlines()]
    named = [one[at] for one in typed for words, at in read.items() if one[1 : 1 + len(words)] == words]
    assert len(named) >= 4
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_a_decision_that_another_one_replaced_names_its_successor(pages: dict[str, str]) -> None:
    decisions = {name: text for name, text in pages.items() if name.startswith("docs/adr/")}
    said = {
        int(Path(name).name[:4]): re.findall(r"^\*\*Status:\*\* (.+)$", text, re.MULTILINE)
        for name, text in decisions.items()
    }
    assert len(said) == len(decisions), "each has a number of its own"
    assert not [number for number, statuses in said.items() if len(statuses) != 1]
    links = {number: {int(n) for n in re.findall(r"\[ADR (\d+)\]", said[number][0])} for number in said}
    assert sum(map(bool, links.values())) >= 7
    assert not [(new, old) for new in links for old in links[new] if new not in links[old]]
    for new in links:
        for old in (old for old in links[new] if old < new):
            assert "Replaces" in said[new][0]
            assert "replaced by" in said[old][0]


def test_the_change_log_begins_with_the_one_version_of_packages_and_chart(pages: dict[str, str]) -> None:
    files = [ROOT / "pyproject.toml", *ROOT.glob("*/pyproject.toml"), *ROOT.glob("services/*/pyproject.toml")]
    packages = {tomllib.loads(file.read_text("utf-8"))["project"]["version"] for file in files}
    chart = yaml.safe_load((ROOT / "deploy/helm/tunewheel/Chart.yaml").read_text("utf-8"))
    newest = re.search(r"^## ([\d.]+)\b", pages["CHANGELOG.md"], re.MULTILINE)
    assert len(files) > 20
    assert newest is not None
    assert packages == {chart["version"]} == {chart["appVersion"]} == {newest[1]}
    licences = {tomllib.loads(file.read_text("utf-8"))["project"]["license"] for file in files}
    assert licences == {"Apache-2.0"}


@pytest.mark.parametrize(
    ("page", "heading", "cell", "least"),
    [("README.md", "## What was measured", 2, 10), ("docs/benchmarks.md", "# Measurements", 3, 45)],
)
def test_a_figure_of_an_overview_stands_on_the_page_that_its_row_links_to(
    page: str, heading: str, cell: int, least: int, pages: dict[str, str]
) -> None:
    section = pages[page].split(heading)[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|") and "](" in line]
    assert len(rows) >= least
    number = re.compile(r"\d[\d,]*(?:\.\d+)?|\.\d+")
    missing: list[str] = []
    for row in rows:
        link = LINK.findall(row)[-1].partition("#")[0]
        target = ((ROOT / page).parent / link).read_text("utf-8")
        stands = {found.rstrip(",") for found in number.findall(target)}
        told = {found.rstrip(",") for found in number.findall(row.split("|")[cell])}
        missing += [f"{link}: {figure}" for figure in sorted(told - stands)]
    assert missing == []
