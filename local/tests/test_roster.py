"""Which processes there are, and where they listen."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path

import pytest
from pydantic import SecretStr
from tunewheel_local.places import Var
from tunewheel_local.roster import (
    CONSOLE,
    ENGINE,
    GATEWAY,
    ROSTER,
    Member,
    ServicePortTaken,
    UnknownService,
    assign_ports,
    choose,
    environment,
)
from tunewheel_local.wheel_secrets import WheelSecrets
from tunewheel_runtime.identity.command_keys import SIGNERS


def test_names_and_ports_are_distinct_and_modules_belong_to_packages() -> None:
    assert len({member.name for member in ROSTER}) == len(ROSTER) == 10
    assert len({member.port for member in ROSTER}) == len(ROSTER)
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


SECRETS = WheelSecrets(
    SecretStr("the-key"), Path("/wheel/keys.yaml"), SecretStr("for sessions"), SecretStr("for pseudonyms"),
    {name: SecretStr(f"of {name}") for name in SIGNERS}, Path("/wheel/signing-keys.json"),
)  # fmt: skip
OURS = ("TUNEWHEEL_API_KEYS_FILE", "TUNEWHEEL_ENGINE_API_KEY", "TUNEWHEEL_SESSION_SECRET",
        "TUNEWHEEL_PSEUDONYM_SECRET", "TUNEWHEEL_SIGNING_KEY")  # fmt: skip


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*OURS, "TUNEWHEEL_STORE_URL", "TUNEWHEEL_IDENTITY"):
        monkeypatch.delenv(name, raising=False)


def told(
    member: Member,
    *,
    shared: dict[str, str] | None = None,
    of: tuple[Member, ...] = ROSTER,
    root: Path = Path("/wheel"),
) -> dict[str, str]:
    return environment(
        member,
        ports={name: port for one in of for name, port in one.ports.items()},
        var=Var(root),
        shared=shared or {},
        engine_url="http://e",
        wheel_secrets=SECRETS,
    )


def test_a_service_is_told_all_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    env = told(ENGINE, shared={"TUNEWHEEL_BOOTSTRAP_SERVERS": "a:1"})
    assert env["TUNEWHEEL_BOOTSTRAP_SERVERS"] == "a:1"
    assert env["TUNEWHEEL_STORE_URL"] == "file:///wheel/store"
    assert (env["TUNEWHEEL_HTTP_PORT"], env["TUNEWHEEL_HEALTH_PORT"]) == ("8110", "9110")
    assert env["TUNEWHEEL_ENGINE_URL"] == "http://e"
    assert "MALLOC_TOP_PAD_" in env
    monkeypatch.setenv("TUNEWHEEL_STORE_URL", "s3://bucket")
    assert told(ENGINE)["TUNEWHEEL_STORE_URL"] == "s3://bucket", "a store of one's own is left as it is"


def test_a_base_is_copied_only_to_a_store_that_other_machines_may_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (train,) = choose(["train"])
    monkeypatch.delenv("TUNEWHEEL_MIRROR_BASES", raising=False)
    assert told(train)["TUNEWHEEL_MIRROR_BASES"] == "false"
    monkeypatch.setenv("TUNEWHEEL_STORE_URL", "s3://bucket")
    assert "TUNEWHEEL_MIRROR_BASES" not in told(train)
    monkeypatch.delenv("TUNEWHEEL_STORE_URL")
    monkeypatch.setenv("TUNEWHEEL_MIRROR_BASES", "true")
    assert told(train)["TUNEWHEEL_MIRROR_BASES"] == "true"


def test_the_console_is_told_where_clients_find_the_doors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUNEWHEEL_PUBLIC_CONSOLE_URL", "https://wheel.example")
    found = told(CONSOLE, of=(CONSOLE, GATEWAY))
    assert found["TUNEWHEEL_PUBLIC_GATEWAY_URL"] == "http://127.0.0.1:8100"
    assert found["TUNEWHEEL_PUBLIC_CONSOLE_URL"] == "https://wheel.example", "an address of one's own stays"
    assert "TUNEWHEEL_PUBLIC_INGEST_URL" not in found, "there is none"
    assert "TUNEWHEEL_PUBLIC_GATEWAY_URL" not in told(GATEWAY)


def test_a_secret_is_told_to_nobody_who_does_not_need_it() -> None:
    found = {member.name: [name for name in OURS[1:] if name in told(member)] for member in ROSTER}
    assert {name: names for name, names in found.items() if names} == {
        "gateway": ["TUNEWHEEL_ENGINE_API_KEY", "TUNEWHEEL_SIGNING_KEY"],
        "ingest": ["TUNEWHEEL_SIGNING_KEY"],
        "console": ["TUNEWHEEL_SESSION_SECRET", "TUNEWHEEL_SIGNING_KEY"],
        "curate": ["TUNEWHEEL_PSEUDONYM_SECRET", "TUNEWHEEL_SIGNING_KEY"],
        "eval": ["TUNEWHEEL_SIGNING_KEY"],
        "registry": ["TUNEWHEEL_SIGNING_KEY"],
        "index": ["TUNEWHEEL_PSEUDONYM_SECRET"],
    }
    assert told(GATEWAY)["TUNEWHEEL_ENGINE_API_KEY"] == "the-key"
    signing = [member for member in ROSTER if member.service in SIGNERS]
    assert len(signing) == len(SIGNERS)
    assert all(told(member)["TUNEWHEEL_SIGNING_KEY"] == f"of {member.service}" for member in signing)
    assert {told(member)["TUNEWHEEL_SIGNING_KEYS_FILE"] for member in ROSTER} == {"/wheel/signing-keys.json"}
    assert {told(member)["TUNEWHEEL_API_KEYS_FILE"] for member in ROSTER} == {"/wheel/keys.yaml"}
    assert "TUNEWHEEL_IDENTITY" not in told(GATEWAY), "services ask who calls"


def test_an_engine_that_is_not_of_this_wheel_gets_no_key_of_it() -> None:
    assert "TUNEWHEEL_ENGINE_API_KEY" not in told(GATEWAY, of=(GATEWAY,))


@pytest.mark.parametrize("shared", [False, True], ids=["environment", "plan"])
def test_what_the_user_said_wins(monkeypatch: pytest.MonkeyPatch, shared: bool) -> None:
    said = dict.fromkeys((*OURS, "TUNEWHEEL_IDENTITY"), "the user's")
    if not shared:
        for name, value in said.items():
            monkeypatch.setenv(name, value)
    for member in ROSTER:
        found = told(member, shared=said if shared else {})
        assert {name: found[name] for name in said} == said, member.name


def test_the_engine_knows_its_gateway_whatever_file_the_user_has_for_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TUNEWHEEL_API_KEYS_FILE", "/users/keys.yaml")
    assert told(GATEWAY)["TUNEWHEEL_API_KEYS_FILE"] == "/users/keys.yaml"
    assert told(GATEWAY)["TUNEWHEEL_ENGINE_API_KEY"] == "the-key"
    assert told(ENGINE)["TUNEWHEEL_API_KEYS_FILE"] == "/wheel/keys.yaml"


@pytest.mark.parametrize("said", [{}, {"TUNEWHEEL_DTYPE": "float32"}, {"TUNEWHEEL_EVAL_DTYPE": "float32"}])
def test_a_folder_s_models_are_judged_and_served_in_its_precision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: dict[str, str]
) -> None:
    both = ("TUNEWHEEL_DTYPE", "TUNEWHEEL_EVAL_DTYPE")
    for name in both:
        monkeypatch.delenv(name, raising=False)
    assert not {*both} & told(ENGINE, root=tmp_path).keys()
    Var(tmp_path).precision.write_text("bfloat16")
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    found = told(ENGINE, root=tmp_path)
    assert {name: found[name] for name in both} == dict.fromkeys(both, "bfloat16") | said
