"""Writes ``tunewheel_client.sync`` from ``tunewheel_client.aio``: the same code without ``async``.

Every build of the package, an editable one too, calls ``BuildHook``. After a change of ``aio``:
``python scripts/client_sync.py``.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PACKAGE = Path(__file__).resolve().parent / "src/tunewheel_client"
HEAD = "# Generated from aio/{name} by client/hatch_build.py; change that file instead.\n"
NAMES = {
    "AsyncClient": "Client",
    "AsyncGenerator": "Generator",
    "AsyncIterator": "Iterator",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "aclose": "close",
    "aio": "sync",
    "aiter_bytes": "iter_bytes",
    "aread": "read",
    "asynccontextmanager": "contextmanager",
    "asynchronous": "synchronous",
    "asyncio": "time",
}
_NAME = re.compile(rf"\b({'|'.join(NAMES)})\b")


class BuildHook(BuildHookInterface):
    """Writes the synchronous package before the files of a distribution are gathered."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        write()


def write() -> None:
    """Write the files that differ. A file is replaced at once, because other processes may import it."""
    (PACKAGE / "sync").mkdir(exist_ok=True)
    for path, text in stale().items():
        if text is None:
            path.unlink(missing_ok=True)
            continue
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(text, encoding="utf-8", newline="\n")
        new.replace(path)


def stale() -> dict[Path, str | None]:
    """Return the stale files, each with the text that the file must have; None: the file must be deleted."""
    folder = PACKAGE / "sync"
    wanted = {
        folder / file.name: HEAD.format(name=file.name) + synchronous(file.read_text("utf-8"))
        for file in (PACKAGE / "aio").glob("*.py")
    }
    found = {path: path.read_text("utf-8") for path in folder.glob("*.py")}
    return {path: wanted.get(path) for path in wanted | found if wanted.get(path) != found.get(path)}


def synchronous(text: str) -> str:
    """Return the synchronous twin of a module."""
    text = re.sub(r"\b(async|await) ", "", text)
    text = _NAME.sub(lambda found: NAMES[found[0]], text)
    while (start := text.find("Awaitable[")) >= 0:
        first = end = start + len("Awaitable[")
        depth = 1
        while depth:
            depth += {"[": 1, "]": -1}.get(text[end], 0)
            end += 1
        text = text[:start] + text[first : end - 1] + text[end:]
    text = re.sub(r"\bAwaitable, |, Awaitable\b", "", text)
    return text.replace("import time\nimport time\n", "import time\n")


if __name__ == "__main__":
    write()
