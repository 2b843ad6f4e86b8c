"""The secrets of a wheel's folder: made once, the owner's alone, and no new pseudonyms for old versions."""

from __future__ import annotations

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr
from tunewheel_client import Context, contexts
from tunewheel_local.kafka.broker import run_async
from tunewheel_local.places import Var
from tunewheel_local.wheel_secrets import (
    LOCAL,
    SecretsUnusable,
    local_key,
    make_secrets,
    rotate_local_key,
)
from tunewheel_runtime.identity.command_keys import SIGNERS, read_public_keys
from tunewheel_runtime.identity.keys import read_keys
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.store import ObjectStore


@pytest.fixture
def var(tmp_path: Path) -> Var:
    return Var(tmp_path / "var")


def modes(folder: Path) -> set[int]:
    return {path.stat().st_mode & 0o777 for path in folder.iterdir()}


def test_secrets_are_made_once_and_are_their_owners_alone(var: Var) -> None:
    umask = os.umask(0)
    try:
        made = make_secrets(var, pseudonyms=True)
    finally:
        os.umask(umask)
    assert sorted(path.name for path in var.identity.iterdir()) == [
        "api-key", "keys.yaml", "pseudonym-secret", "session-secret", "signing-key-console",
        "signing-key-curate", "signing-key-eval", "signing-key-ingest", "signing-key-registry",
        "signing-key-serve-gateway", "signing-keys.json",
    ]  # fmt: skip
    assert var.identity.stat().st_mode & 0o777 == 0o700
    assert modes(var.identity) == {0o600}
    assert make_secrets(var, pseudonyms=True) == made
    assert local_key(var) == made.api_key
    secrets = [made.api_key, made.session_secret, made.pseudonym_secret]
    values = [secret.get_secret_value() for secret in secrets if secret is not None]
    assert len(set(values)) == 3
    assert all(len(value) >= 40 for value in values)
    assert not any(value in repr(made) for value in values)
    assert values[0] not in var.keys_file.read_text()


def test_the_key_may_do_everything_everywhere(var: Var) -> None:
    ring = read_keys((made := make_secrets(var, pseudonyms=True)).keys_file)
    principal = ring.find(made.api_key.get_secret_value())
    assert principal is not None
    assert principal.name == LOCAL
    assert all(ring.caller(principal).may(role, "any") for role in Role)
    assert all(ring.caller(principal).projects_of(role) is None for role in Role)


def test_the_key_of_an_earlier_release_becomes_an_experts_and_a_narrower_one_stays(var: Var) -> None:
    make_secrets(var, pseudonyms=True)
    for left_out, gains in (({"expert"}, True), ({"expert", "operator"}, False)):
        said = yaml.safe_load(var.keys_file.read_text())
        said["keys"][LOCAL]["roles"] = sorted({role.value for role in Role} - left_out)
        var.keys_file.write_text(yaml.safe_dump(said))
        make_secrets(var, pseudonyms=True)
        assert ("expert" in yaml.safe_load(var.keys_file.read_text())["keys"][LOCAL]["roles"]) == gains


def test_secrets_that_lie_open_are_closed(var: Var) -> None:
    make_secrets(var, pseudonyms=True)
    var.identity.chmod(0o755)
    for path in var.identity.iterdir():
        path.chmod(0o644)
    make_secrets(var, pseudonyms=True)
    assert var.identity.stat().st_mode & 0o777 == 0o700
    assert modes(var.identity) == {0o600}


def test_those_who_start_at_once_get_the_same(var: Var) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: make_secrets(var, pseudonyms=True), range(16)))
    assert len({str(vars_of(one)) for one in made}) == 1
    assert len(list(var.identity.iterdir())) == 5 + len(SIGNERS), "no half-written file is left"


def vars_of(made: object) -> dict[str, str]:
    return {
        name: secret.get_secret_value() if hasattr(secret := getattr(made, name), "get_secret_value") else ""
        for name in ("api_key", "session_secret", "pseudonym_secret")
    }


@pytest.mark.parametrize("held", ["kafka", "store"])
def test_a_folder_that_built_without_a_pseudonym_secret_goes_on_without(var: Var, held: str) -> None:
    (var.root / held / "data").mkdir(parents=True)
    assert make_secrets(var, pseudonyms=True).pseudonym_secret is None
    assert make_secrets(var, pseudonyms=True).pseudonym_secret is None


def test_a_look_at_a_store_that_is_not_there_yet_costs_no_pseudonym_secret(var: Var) -> None:
    assert run_async(ObjectStore(var.store_url).exists("datasets/ds-1/manifest.json")) is False
    assert var.store.is_dir(), "the look made it"
    assert make_secrets(var, pseudonyms=True).pseudonym_secret is not None


def test_a_folder_keeps_the_pseudonym_secret_that_its_versions_were_made_with(var: Var) -> None:
    first = make_secrets(var, pseudonyms=True).pseudonym_secret
    assert first is not None
    for held in (var.kafka, var.store):
        held.mkdir()
    assert make_secrets(var, pseudonyms=True).pseudonym_secret == first
    assert make_secrets(var, pseudonyms=False).pseudonym_secret == first


def test_a_start_that_is_cut_off_between_two_files_is_taken_up(var: Var) -> None:
    made = make_secrets(var, pseudonyms=True)
    for name in ("keys.yaml", "session-secret", "signing-key-eval"):
        (var.identity / name).unlink()
    again = make_secrets(var, pseudonyms=True)
    assert [again.signing_keys[name] == made.signing_keys[name] for name in SIGNERS] == [
        name != "eval" for name in SIGNERS
    ]
    public = read_public_keys(again.signing_keys_file)
    assert [json.loads(key.get_secret_value())["kid"] in public for key in again.signing_keys.values()] == [
        True
    ] * len(SIGNERS)
    assert again.api_key == made.api_key
    assert again.session_secret != made.session_secret
    assert read_keys(again.keys_file).find(again.api_key.get_secret_value()) is not None


def test_a_file_of_keys_without_the_wheels_own_is_refused(var: Var) -> None:
    make_secrets(var, pseudonyms=True)
    var.keys_file.write_text("keys: {}\n")
    with pytest.raises(SecretsUnusable, match=r"lacks the wheel's own key.*delete both files"):
        make_secrets(var, pseudonyms=True)


def test_an_empty_secret_is_no_secret(var: Var) -> None:
    make_secrets(var, pseudonyms=True)
    (var.identity / "session-secret").write_text("\n")
    with pytest.raises(SecretsUnusable, match="session-secret is empty; restore it, or delete it"):
        make_secrets(var, pseudonyms=True)


def test_a_folder_that_cannot_hold_secrets_is_named(tmp_path: Path) -> None:
    (tmp_path / "var").write_text("a file")
    with pytest.raises(SecretsUnusable, match="cannot hold the wheel's secrets"):
        make_secrets(Var(tmp_path / "var"), pseudonyms=True)


def test_the_wheels_key_is_changed_wherever_it_is_kept(var: Var) -> None:
    old = make_secrets(var, pseudonyms=True).api_key.get_secret_value()
    running = Context(url="http://127.0.0.1:1", key=SecretStr(old))
    contexts.put("local", running, file=var.contexts)
    contexts.put("other", running, use=False, file=var.contexts)
    between = rotate_local_key(var, keep_old=True)
    ring = read_keys(var.keys_file)
    assert ring.find(old) == ring.find(between) is not None
    newest = rotate_local_key(var, keep_old=False)
    ring = read_keys(var.keys_file)
    assert [ring.find(key) is not None for key in (old, between, newest)] == [False, False, True]
    assert make_secrets(var, pseudonyms=True).api_key.get_secret_value() == newest
    assert modes(var.identity) == {0o600}
    kept = contexts.read(var.contexts).contexts
    assert (kept["local"].key, kept["other"]) == (SecretStr(newest), running)


def test_a_wheel_that_asks_nobody_gets_no_key_into_its_context(var: Var) -> None:
    make_secrets(var, pseudonyms=True)
    contexts.put("local", Context(url="http://127.0.0.1:1"), file=var.contexts)
    rotate_local_key(var, keep_old=False)
    assert contexts.read(var.contexts).contexts["local"].key is None
