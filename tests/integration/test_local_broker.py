"""The local broker is a real Kafka that keeps its data, stops in order, and says what is wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from tunewheel_contracts.cache import cache_dir
from tunewheel_local.kafka.broker import FOLDER, LocalKafka, _locked
from tunewheel_local.kafka.errors import DataCorrupt, DataInUse, PortInUse
from tunewheel_local.supervisor import BrokerProgram, Supervisor
from tunewheel_local.topics import Topic, check_topics, ensure_topics, wanted_topics
from tunewheel_testing.waiting import until, wait_for

pytestmark = pytest.mark.integration


async def write(servers: str, topic: str, value: bytes) -> None:
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True) as producer:
        await producer.send_and_wait(topic, value)


async def read_all(servers: str, topic: str) -> list[bytes]:
    async with AIOKafkaConsumer(topic, bootstrap_servers=servers, auto_offset_reset="earliest") as consumer:
        ends = await consumer.end_offsets(consumer.assignment())
        values: list[bytes] = []
        while len(values) < sum(ends.values()):
            values.append((await consumer.getone()).value)
        return values


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_the_session_broker_has_every_topic(kafka: str) -> None:
    report = await check_topics({"bootstrap_servers": kafka})
    assert report.in_order
    assert len(wanted_topics()) > 30


@pytest.mark.nightly("kills")
def test_data_outlives_a_clean_stop_and_a_kill_and_starts_get_quicker(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    (cache / "maven").symlink_to(cache_dir() / "maven")
    broker = LocalKafka(tmp_path, port=None, cache=cache).start()
    try:
        topic = Topic("t", 1, {})
        asyncio.run(ensure_topics({"bootstrap_servers": broker.bootstrap_servers}, [topic]))
        asyncio.run(write(broker.bootstrap_servers, "t", b"one"))
        process = broker.process
        broker.stop()
        assert process is not None
        assert process.returncode in (0, 128 + signal.SIGTERM), "SIGTERM must be enough"
        (startup,) = (cache / FOLDER).iterdir()

        broker.start()
        assert f"-XX:AOTCache={startup}" in psutil.Process(broker.process.pid).cmdline()
        assert asyncio.run(read_all(broker.bootstrap_servers, "t")) == [b"one"]
        asyncio.run(write(broker.bootstrap_servers, "t", b"two"))
        broker.kill()

        with startup.open("r+b") as damaged:
            damaged.seek(startup.stat().st_size // 2)
            damaged.write(b"not a class" * 100)
        broker.start()
        assert asyncio.run(read_all(broker.bootstrap_servers, "t")) == [b"one", b"two"]
        report = asyncio.run(ensure_topics({"bootstrap_servers": broker.bootstrap_servers}, [topic]))
        assert report.created == ()
    finally:
        broker.stop()


@pytest.mark.parametrize("is_spawned", [False, True])
async def test_a_start_that_is_stopped_leaves_neither_a_broker_nor_a_thread_that_starts_one(
    tmp_path: Path, is_spawned: bool
) -> None:
    broker, supervisor = LocalKafka(tmp_path, port=None), Supervisor()
    starting = asyncio.create_task(supervisor.start(BrokerProgram(broker)))
    await until(
        lambda: (tmp_path / "broker.lock").exists() and (broker.process is not None or not is_spawned)
    )
    starting.cancel()
    await supervisor.stop()
    assert broker.process is None
    with _locked(tmp_path):  # whoever starts a broker, and the broker, hold the lock
        pass


def test_a_port_in_use_names_the_port_and_the_ways_out(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port}: in use.*--bootstrap-servers localhost:{port}"):
            LocalKafka(tmp_path, port=port).start()


def test_two_brokers_do_not_share_a_data_directory(kafka_broker: LocalKafka) -> None:
    second = LocalKafka(kafka_broker.root, port=None, log=kafka_broker.root / "second.log")
    with pytest.raises(DataInUse, match="another broker runs on this data directory"):
        second.start()
    assert not (kafka_broker.root / "second.log").exists(), "it must not even be tried"


@pytest.mark.nightly("kills")
def test_a_corrupt_data_directory_says_so(tmp_path: Path) -> None:
    broker = LocalKafka(tmp_path, port=None).start()
    broker.stop()
    for snapshot in broker.data.glob("__cluster_metadata-0/*.log"):
        snapshot.write_bytes(b"\x07" * 4096)
    for snapshot in broker.data.glob("__cluster_metadata-0/*.checkpoint"):
        snapshot.unlink()
    with pytest.raises(DataCorrupt, match=r"restore it from a copy, or.*move it away"):
        broker.start()
    assert not broker.running


async def test_a_changed_spec_is_reported_and_applied_only_when_asked(kafka: str, project: str) -> None:
    options = {"bootstrap_servers": kafka}
    theirs = {"segment.ms": "7654321"}
    before = Topic(project, 2, {"retention.ms": "60000", "cleanup.policy": "delete", **theirs})
    assert (await ensure_topics(options, [before])).created == (project,)
    wanted = replace(before, partitions=3, configs={"retention.ms": "-1", "cleanup.policy": "compact"})

    reported = await ensure_topics(options, [wanted])
    assert {d.setting for d in reported.differences} == {"partitions", "retention.ms", "cleanup.policy"}
    assert f"{project}: partitions is 2, the spec says 3" in [str(d) for d in reported.differences]

    applied = await ensure_topics(options, [wanted], apply=True)
    assert applied.in_order
    kept = await check_topics(options, [replace(wanted, configs=theirs)])
    assert kept.in_order, "an operator's own setting was reset"
    fewer = await ensure_topics(options, [replace(wanted, partitions=1)], apply=True)
    assert [str(d) for d in fewer.differences] == [f"{project}: partitions is 3, the spec says 1"]


@pytest.mark.nightly("kills")
def test_the_broker_dies_with_its_parent(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from tunewheel_local.kafka.broker import LocalKafka;"
        "broker = LocalKafka(Path(sys.argv[1]), port=None).start();"
        "print(broker.process.pid, flush=True); sys.stdin.read()"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    wait_for(lambda: gone(pid))
