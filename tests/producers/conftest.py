"""Kafka Connect's own worker, a PostgreSQL for Debezium, and the jars that ``jars.lock`` names."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TypeVar

import pytest
from tunewheel_contracts.cache import cache_dir
from tunewheel_local.kafka.errors import JarUnavailable
from tunewheel_local.kafka.jars import fetch_jars, read_lock
from tunewheel_local.kafka.java import find_java
from tunewheel_local.kafka.ports import free_port

HERE = Path(__file__).parent
PATIENCE_SECONDS = 600
T = TypeVar("T")
NOBODY = 65534
"""PostgreSQL does not run as root."""


@dataclass(frozen=True)
class Jdk:
    """A JDK, and the jars of Kafka's clients, Connect, Jackson, Debezium and PostgreSQL."""

    jars: tuple[Path, ...]
    java: str
    javac: str

    @property
    def classpath(self) -> str:
        return os.pathsep.join(str(jar) for jar in self.jars)

    def compile(self, *sources: Path, into: Path) -> subprocess.CompletedProcess[str]:
        words = [self.javac, "-proc:none", "-nowarn", "-cp", self.classpath, "-d", str(into)]
        return subprocess.run(
            [*words, *map(str, sources)], capture_output=True, text=True, timeout=PATIENCE_SECONDS
        )


@pytest.fixture(scope="session")
def jdk() -> Jdk:
    javac = shutil.which("javac")
    if javac is None:
        pytest.skip("this machine has no javac")
    try:
        own = read_lock((HERE / "jars.lock").read_text("utf-8"))
        log = (jar for jar in read_lock() if jar.group == "org.apache.logging.log4j")
        jars = fetch_jars(cache_dir(), (*own, *log))
    except JarUnavailable as error:
        pytest.skip(f"the jars are not in the cache and cannot be downloaded: {error}")
    return Jdk(jars, str(Path(javac).with_name("java")), javac)


@contextlib.contextmanager
def connect(
    jdk: Jdk,
    kafka: str,
    folder: Path,
    connectors: Sequence[str],
    environment: Mapping[str, str] | None = None,
) -> Iterator[Callable[[Awaitable[T]], Awaitable[T]]]:
    """Run Connect's standalone worker in ``folder`` with ``connectors``, the texts of their files; yield a
    function that waits for something while the worker runs. The worker's log is printed if that fails."""
    worker = {
        "bootstrap.servers": kafka,
        "key.converter": "org.apache.kafka.connect.storage.StringConverter",
        "value.converter": "org.apache.kafka.connect.storage.StringConverter",
        "offset.storage.file.filename": str(folder / "offsets"),
        "offset.flush.interval.ms": "1000",
        "listeners": f"http://127.0.0.1:{free_port()}",
        "plugin.discovery": "only_scan",
        "config.providers": "env",
        "config.providers.env.class": "org.apache.kafka.common.config.provider.EnvVarConfigProvider",
    }
    files = [folder / "worker.properties", *(folder / f"{n}.properties" for n in range(len(connectors)))]
    texts = ["".join(f"{name}={value}\n" for name, value in worker.items()), *connectors]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text, "utf-8")
    log4j = resources.files("tunewheel_local.kafka").joinpath("log4j2.xml")
    options = ["-Xmx512m", f"-Dlog4j2.configurationFile={log4j}", "-cp", jdk.classpath]
    command = [str(find_java()), *options, "org.apache.kafka.connect.cli.ConnectStandalone", *map(str, files)]
    log = folder / "connect.log"
    with log.open("ab") as stream:
        started = subprocess.Popen(
            command, cwd=folder, stdout=stream, stderr=stream, env=os.environ | dict(environment or {})
        )

    async def meanwhile(work: Awaitable[T]) -> T:
        task = asyncio.ensure_future(work)
        while not task.done():
            await asyncio.wait([task], timeout=1)
            assert started.poll() is None, "Connect's worker ended"
        return task.result()

    try:
        yield meanwhile
    except BaseException:
        print(log.read_text("utf-8", "replace")[-20_000:])
        raise
    finally:
        started.kill()
        started.wait(PATIENCE_SECONDS)


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL of this test, whose changes can be followed."""

    port: int
    jdk: Jdk
    client: Path

    def execute(self, *statements: str, database: str = "crm") -> None:
        words = [self.jdk.java, "-cp", f"{self.jdk.classpath}{os.pathsep}{self.client}", "Sql"]
        done = subprocess.run(
            [*words, f"jdbc:postgresql://127.0.0.1:{self.port}/{database}?user=postgres", *statements],
            capture_output=True, text=True, timeout=PATIENCE_SECONDS,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr


SQL = """
class Sql {
    public static void main(String[] words) throws Exception {
        try (var connection = java.sql.DriverManager.getConnection(words[0]);
                var statement = connection.createStatement()) {
            for (var n = 1; n < words.length; n++) statement.execute(words[n]);
        }
    }
}
"""


@pytest.fixture
def postgres(jdk: Jdk, tmp_path: Path) -> Iterator[Postgres]:
    (bundle,) = (jar for jar in jdk.jars if jar.name.startswith("embedded-postgres-binaries"))
    # pytest's folder is closed to others than the user who runs the tests.
    with tempfile.TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as made:
        folder, data = Path(made), Path(made) / "data"
        with (
            zipfile.ZipFile(bundle) as jar,
            jar.open("postgres-linux-x86_64.txz") as packed,
            tarfile.open(fileobj=packed, mode="r|xz") as binaries,
        ):
            binaries.extractall(folder, filter="tar")
        who = NOBODY if os.geteuid() == 0 else None
        if who is not None:
            shutil.chown(folder, who)
        port = free_port()

        def run(*words: str) -> None:
            subprocess.run(
                [folder / "bin" / words[0], *words[1:]], user=who, cwd=folder, check=True,
                stdout=subprocess.DEVNULL, timeout=PATIENCE_SECONDS,
            )  # fmt: skip

        run("initdb", "-D", str(data), "-U", "postgres", "-A", "trust", "--no-sync")
        settings = f"-p {port} -c unix_socket_directories='' -c wal_level=logical -c fsync=off"
        run("pg_ctl", "-D", str(data), "-l", str(folder / "log"), "-o", settings, "-w", "-t", "300", "start")
        source = tmp_path / "Sql.java"
        source.write_text(SQL)
        compiled = jdk.compile(source, into=tmp_path / "sql")
        assert compiled.returncode == 0, compiled.stderr
        try:
            yield Postgres(port, jdk, tmp_path / "sql")
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
