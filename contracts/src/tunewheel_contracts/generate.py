"""Write all files that are generated from the models: schemas, the AsyncAPI document, docs/events.md and
docs/project-yaml.md.

python -m tunewheel_contracts.generate            write changed files, remove files without a source
python -m tunewheel_contracts.generate --check    change nothing; exit 1 and list what is stale
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tunewheel_contracts.generation import asyncapi, catalogue, schemas, spec_page


def repository_root() -> Path:
    """Return the checkout from which this package is installed, or else the current folder."""
    candidate = Path(__file__).resolve().parents[3]
    return candidate if (candidate / "contracts" / "pyproject.toml").is_file() else Path.cwd()


def generated() -> dict[str, str]:
    """Return the generated texts by path relative to the repository's root. They are the same on every
    machine."""
    pages = catalogue.catalogue_files() | spec_page.spec_files()
    return schemas.schema_files() | asyncapi.asyncapi_files() | pages


def stale(root: Path, wanted: dict[str, str]) -> list[str]:
    """Return the paths below ``root`` that differ from ``wanted``: changed, missing, or without a source."""
    differing: list[str] = []
    for path, text in wanted.items():
        file = root / path
        if not file.is_file() or file.read_text(encoding="utf-8") != text:
            differing.append(path)
    present = (file for file in (root / schemas.FOLDER).glob("*") if file.is_file())
    orphans = (file.relative_to(root).as_posix() for file in present)
    return sorted({*differing, *(path for path in orphans if path not in wanted)})


def write(root: Path, wanted: dict[str, str], paths: list[str]) -> None:
    """Write the texts of ``paths`` below ``root``. A path that is not in ``wanted`` is deleted."""
    for path in paths:
        file = root / path
        if path not in wanted:
            file.unlink()
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(wanted[path], encoding="utf-8", newline="\n")


def main(arguments: list[str] | None = None) -> int:
    """Return the exit status: 1 if ``--check`` finds a stale file, else 0."""
    parser = argparse.ArgumentParser(prog="python -m tunewheel_contracts.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when anything is stale")
    parser.add_argument("--root", type=Path, default=repository_root(), help="the repository's root")
    options = parser.parse_args(arguments)
    wanted = generated()
    paths = stale(options.root, wanted)
    if options.check:
        for path in paths:
            print(f"stale: {path}", file=sys.stderr)
        if paths:
            print("run `python -m tunewheel_contracts.generate` and commit the result", file=sys.stderr)
        return 1 if paths else 0
    write(options.root, wanted, paths)
    print(f"{len(wanted)} files generated, {len(paths)} changed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
