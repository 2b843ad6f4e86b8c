"""What the tests above the packages share: real Kafka brokers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.errors import JarUnavailable
from tunewheel_local.topics import ensure_topics

BrokerFactory = Callable[..., LocalKafka]


def start_broker(root: Path, port: int | None = None) -> LocalKafka:
    """Start a broker with all topics."""
    try:
        broker = LocalKafka(root, port=port).start()
    except JarUnavailable as error:
        pytest.skip(f"Kafka's jars are not in the cache and cannot be downloaded: {error}")
    try:
        report = asyncio.run(ensure_topics({"bootstrap_servers": broker.bootstrap_servers}))
        assert report.in_order, report
    except BaseException:
        broker.stop()
        raise
    return broker


@pytest.fixture(scope="session")
def kafka_broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """The session's broker. Tests share it: use topics' keys, projects and groups of your own."""
    broker = start_broker(tmp_path_factory.mktemp("kafka"))
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def kafka(kafka_broker: LocalKafka) -> str:
    """Bootstrap servers of the session's broker; all topics exist."""
    return kafka_broker.bootstrap_servers


@pytest.fixture
def broker_factory(tmp_path: Path) -> Iterator[BrokerFactory]:
    """Call it for a broker of the test's own (topics made); ``root`` and ``port`` bring one back."""
    started: list[LocalKafka] = []

    def make(root: Path | None = None, port: int | None = None) -> LocalKafka:
        broker = start_broker(root or tmp_path / f"kafka-{len(started)}", port)
        started.append(broker)
        return broker

    yield make
    for broker in started:
        broker.kill()  # half a minute goes by until one stops whose clients were killed


@pytest.fixture
def fresh_kafka(broker_factory: BrokerFactory) -> str:
    """Bootstrap servers of a broker that only this test uses; all topics exist."""
    return broker_factory().bootstrap_servers


@pytest.fixture(scope="module")
def module_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of a broker that only this module's tests use; all topics exist."""
    broker = start_broker(tmp_path_factory.mktemp("kafka"))
    yield broker.bootstrap_servers
    broker.kill()


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    """A project name that no other test uses on the session's broker."""
    from tunewheel_contracts.identity import content_id

    return content_id("p", request.node.nodeid)
