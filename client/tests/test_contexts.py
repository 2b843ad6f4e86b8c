"""The file of contexts: who may read it, which context is meant, and several processes at once."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from tunewheel_client import contexts
from tunewheel_client.contexts import Addresses, Context, Tokens
from tunewheel_client.errors import InvalidContexts, NoAddress
from tunewheel_client.target import resolve

PROD = Context(
    url="https://wheel.example",
    addresses=Addresses(gateway="https://gateway.example"),
    project="desk",
    key=SecretStr("tw_secret"),
)
TOKENS = Tokens(
    issuer="https://issuer.example",
    client_id="cli",
    access_token=SecretStr("tok-access"),
    refresh_token=SecretStr("tok-refresh"),
)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_may_read_the_file_and_its_folder():
    contexts.put("prod", PROD)
    assert (mode(contexts.path()), mode(contexts.path().parent)) == (0o600, 0o700)
    contexts.path().chmod(0o640)
    with pytest.raises(InvalidContexts, match="chmod 600"):
        contexts.read()


def test_a_context_comes_back_as_it_was_kept():
    tokens = PROD.model_copy(update={"key": None, "tokens": TOKENS})
    contexts.put("prod", PROD)
    contexts.put("staging", tokens, use=False)
    assert contexts.read() == contexts.Contexts(current="prod", contexts={"prod": PROD, "staging": tokens})


@pytest.mark.parametrize(
    "shown", [repr, str, lambda it: it.model_dump_json(), lambda it: str(it.model_dump())]
)
def test_no_way_of_printing_shows_a_secret(shown: Any):
    text = shown(PROD.model_copy(update={"tokens": TOKENS}))
    assert "wheel.example" in text
    assert not [
        secret for secret in ("tw_secret", "'access'", '"access"', "'refresh'", '"refresh"') if secret in text
    ]


def test_fields_of_a_newer_release_stay_in_the_file():
    contexts.put("prod", PROD)
    told = yaml.safe_load(contexts.path().read_text())
    told["contexts"]["prod"]["colour"] = "red"
    contexts.path().write_text(yaml.safe_dump(told))
    contexts.put("other", PROD)
    assert yaml.safe_load(contexts.path().read_text())["contexts"]["prod"]["colour"] == "red"


def test_another_context_is_used_and_gets_a_project():
    contexts.put("prod", PROD)
    contexts.put("local", Context(url="http://127.0.0.1:1"))
    assert contexts.read().current == "local"
    assert contexts.use("prod").project == "desk"
    assert contexts.use("prod", project="shop") == contexts.read().contexts["prod"]
    assert contexts.read().contexts["prod"].project == "shop"


@pytest.mark.parametrize("act", [contexts.use, lambda name: resolve(context=name)])
def test_an_unknown_context_is_named_with_those_there_are(act: Any):
    contexts.put("prod", PROD)
    with pytest.raises(InvalidContexts, match=r"no 'prdo'; there is prod") as error:
        act("prdo")
    assert error.value.param == "context"


@pytest.mark.parametrize(
    "text", ["contexts: [", "contexts: {prod: {key: tw_secret}}", "a: *b", "- tw_secret"]
)
def test_a_broken_file_is_refused_without_its_secrets(text: str):
    contexts.put("prod", PROD)
    contexts.path().write_text(text)
    with pytest.raises(InvalidContexts) as error:
        contexts.read()
    assert str(contexts.path()) in str(error.value)
    assert "tw_secret" not in str(error.value)


def test_an_argument_goes_before_the_environment_and_this_before_the_context():
    contexts.put("prod", PROD)
    contexts.put("local", Context(url="http://127.0.0.1:1"), use=False)
    assert resolve(environment={}).context == PROD
    assert resolve(environment={"TUNEWHEEL_CONTEXT": "local"}).name == "local"
    environment = {
        "TUNEWHEEL_URL": "http://env.example/",
        "TUNEWHEEL_API_KEY": "tw_env",
        "TUNEWHEEL_PROJECT": "p",
    }
    found = resolve(environment=environment).context
    assert (found.url, found.key, found.project) == ("http://env.example", SecretStr("tw_env"), "p")
    found = resolve("http://arg.example", "tw_arg", project="q", environment=environment).context
    assert (found.url, found.key, found.project) == ("http://arg.example", SecretStr("tw_arg"), "q")
    assert resolve(context="local", environment=environment).context.url == "http://127.0.0.1:1"


def test_a_client_beside_the_services_names_their_addresses_itself() -> None:
    told = {"TUNEWHEEL_URL": "http://console:8080", "TUNEWHEEL_GATEWAY_URL": "http://gateway:8080/"}
    found = resolve(environment=told).context.addresses
    assert (found.gateway, found.ingest) == ("http://gateway:8080", None)
    with pytest.raises(NoAddress, match="TUNEWHEEL_INGEST_URL") as refused:
        resolve(environment=told | {"TUNEWHEEL_INGEST_URL": "ingest:8080"})
    assert refused.value.param == "TUNEWHEEL_INGEST_URL"


def test_the_login_of_a_context_goes_to_no_other_address():
    contexts.put("prod", PROD)
    found = resolve("http://other.example", environment={}).context
    assert (found.key, found.tokens, found.addresses) == (None, None, Addresses())


def test_the_wheel_on_the_folder_is_the_last_resort(home: Path):
    with pytest.raises(NoAddress, match="tunewheel login"):
        resolve(environment={})
    contexts.put("local", Context(url="http://127.0.0.1:1"), file=home / "var" / contexts.OWN_FILE)
    contexts.put("local", Context(url="http://127.0.0.1:2"), file=home / "elsewhere" / contexts.OWN_FILE)
    assert resolve(environment={}).context.url == "http://127.0.0.1:1"
    assert resolve(environment={"TUNEWHEEL_VAR": "elsewhere"}).context.url == "http://127.0.0.1:2"
    contexts.put("prod", PROD)
    assert resolve(environment={}).name == "prod"


def test_the_folder_that_is_named_goes_before_all_but_a_context(home: Path):
    contexts.put("prod", PROD)
    contexts.put("local", Context(url="http://127.0.0.1:2"), file=home / "mine" / contexts.OWN_FILE)
    told = {"TUNEWHEEL_URL": "http://env.example", "TUNEWHEEL_CONTEXT": "prod", "TUNEWHEEL_API_KEY": "tw_env"}
    found = resolve(folder=home / "mine", environment=told)
    assert (found.context.url, found.context.key) == ("http://127.0.0.1:2", SecretStr("tw_env"))
    assert found.file == home / "mine" / contexts.OWN_FILE
    assert resolve(folder=home / "mine", context="prod", environment={}).context == PROD
    with pytest.raises(NoAddress, match="no wheel with a console runs on"):
        resolve(folder=home / "nowhere", environment=told)
    contexts.put("local", Context(url="https://elsewhere.example"), file=home / "mine" / contexts.OWN_FILE)
    with pytest.raises(NoAddress, match=r"elsewhere\.example"):
        resolve(folder=home / "mine", environment=told)


@pytest.mark.parametrize(
    "context",
    [
        Context(url="https://elsewhere.example"),
        Context(url="http://127.0.0.1:1", addresses=Addresses(gateway="https://elsewhere.example")),
        Context(url="http://127.0.0.1.elsewhere.example"),
    ],
)
def test_the_file_of_a_folder_cannot_send_the_key_elsewhere(home: Path, context: Context):
    """The folder may be a stranger's archive."""
    contexts.put("local", context, file=home / "var" / contexts.OWN_FILE)
    with pytest.raises(NoAddress, match=r"elsewhere\.example") as refused:
        resolve(environment={"TUNEWHEEL_API_KEY": "tw_secret"})
    assert refused.value.param == "url"


def test_a_key_may_lie_in_the_folder_of_secrets(home: Path):
    (home / "TUNEWHEEL_API_KEY").write_text("tw_file\n")
    environment = {"TUNEWHEEL_URL": "http://env.example", "TUNEWHEEL_SECRETS_DIR": str(home)}
    assert resolve(environment=environment).context.key == SecretStr("tw_file")


@pytest.mark.parametrize(
    ("url", "key"), [("wheel.example", None), ("http://a@b", None), ("http://b", "tw_é"), ("http://b", "a b")]
)
def test_an_address_or_a_key_that_cannot_be_used_is_refused_unrepeated(url: str, key: str | None):
    with pytest.raises(NoAddress) as error:
        resolve(url, key, environment={})
    assert error.value.param == ("key" if key else "url")
    assert (key or url) not in str(error.value)


WRITER = """
import sys
from tunewheel_client import contexts
for n in range(8):
    contexts.put(f"{sys.argv[1]}-{n}", contexts.Context(url="http://a"))
"""


def test_processes_that_write_at_the_same_time_lose_nothing():
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, name]) for name in "abc"]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(contexts.read().contexts) == 24
    assert [path.name for path in contexts.path().parent.iterdir()] == ["contexts.yaml"]
