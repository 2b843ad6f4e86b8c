"""Which processes there are, and where they listen."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest
from tunewheel_cli.places import Var
from tunewheel_cli.roster import (
    ENGINE,
    ROSTER,
    ServicePortTaken,
    UnknownService,
    assign_ports,
    choose,
    environment,
)


def test_names_and_ports_are_distinct_and_modules_belong_to_packages() -> None:
    assert (
        len({member.name for member in ROSTER}) == len({member.port for member in ROSTER}) == len(ROSTER) == 9
    )
    for member in ROSTER:
        assert importlib.util.find_spec(member.module.split(".")[0]) is not None, member.module


def test_members_are_chosen_by_name_in_roster_order() -> None:
    assert choose(None) == ROSTER
    assert [member.name for member in choose(["curate", "engine"])] == ["engine", "curate"]
    with pytest.raises(UnknownService, match="no service is called 'nope'"):
        choose(["nope"])


def test_a_port_in_use_is_an_error_or_another_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ServicePortTaken, match=f"port {port} of engine: in use.*--auto-ports"):
            assign_ports([ENGINE], overrides={"engine": port})
        assert assign_ports([ENGINE], overrides={"engine": port}, auto=True)["engine"] != port


def test_a_service_is_told_all_it_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TUNEWHEEL_STORE_URL", raising=False)
    shared = {"TUNEWHEEL_BOOTSTRAP_SERVERS": "a:1"}
    env = environment(
        ENGINE,
        ports={"engine": 5, "engine-health": 6},
        var=Var.at(tmp_path),
        shared=shared,
        engine_url="http://e",
    )
    assert env["TUNEWHEEL_BOOTSTRAP_SERVERS"] == "a:1"
    assert env["TUNEWHEEL_STORE_URL"] == (tmp_path / "store").as_uri()
    assert (env["TUNEWHEEL_HTTP_PORT"], env["TUNEWHEEL_HEALTH_PORT"]) == ("5", "6")
    assert env["TUNEWHEEL_ENGINE_URL"] == "http://e"
    assert "MALLOC_TOP_PAD_" in env
    monkeypatch.setenv("TUNEWHEEL_STORE_URL", "s3://bucket")
    env = environment(
        ENGINE,
        ports={"engine": 5, "engine-health": 6},
        var=Var.at(tmp_path),
        shared=shared,
        engine_url="http://e",
    )
    assert env["TUNEWHEEL_STORE_URL"] == "s3://bucket", "a store of one's own is left as it is"
