"""The site has all pages for people and for machines, and a link to nowhere ends its build."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
_spec = importlib.util.spec_from_file_location("site_of_pages", ROOT / "scripts/site.py")
assert _spec is not None
assert _spec.loader is not None
site: Any = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(site)
SMALL = {
    "site_name": "small", "nav": [{"Start": "README.md"}], "use_directory_urls": False,
    "docs_dir": "pages", "site_dir": "html",
}  # fmt: skip
OWN = re.compile(r"^(?!https?:|mailto:|#|data:)")
LOADED = re.compile(
    r"<(?:script|img|source)[^>]+?(?:src|srcset)=\"?([^\" >]+)|<link[^>]+?stylesheet[^>]+?href=\"?([^\" >]+)"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    assert site.build(folder) == 0
    return folder / "html"


def test_every_page_is_there_for_people_and_as_markdown(built: Path) -> None:
    names = site.pages()
    assert len(names) > 100
    pages = built.parent / "pages"
    assert [
        name for name in names if (built / name).read_text("utf-8") != (pages / name).read_text("utf-8")
    ] == []
    missing = [name for name in names if not (built / _html(name)).is_file()]
    assert missing == []


def _html(name: str) -> str:
    return re.sub(r"README\.md$", "index.html", name).replace(".md", ".html")


def test_the_menu_has_every_page_once_and_machines_get_the_same_list(built: Path) -> None:
    listed = re.findall(r"\]\(([^)]+\.md)\)", (built / "llms.txt").read_text("utf-8"))
    assert sorted(listed) == sorted({*site.pages(), "docs/adr/README.md"})
    assert len(listed) == len(set(listed))
    described = [
        line for line in (built / "llms.txt").read_text("utf-8").splitlines() if line.startswith("- ")
    ]
    assert sum(": " in line for line in described) > len(described) / 2


def test_a_reader_loads_nothing_from_another_host_and_no_picture_is_missing(built: Path) -> None:
    found = 0
    for page in (
        one for one in built.rglob("*.html") if one.name != "404.html"
    ):  # it is served at any address
        for pair in LOADED.findall(page.read_text("utf-8")):
            (name,) = filter(None, pair)
            assert OWN.match(name), f"{page.name} loads {name}"
            assert (page.parent / name.partition("?")[0]).is_file(), f"{page.name}: {name}"
            found += 1
    assert found > 300


@pytest.mark.parametrize("link", ["no-such-page.md", "docs/serving.md#no-such-heading"])
def test_a_link_to_nowhere_ends_the_build(link: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "docs/adr").mkdir(parents=True)
    (tmp_path / "README.md").write_text(f"# Start\n\nSee [this]({link}).\n")
    for name in ("docs/serving.md", "docs/adr/0001-a.md"):
        (tmp_path / name).write_text("# Serving\n\nWords.\n")
    monkeypatch.setattr(site, "ROOT", tmp_path)
    monkeypatch.setattr(site, "pages", lambda: ["README.md", "docs/serving.md", "docs/adr/0001-a.md"])
    monkeypatch.setattr(site, "settings", lambda: SMALL)
    assert site.build(tmp_path / "site") != 0
