"""The local broker's configuration, and checks of its data directory."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from tunewheel_contracts.topics import DEAD_LETTER_OVERHEAD, MAX_MESSAGE_BYTES

from tunewheel_local.kafka.errors import DataCorrupt

NODE_ID = 1
_BATCH_HEAD = struct.Struct(">qiib")
METADATA_LOG = "__cluster_metadata-0"
_OF_LISTENERS = ("listeners", "advertised.listeners", "listener.security.protocol.map")


def server_properties(
    *, data: Path, port: int, controller_port: int, more: Mapping[str, str]
) -> dict[str, str]:
    """Return the properties of one node that is broker and controller (KRaft).

    Properties in ``more`` replace ours, except lists of listeners, which are appended to ours.
    """
    values: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": NODE_ID,
        "controller.quorum.voters": f"{NODE_ID}@127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": str(data),
        "auto.create.topics.enable": "false",
        "message.max.bytes": MAX_MESSAGE_BYTES + DEAD_LETTER_OVERHEAD,
        # A single node cannot replicate, and a few partitions are created faster than fifty.
        "default.replication.factor": 1,
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 1,
        "group.initial.rebalance.delay.ms": 0,
        # This node is the only voter, so an election need not wait a second at every start.
        "controller.quorum.election.timeout.ms": 50,
        "controller.quorum.election.backoff.max.ms": 50,
        # Idle records tell other voters that the leader lives. There are no other voters, and the records are
        # a third of what an unused broker costs.
        "metadata.max.idle.interval.ms": 0,
        # A wheel that was stopped for months must keep its offsets.
        "offsets.retention.minutes": 525_600,
        "num.network.threads": 2,
        "num.io.threads": 4,
        "log.cleaner.dedupe.buffer.size": 16 * 1024 * 1024,
        "log.segment.bytes": 128 * 1024 * 1024,
    }
    for key, value in more.items():
        values[key] = f"{values[key]},{value}" if key in _OF_LISTENERS else value
    return {key: str(value) for key, value in values.items()}


def check_data(data: Path) -> bool:
    """Return whether ``data`` is already formatted; an absent or empty directory is not.

    Raises:
        DataCorrupt: the directory's contents are damaged, or are not of this broker.
    """
    if not data.exists():
        return False
    if not data.is_dir():
        raise DataCorrupt(data, "it is a file")
    names = {path.name for path in data.iterdir()} - {".lock"}
    if not names:
        return False
    meta = read_meta(data)
    if meta is None:
        raise DataCorrupt(data, "meta.properties is missing, yet the directory is not empty")
    if "cluster.id" not in meta or meta.get("version") != "1":
        raise DataCorrupt(data, "meta.properties names no cluster.id, or another version than 1")
    if meta.get("node.id") != str(NODE_ID):
        raise DataCorrupt(data, f"meta.properties says node.id={meta.get('node.id')}, ours is {NODE_ID}")
    check_strays(data)
    partitions = {name for name in names if name.rpartition("-")[2].isdigit()}
    if partitions and METADATA_LOG not in partitions:
        # Kafka would treat every partition as a stray and set it aside.
        raise DataCorrupt(data, f"{METADATA_LOG} is missing beside {len(partitions)} partitions")
    if METADATA_LOG in partitions:
        _check_metadata_log(data)
    return True


def check_strays(data: Path) -> None:
    """Raise if Kafka set partitions aside because its metadata log does not name their topic any more."""
    strays = sorted(path.name for path in data.glob("*-stray"))
    if strays:
        reason = f"{METADATA_LOG} was damaged and has lost topics; Kafka set {len(strays)} partitions aside"
        raise DataCorrupt(data, f"{reason}, the first is {strays[0]}")


def _check_metadata_log(data: Path) -> None:
    """Raise for a metadata log that Kafka would truncate to nothing, which would lose every topic.

    Record batch, Kafka protocol: base offset (int64), length and leader epoch (int32 each), magic 2.
    """
    segments = sorted((data / METADATA_LOG).glob("*.log"))
    if not segments:
        raise DataCorrupt(data, f"{METADATA_LOG} has no log segment")
    with segments[0].open("rb") as file:
        head = file.read(_BATCH_HEAD.size)
    if not head:
        return
    if len(head) < _BATCH_HEAD.size:
        raise DataCorrupt(data, f"{METADATA_LOG}/{segments[0].name} is cut off")
    offset, _, _, magic = _BATCH_HEAD.unpack(head)
    if magic != 2 or offset != int(segments[0].stem):
        raise DataCorrupt(data, f"{METADATA_LOG}/{segments[0].name} does not begin with a record batch")


def read_meta(data: Path) -> dict[str, str] | None:
    """Return ``meta.properties`` as a mapping, None if there is none."""
    try:
        text = (data / "meta.properties").read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise DataCorrupt(data, f"meta.properties is unreadable: {error}") from error
    lines = (line.split("=", 1) for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {key.strip(): value.strip() for key, value in lines}
