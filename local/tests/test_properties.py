"""What lies in a data directory decides whether a broker may start on it."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from tunewheel_contracts.topics import MAX_MESSAGE_BYTES
from tunewheel_local.kafka.errors import DataCorrupt
from tunewheel_local.kafka.properties import METADATA_LOG, check_data, server_properties

META = "#\ncluster.id=abc\nversion=1\nnode.id=1\ndirectory.id=def\n"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A formatted directory with one topic."""
    (tmp_path / "meta.properties").write_text(META)
    (tmp_path / "ticket.published-0").mkdir()
    log = tmp_path / METADATA_LOG
    log.mkdir()
    (log / "00000000000000000000.log").write_bytes(struct.pack(">qiib", 0, 100, 0, 2) + b"\0" * 80)
    return tmp_path


def test_nothing_yet_is_unformatted(tmp_path: Path) -> None:
    assert not check_data(tmp_path / "absent")
    assert not check_data(tmp_path)
    (tmp_path / ".lock").touch()
    assert not check_data(tmp_path)


def test_a_whole_directory_is_formatted(data: Path) -> None:
    assert check_data(data)


def test_damage_is_named_with_the_way_out(data: Path) -> None:
    def says(words: str) -> None:
        with pytest.raises(DataCorrupt, match=f"{words}.*restore it from a copy"):
            check_data(data)

    segment = data / METADATA_LOG / "00000000000000000000.log"
    whole = segment.read_bytes()
    segment.write_bytes(b"\x07" * 50)
    says("does not begin with a record batch")
    segment.write_bytes(whole[:9])
    says("is cut off")
    segment.unlink()
    says("has no log segment")
    (data / METADATA_LOG).rmdir()
    says("is missing beside 1 partitions")
    (data / "ticket.published-0.1f2e-stray").mkdir()
    says("has lost topics")
    (data / "meta.properties").write_text(META.replace("node.id=1", "node.id=7"))
    says("node.id=7")
    (data / "meta.properties").write_bytes(b"\xff\xfe")
    says("meta.properties is unreadable")
    (data / "meta.properties").write_text("version=1\n")
    says("names no cluster.id")
    (data / "meta.properties").unlink()
    says("meta.properties is missing, yet the directory is not empty")


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(DataCorrupt, match="it is a file"):
        check_data(tmp_path / "data")


def test_the_broker_takes_what_the_topics_allow(tmp_path: Path) -> None:
    values = server_properties(data=tmp_path, port=1, controller_port=2, more={})
    assert int(values["message.max.bytes"]) > MAX_MESSAGE_BYTES
    assert values["auto.create.topics.enable"] == "false"
    assert values["group.initial.rebalance.delay.ms"] == "0"
    assert all("0.0.0.0" not in value for value in values.values()), "it listens on this machine only"


def test_listeners_are_added_and_all_else_is_replaced(tmp_path: Path) -> None:
    more = {"listeners": "TLS://127.0.0.1:3", "num.io.threads": "1"}
    values = server_properties(data=tmp_path, port=1, controller_port=2, more=more)
    assert values["listeners"] == "PLAINTEXT://127.0.0.1:1,CONTROLLER://127.0.0.1:2,TLS://127.0.0.1:3"
    assert values["num.io.threads"] == "1"
