"""Jars come one by one from a Maven repository, are verified, and never half kept."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tunewheel_local.kafka.broker import LocalKafka, _locked
from tunewheel_local.kafka.errors import JarCorrupt, JarUnavailable, StartStopped
from tunewheel_local.kafka.jars import Jar, fetch_jars, read_lock
from tunewheel_local.supervisor import BrokerProgram, State, Supervisor
from tunewheel_testing.waiting import until, wait_for

CONTENT = b"PK\x03\x04 not much of a jar"


@dataclass
class Mirror:
    """A Maven repository on this machine, named in jgo's settings."""

    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    sent: int | None = None
    """After so many bytes of each jar it waits for ``go_on``; None: it does not wait."""
    go_on: threading.Event = field(default_factory=threading.Event)


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    state = Mirror()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            state.asked.append(self.path)
            body = state.files.get(self.path.lstrip("/"), b"" if state.sent is None else CONTENT)
            self.send_response(200 if body else 404)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if state.sent is not None:
                self.wfile.write(body[: state.sent])
                assert state.go_on.wait(60)
            self.wfile.write(body[state.sent or 0 :])

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    settings = tmp_path / "jgo.conf"
    settings.write_text(f"[repositories]\ncentral = http://127.0.0.1:{server.server_port}\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    yield state
    server.shutdown()
    server.server_close()


def jar(artifact: str = "a", content: bytes = CONTENT) -> Jar:
    return Jar("org.example", artifact, "1.0", hashlib.sha256(content).hexdigest())


def test_the_lock_names_kafka_and_a_log_binding_of_one_version_each() -> None:
    locked = read_lock()
    versions = {f"{j.group}:{j.artifact}": j.version for j in locked}
    assert len(versions) == len(locked) > 40
    assert versions["org.apache.kafka:kafka_2.13"] == versions["org.apache.kafka:kafka-clients"] == "4.3.1"
    assert (
        versions["org.apache.logging.log4j:log4j-slf4j-impl"]
        == versions["org.apache.logging.log4j:log4j-core"]
    )


def test_a_line_that_is_no_coordinate_is_named() -> None:
    with pytest.raises(ValueError, match=r"jars.lock line 2: 'org.example:a:1.0'"):
        read_lock("# a comment\norg.example:a:1.0\n")


def test_a_jar_is_fetched_once_and_fetched_again_when_damaged(mirror: Mirror, tmp_path: Path) -> None:
    wanted = jar()
    mirror.files[wanted.path.as_posix()] = CONTENT
    seen: list[tuple[int, int]] = []
    (path,) = fetch_jars(tmp_path / "cache", [wanted], lambda ready, total: seen.append((ready, total)))
    assert path.read_bytes() == CONTENT
    assert seen == [(0, 1), (1, 1)]

    asked = len(mirror.asked)
    fetch_jars(tmp_path / "cache", [wanted])
    assert len(mirror.asked) == asked, "what is there is not asked for again"

    path.write_bytes(CONTENT[:5])
    assert fetch_jars(tmp_path / "cache", [wanted])[0].read_bytes() == CONTENT
    assert not list((tmp_path / "cache").glob("maven/.fetch-*")), "nothing half done is left"


def test_a_jar_with_another_hash_is_refused_and_not_kept(mirror: Mirror, tmp_path: Path) -> None:
    wanted = jar()
    mirror.files[wanted.path.as_posix()] = b"something else"
    with pytest.raises(JarCorrupt, match=r"org.example:a:1.0: SHA-256 is .*jars.lock says"):
        fetch_jars(tmp_path / "cache", [wanted])
    assert not (tmp_path / "cache" / "maven" / wanted.path).exists()


def test_a_failed_download_says_what_to_do_and_keeps_the_others(mirror: Mirror, tmp_path: Path) -> None:
    there, missing = jar("there"), jar("missing")
    mirror.files[there.path.as_posix()] = CONTENT
    with pytest.raises(
        JarUnavailable, match=r"org.example:missing:1.0: download failed.*run the same command again"
    ):
        fetch_jars(tmp_path / "cache", [there, missing])
    asked = mirror.asked.count("/" + there.path.as_posix())
    mirror.files[missing.path.as_posix()] = CONTENT
    assert len(fetch_jars(tmp_path / "cache", [there, missing])) == 2
    assert mirror.asked.count("/" + there.path.as_posix()) == asked


def test_no_network_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = tmp_path / "jgo.conf"
    settings.write_text("[repositories]\ncentral = http://127.0.0.1:9\n")
    monkeypatch.setenv("JGO_CONFIG_FILE", str(settings))
    monkeypatch.setenv("M2_REPO", str(tmp_path / "m2"))
    with pytest.raises(JarUnavailable, match="check the network or name a Maven mirror"):
        fetch_jars(tmp_path / "cache", [jar()])


def test_the_machines_own_maven_repository_is_used_first(mirror: Mirror, tmp_path: Path) -> None:
    wanted = jar()
    own = tmp_path / "m2" / wanted.path
    own.parent.mkdir(parents=True)
    own.write_bytes(CONTENT)
    assert fetch_jars(tmp_path / "cache", [wanted])[0].read_bytes() == CONTENT
    assert mirror.asked == []


@pytest.mark.parametrize("sent", [0, 5])
def test_a_stop_ends_downloads_while_their_server_says_nothing(
    mirror: Mirror, tmp_path: Path, sent: int
) -> None:
    wanted = [jar(f"a{number}") for number in range(20)]
    mirror.sent, stopped, cache = sent, threading.Event(), tmp_path / "cache"
    with ThreadPoolExecutor(1) as pool:
        fetching = pool.submit(fetch_jars, cache, wanted, stopped=stopped)
        wait_for(lambda: len(mirror.asked) == 8)
        stopped.set()
        with pytest.raises(StartStopped):
            fetching.result(60)
    assert not mirror.go_on.is_set()
    mirror.go_on.set()
    wait_for(lambda: not list(cache.glob("maven/.fetch-*")))
    assert len(mirror.asked) == 8, "no jar is asked for after the stop"
    mirror.sent = None
    mirror.files |= {one.path.as_posix(): CONTENT for one in wanted}
    assert len(fetch_jars(cache, wanted, stopped=threading.Event())) == 20


async def test_a_broker_that_is_stopped_while_its_jars_come_is_stopped_at_once(
    mirror: Mirror, tmp_path: Path
) -> None:
    mirror.sent = 5
    broker, supervisor = LocalKafka(tmp_path / "kafka", port=None, cache=tmp_path / "cache"), Supervisor()
    starting = asyncio.create_task(supervisor.start(BrokerProgram(broker)))
    await until(lambda: mirror.asked)
    starting.cancel()
    await supervisor.stop()
    assert not mirror.go_on.is_set()
    assert (supervisor["broker"].state, broker.process) == (State.STOPPED, None)
    with _locked(broker.root):  # whoever starts a broker holds the lock
        mirror.go_on.set()
