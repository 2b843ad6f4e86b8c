"""Downloads, verifies and caches Kafka's jars, which ``jars.lock`` names.

Each coordinate is fetched separately. If Kafka were resolved together with a log binding, the binding's BOM
could replace ``kafka-clients`` by an older version.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING

from tunewheel_contracts.identity import sha256_file

from tunewheel_local.kafka.errors import JarCorrupt, JarUnavailable, StartStopped

if TYPE_CHECKING:
    from jgo.maven import MavenContext

_LINE = re.compile(
    r"^(?P<group>[\w.-]+):(?P<artifact>[\w.-]+):(?P<version>[\w.-]+) sha256:(?P<sha256>[0-9a-f]{64})$"
)
_AT_ONCE = 8
POLL_SECONDS = 0.1

Progress = Callable[[int, int], None]
"""Called with (jars ready, jars in all)."""


@dataclass(frozen=True, slots=True)
class Jar:
    """One line of the lock."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinate(self) -> str:
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def path(self) -> Path:
        """Its path below a repository folder, in Maven's layout."""
        return Path(
            *self.group.split("."), self.artifact, self.version, f"{self.artifact}-{self.version}.jar"
        )


def read_lock(text: str | None = None) -> tuple[Jar, ...]:
    """Parse ``jars.lock`` (the one in the package by default).

    Raises:
        ValueError: a line is not ``group:artifact:version sha256:<hex>``.
    """
    if text is None:
        text = resources.files("tunewheel_local.kafka").joinpath("jars.lock").read_text("utf-8")
    jars: list[Jar] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        found = _LINE.match(line)
        if found is None:
            raise ValueError(
                f"jars.lock line {number}: {line!r} is not 'group:artifact:version sha256:<hex>'"
            )
        jars.append(Jar(**found.groupdict()))
    return tuple(jars)


def fetch_jars(
    cache: Path,
    jars: Sequence[Jar] | None = None,
    progress: Progress | None = None,
    *,
    stopped: Event | None = None,
) -> tuple[Path, ...]:
    """Return the paths of all jars below ``cache``, downloading those that are missing or damaged.

    Raises:
        JarUnavailable: no repository has the jar, or none answers.
        JarCorrupt: a downloaded jar does not have the hash in the lock.
        StartStopped: ``stopped`` was set.
    """
    stopped = stopped or Event()
    wanted = read_lock() if jars is None else tuple(jars)
    folder = cache / "maven"
    missing = [jar for jar in wanted if not _is_good(folder / jar.path, jar.sha256)]
    done = len(wanted) - len(missing)
    if progress:
        progress(done, len(wanted))
    errors: list[Exception] = []
    for error in _fetch_all(missing, folder, stopped):
        if error is not None:
            errors.append(error)
            continue
        done += 1
        if progress:
            progress(done, len(wanted))
    if errors:
        raise errors[0]
    return tuple(folder / jar.path for jar in wanted)


def _fetch_all(jars: Sequence[Jar], folder: Path, stopped: Event) -> Iterator[Exception | None]:
    """Fetch ``jars``, some at a time, and yield for each its error or None. Raises StartStopped."""
    left, results = iter(jars), SimpleQueue[Exception | None]()

    def work() -> None:
        for jar in left:  # of which each thread takes the next
            if stopped.is_set():
                return
            try:
                _fetch(jar, folder, stopped)
            except Exception as error:
                results.put(error)
            else:
                results.put(None)

    # Daemons: a server that stops answering holds neither the stop nor the end of the process.
    threads = [Thread(target=work, name="fetch-jars", daemon=True) for _ in jars[:_AT_ONCE]]
    for thread in threads:
        thread.start()
    told = 0
    while told < len(jars) and not stopped.is_set():
        with suppress(Empty):
            yield results.get(timeout=POLL_SECONDS)
            told += 1
    for thread in threads:  # the others delete what they have begun
        thread.join(POLL_SECONDS)
    if stopped.is_set():
        raise StartStopped


def maven_context(folder: Path) -> MavenContext:
    """Return jgo's context on repository ``folder``, with the mirrors of jgo's own settings first."""
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    mirrors = dict(GlobalSettings.load().repositories)
    return MavenContext(
        repo_cache=folder, remote_repos=mirrors | {"central": mirrors.get("central", MAVEN_CENTRAL_URL)}
    )


def _is_good(path: Path, sha256: str) -> bool:
    return path.is_file() and sha256_file(path) == sha256


def _fetch(jar: Jar, folder: Path, stopped: Event) -> None:
    target = folder / jar.path
    target.parent.mkdir(parents=True, exist_ok=True)
    # Download beside the target, then rename: an interruption leaves no half jar under the final name, and
    # two processes can fetch at the same time.
    with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
        found = _in_local_repository(jar) or _download(jar, Path(scratch), stopped)
        actual = sha256_file(found)
        if actual != jar.sha256:
            raise JarCorrupt(jar.coordinate, jar.sha256, actual)
        part = Path(scratch) / "verified.jar"
        shutil.copyfile(found, part)
        os.replace(part, target)


def _in_local_repository(jar: Jar) -> Path | None:
    """Return the jar of the user's own Maven repository (``M2_REPO``, ``~/.m2``) if it is the right one."""
    from jgo.constants import default_maven_repo

    path = default_maven_repo() / jar.path
    return path if _is_good(path, jar.sha256) else None


def _download(jar: Jar, scratch: Path, stopped: Event) -> Path:
    from jgo.maven import PythonResolver
    from requests import RequestException

    def count(_: int) -> None:
        if stopped.is_set():
            raise StartStopped

    try:
        context = maven_context(scratch / "repository")
        # It calls back between two pieces of a file.
        context.resolver = PythonResolver(progress_callback=lambda _name, _size: nullcontext(count))
        return context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve()
    except (RequestException, RuntimeError, OSError) as error:
        # jgo says "not found" by RuntimeError.
        raise JarUnavailable(jar.coordinate, str(error)) from error
