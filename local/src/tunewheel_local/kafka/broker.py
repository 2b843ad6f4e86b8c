"""``LocalKafka`` starts and stops one real broker process."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
import threading
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self, TypeVar

from tunewheel_contracts.cache import cache_dir

from tunewheel_local import leash
from tunewheel_local.kafka.errors import BrokerFailed, DataInUse, diagnose
from tunewheel_local.kafka.jars import Progress, fetch_jars
from tunewheel_local.kafka.java import find_java
from tunewheel_local.kafka.ports import free_port, require_free
from tunewheel_local.kafka.properties import check_data, check_strays, server_properties

FOLDER = "kafka-aot"
_TRIED = ("-XX:+IgnoreUnrecognizedVMOptions", "-XX:+VerifySharedSpaces")
"""The second: a damaged file is left aside, which costs a tenth of a second to see."""


class StartupCache:
    """A cache of Kafka's loaded and linked classes, which halves the processor time of a broker's start.

    It is Java's ahead-of-time cache (JEP 483 and 514, Java 25) for ``java`` and ``jars`` in the folder
    ``cache``, first written below ``scratch``. If a start finds no cache, Java writes one when that broker
    ends, which takes some seconds once per machine. Older versions of Java ignore the options.
    """

    def __init__(self, cache: Path, java: Path, jars: Sequence[Path], *, scratch: Path) -> None:
        about = [str(java.resolve()), str(java.stat().st_mtime_ns), *map(str, jars)]
        name = hashlib.sha256("\n".join(about).encode()).hexdigest()[:16]
        self.file = cache / FOLDER / f"{name}.aot"
        self._written = scratch / "startup.aot"

    def options(self, *, write: bool = False) -> tuple[str, ...]:
        """Return Java's options to use the cache, or, with ``write``, to write it if there is none."""
        if self.file.exists():
            return *_TRIED, f"-XX:AOTCache={self.file}"
        if not write:
            return ()
        self._written.unlink(missing_ok=True)
        return *_TRIED, f"-XX:AOTCacheOutput={self._written}"

    def keep(self) -> None:
        """Move a cache that an ended broker has written to its place. A full disk is no error."""
        if not self._written.exists():
            return
        beside = self.file.with_suffix(f".{os.getpid()}.part")
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(self._written, beside)
            os.replace(beside, self.file)
        except OSError:
            beside.unlink(missing_ok=True)


T = TypeVar("T")

# One small node on a box that also trains: a modest heap, the collector with the least overhead, and only
# the quick compiler (measured: a start takes 2.5 s of processor time instead of 4.3).
JVM_OPTIONS = (
    "-Xmx512m",
    "-Xms128m",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:+ExitOnOutOfMemoryError",
    "-Djava.awt.headless=true",
)
START_SECONDS = 300.0
"""As long as a service may take: a start takes 2.5 s of processor time, of which a busy machine gives little.
A broker that cannot start ends by itself, so the limit is for a broker that hangs."""
STOP_SECONDS = 30.0
_LOG_LIMIT = 16 * 1024 * 1024


class LocalKafka:
    """A single-node KRaft Kafka with its data in ``root/data``.

    The first start formats the directory. Later starts find the data again. The process dies with ours unless
    ``leashed`` is False.
    """

    def __init__(
        self,
        root: Path,
        *,
        port: int | None = 9092,
        log: Path | None = None,
        cache: Path | None = None,
        leashed: bool = True,
        properties: Mapping[str, str] = MappingProxyType({}),
        java_options: Sequence[str] = (),
        formatting: Sequence[str] = (),
    ) -> None:
        """Choose what to start.

        Args:
            port: None: any free port.
            cache: the folder of the jars; None: the platform's cache.
            properties: of the broker; see ``server_properties``.
            java_options: appended to the other options.
            formatting: further arguments of the first start's ``format``, such as ``--add-scram``.
        """
        self.root = root
        self.data = root / "data"
        self.port = port or free_port()
        self.log = log or root / "kafka.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._cache = cache
        self._leashed = leashed
        self._properties = properties
        self._java_options = java_options
        self._formatting = formatting
        self._startup: StartupCache | None = None
        self._stopped = threading.Event()

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def start(self, progress: Progress | None = None, *, patience: float = START_SECONDS) -> Self:
        """Start and return once the broker answers; ``patience`` is in seconds.

        Raises:
            BrokerError: the broker does not run; each subclass says what to do.
        """
        self._stopped.clear()
        self.root.mkdir(parents=True, exist_ok=True)
        with _locked(self.root) as lock:
            formatted = check_data(self.data)
            require_free(self.port)
            java, cache = find_java(), self._cache or cache_dir()
            jars = fetch_jars(cache, progress=progress, stopped=self._stopped)
            self._startup = StartupCache(cache, java, jars, scratch=self.root)
            config = self._write_config()
            mark = self._open_log()
            if not formatted:
                self._format(java, jars, config, options=self._startup.options())
            options = self._startup.options(write=True)
            command = self._command(java, jars, "kafka.Kafka", str(config), options=options)
            process = self.process = leash.spawn(
                command, log=self.log, leashed=self._leashed, keep_open=(lock,)
            )
        try:
            self._wait_until_ready(process, mark, patience)
            check_strays(self.data)
        except BaseException:
            self.kill()
            raise
        return self

    def stop(self) -> None:
        """Stop in order (SIGTERM), with SIGKILL only if that takes more than ``STOP_SECONDS``. A start that
        downloads jars in another thread ends with ``StartStopped``."""
        self._stopped.set()
        process, self.process = self.process, None
        if process is not None and leash.stop(process, patience=STOP_SECONDS) and self._startup is not None:
            self._startup.keep()

    def kill(self) -> None:
        """Kill the process (SIGKILL), like a power cut."""
        if self.process is not None:
            leash.kill_group(self.process.pid)
            self.process.wait()
            self.process = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.stop()

    def _write_config(self) -> Path:
        self.data.mkdir(parents=True, exist_ok=True)
        config = self.root / "server.properties"
        values = server_properties(
            data=self.data, port=self.port, controller_port=free_port(), more=self._properties
        )
        config.write_text("".join(f"{key}={value}\n" for key, value in values.items()), "utf-8")
        return config

    def _open_log(self) -> int:
        """Rotate a long log, and return the offset in bytes at which this run's part begins."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        size = self.log.stat().st_size if self.log.exists() else 0
        if size > _LOG_LIMIT:
            os.replace(self.log, self.log.with_suffix(".1.log"))
            return 0
        return size

    def _format(self, java: Path, jars: Sequence[Path], config: Path, *, options: Sequence[str]) -> None:
        cluster = urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode()
        tool = ("kafka.tools.StorageTool", "format", "-t", f"T{cluster[1:]}", "-c", str(config))
        command = self._command(java, jars, *tool, *self._formatting, options=options)
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise BrokerFailed(f"formatting {self.data} failed", self.log, done.stdout + done.stderr)

    def _command(
        self, java: Path, jars: Sequence[Path], main: str, *arguments: str, options: Sequence[str]
    ) -> list[str]:
        log4j = resources.files("tunewheel_local.kafka").joinpath("log4j2.xml")
        log = f"-Dlog4j2.configurationFile={log4j}"
        classpath = os.pathsep.join(str(jar) for jar in jars)
        return [
            str(java),
            *JVM_OPTIONS,
            *options,
            log,
            *self._java_options,
            "-cp",
            classpath,
            main,
            *arguments,
        ]

    def _wait_until_ready(self, process: subprocess.Popen[bytes], mark: int, patience: float) -> None:
        deadline = time.monotonic() + patience
        while True:
            # Check the broker before the time: this process may have stalled while the broker became ready.
            code = process.poll()
            if code is None and _accepts(self.port) and run_async(_answers(self.bootstrap_servers)):
                return
            if code is not None or time.monotonic() > deadline:
                reason = f"not ready after {patience:g} s" if code is None else f"exited with code {code}"
                raise diagnose(log=self.log, start=mark, data=self.data, port=self.port, reason=reason)
            time.sleep(0.05)


@contextmanager
def _locked(root: Path) -> Iterator[int]:
    """Hold the directory's lock and yield its descriptor. A child that inherits the descriptor keeps the
    lock.

    Kafka's own lock comes too late: before a second node finds ``.lock`` taken, it has already written to the
    first node's metadata log as its leader, and the first node then hangs.
    """
    descriptor = os.open(root / "broker.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataInUse(root) from None
        yield descriptor
    finally:
        os.close(descriptor)


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run ``work`` to its end, even if this thread already runs an event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def _answers(bootstrap_servers: str) -> bool:
    """Return whether the cluster lists a broker. A KRaft broker lists itself once it is unfenced and
    ready."""
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.errors import KafkaError

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers, request_timeout_ms=3_000)
    try:
        await admin.start()
        return bool((await admin.describe_cluster())["brokers"])
    except (TimeoutError, KafkaError, OSError):
        return False
    finally:
        await admin.close()
