"""Builds the site of the project's pages: ``python scripts/site.py`` writes it to var/site/html.

The pages stay where they are. This script copies all pages, and every file that a page links to, into one
folder with the paths of the repository, so the links between pages hold there too. Zensical makes HTML of
them, and ends with an error if a link or an anchor leads nowhere. Beside each page's HTML lies the page as
Markdown, and ``llms.txt`` lists all pages for machines that read.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from posixpath import normpath
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / "docs/site.yaml"
LINK = re.compile(r"\]\(([^)#\s]+)((?:#[^)\s]*)?)\)")
IMAGE = re.compile(r"(?:src|srcset)=\"([^\":]+)\"")
NOT_PAGES = ("/sops", "tests/")
"""Parts of paths of Markdown files that are data."""
Section = Mapping[str, Any]


def pages() -> list[str]:
    """Return the paths of all pages that git knows."""
    command = ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in listed if not any(part in name for part in NOT_PAGES)]


def gather(folder: Path) -> None:
    """Copy all pages into ``folder``, and what they link to. A link to a folder leads to its page, or to a
    list of its files."""
    for name in pages():
        text = LINK.sub(
            lambda link, page=name: _followed(link, page, folder), (ROOT / name).read_text("utf-8")
        )
        for image in IMAGE.findall(text):
            _copy(normpath(PurePosixPath(name).parent / image), folder)
        _write(folder / name, text)


def _followed(link: re.Match[str], page: str, folder: Path) -> str:
    path, anchor = link.groups()
    if ":" in path:
        return link[0]
    target = normpath(PurePosixPath(page).parent / path)
    if (ROOT / target).is_dir():
        path, target = f"{path.rstrip('/')}/README.md", f"{target}/README.md"
        if not (ROOT / target).is_file():
            _write(folder / target, "\n".join(_listing(target)))
    elif not target.endswith(".md"):
        _copy(target, folder)
    return f"]({path}{anchor})"


def _listing(page: str) -> Iterator[str]:
    folder = ROOT / page.removesuffix("/README.md")
    yield f"# {folder.relative_to(ROOT)}/\n"
    for path in sorted(folder.iterdir()):
        if path.suffix == ".md":
            yield f"- [{title(path.read_text('utf-8'))}]({path.name})"
        elif (path / "README.md").is_file():
            yield f"- [{path.name}/]({path.name}/README.md)"
        elif not path.name.startswith("."):
            yield f"- `{path.name}`"


def _copy(name: str, folder: Path) -> None:
    if (ROOT / name).is_file():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, folder / name)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8", newline="\n")


def title(page: str) -> str:
    """Return a page's first heading."""
    return next(line[2:] for line in page.splitlines() if line.startswith("# "))


def about(page: str) -> str:
    """Return the first sentence below a page's first heading, without links; empty: no text stands there."""
    for paragraph in page.split("\n\n")[1:]:
        plain = re.sub(r"\[([^\]]+)\]\([^)]*\)|\*\*", r"\1", " ".join(paragraph.split())).removeprefix(
            "Context. "
        )
        if plain[:1].isalnum() and not plain.startswith("Status:"):
            return re.split(r"(?<=[.?!]) ", plain)[0]
    return ""


def settings() -> dict[str, Any]:
    """Return Zensical's settings. The menu has every page of docs/site.yaml, and all decisions."""
    found = yaml.safe_load(SETTINGS.read_text("utf-8"))
    decisions = [name for name in pages() if name.startswith("docs/adr/")]
    found["nav"] = [*found["nav"], {"Decisions": ["docs/adr/README.md", *decisions]}]
    return found | {"docs_dir": "pages", "site_dir": "html"}


def listed(nav: Sequence[Section], folder: Path) -> Iterator[str]:
    """Yield the lines of llms.txt: the pages by section, each with its first sentence."""
    yield f"# Tunewheel\n\n> {about((folder / 'README.md').read_text('utf-8'))}"
    for name, names in (item for section in nav for item in section.items()):
        yield f"\n## {name}\n"
        for page in [names] if isinstance(names, str) else names:
            text = (folder / page).read_text("utf-8")
            yield f"- [{title(text)}]({page}): {about(text)}".removesuffix(": ")


def build(folder: Path) -> int:
    """Build the site below ``folder``. Return Zensical's exit status: not 0 if a link leads nowhere."""
    shutil.rmtree(folder, ignore_errors=True)
    gather(folder / "pages")
    told = settings()
    _write(folder / "mkdocs.yml", json.dumps(told))
    command = [
        sys.executable,
        "-m",
        "zensical",
        "build",
        "--strict",
        "--config-file",
        str(folder / "mkdocs.yml"),
    ]
    status = subprocess.run(command, cwd=folder).returncode
    for page in (folder / "pages").rglob("*.md"):
        _write(folder / "html" / page.relative_to(folder / "pages"), page.read_text("utf-8"))
    _write(folder / "html/llms.txt", "\n".join(listed(told["nav"], folder / "pages")) + "\n")
    return status


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "var/site", help="where to build; it is emptied first"
    )
    raise SystemExit(build(parser.parse_args().folder.resolve()))
