"""Write ``tunewheel_client.sync`` from ``tunewheel_client.aio``: the same code without ``async``.

python scripts/client_sync.py            write changed files, remove files without a source
python scripts/client_sync.py --check    change nothing; exit 1 and list what is stale
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUFF = Path(sys.executable).parent / "ruff"
PACKAGE = ROOT / "client/src/tunewheel_client"
HEAD = "# Generated from aio/{name} by scripts/client_sync.py; change that file instead.\n"
RUFF = Path(sys.executable).parent / "ruff"
MENDS = [
    "check", "--select", "I,F401,UP028", "--fix", "--unsafe-fixes",
    "--config", 'lint.isort.known-first-party = ["tunewheel_client"]',
]  # fmt: skip
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


def synchronous(text: str) -> str:
    """Return the synchronous twin of a module, before it is formatted."""
    text = re.sub(r"\b(async|await) ", "", text)
    text = _NAME.sub(lambda found: NAMES[found[0]], text)
    while (start := text.find("Awaitable[")) >= 0:
        first = end = start + len("Awaitable[")
        depth = 1
        while depth:
            depth += {"[": 1, "]": -1}.get(text[end], 0)
            end += 1
        text = text[:start] + text[first : end - 1] + text[end:]
    return re.sub(r"\bAwaitable, |, Awaitable\b", "", text)


def generated() -> dict[Path, str]:
    """Return the texts of the synchronous package, by path."""
    sources = sorted((PACKAGE / "aio").glob("*.py"))
    return {PACKAGE / "sync" / file.name: _tidied(file) for file in sources}


def _tidied(file: Path) -> str:
    text = HEAD.format(name=file.name) + synchronous(file.read_text("utf-8"))
    for command in (MENDS, ["format"]):
        line = [str(RUFF), *command, "--quiet", "--stdin-filename", file.name, "-"]
        done = subprocess.run(line, input=text, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
        text = done.stdout
    return text


def main() -> int:
    """Return the exit status: 1 if ``--check`` finds a stale file, else 0."""
    wanted = generated()
    present = set((PACKAGE / "sync").glob("*.py"))
    stale = [path for path, text in wanted.items() if path not in present or path.read_text("utf-8") != text]
    orphans = sorted(present - set(wanted))
    if "--check" in sys.argv[1:]:
        for path in [*stale, *orphans]:
            print(f"stale: {path.relative_to(ROOT)}; run `python scripts/client_sync.py`", file=sys.stderr)
        return 1 if stale or orphans else 0
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        path.write_text(wanted[path], encoding="utf-8", newline="\n")
    for path in orphans:
        path.unlink()
    print(f"{len(wanted)} files generated, {len(stale) + len(orphans)} changed")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
