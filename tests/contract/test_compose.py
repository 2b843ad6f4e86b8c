"""The compose files: as their schema asks, with every service, and with settings that the services take.

``make test-images`` gives them to the real ``docker compose config``.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import SecretStr
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.command_keys import SIGNERS, read_public_keys, retire_key
from tunewheel_runtime.identity.keys import read_keys
from tunewheel_runtime.identity.roles import Role
from tunewheel_runtime.identity.signatures import Signatures
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_runtime.store import ObjectStore

from .deployment import COMPOSE, ROOT, SERVICES, compose, image_environment
from .test_settings_named import settings_class

FILES = ("compose.yaml", "compose.gpu.yaml", "compose.s3.yaml", "compose.vllm.yaml")
NAMES = [service.name for service in SERVICES]
OWN = [*NAMES, "topics", "cli"]
BUS = {"TUNEWHEEL_BOOTSTRAP_SERVERS", "TUNEWHEEL_STORE_URL"}
SIGNS = {"TUNEWHEEL_SIGNING_KEY", "TUNEWHEEL_SIGNING_KEYS_FILE"}
NEEDED = {
    "console": {"TUNEWHEEL_API_KEYS_FILE", "TUNEWHEEL_SESSION_SECRET", *SIGNS},
    "curate": {"TUNEWHEEL_API_KEYS_FILE", "TUNEWHEEL_PSEUDONYM_SECRET", *SIGNS},
    "engine": {"TUNEWHEEL_API_KEYS_FILE", "TUNEWHEEL_BASE_MODEL"},
    "eval": {"TUNEWHEEL_API_KEYS_FILE", *SIGNS},
    "index": {"TUNEWHEEL_PSEUDONYM_SECRET"},
    "ingest": {"TUNEWHEEL_API_KEYS_FILE", *SIGNS},
    "monitor": {"TUNEWHEEL_API_KEYS_FILE", "TUNEWHEEL_SIGNING_KEYS_FILE"},
    "registry": {"TUNEWHEEL_API_KEYS_FILE", *SIGNS},
    "serve-gateway": {
        "TUNEWHEEL_API_KEYS_FILE",
        "TUNEWHEEL_COMPLETION_SECRET",
        "TUNEWHEEL_ENGINE_API_KEY",
        "TUNEWHEEL_ENGINE_URL",
        *SIGNS,
    },
    "train": {"TUNEWHEEL_API_KEYS_FILE", "TUNEWHEEL_SIGNING_KEYS_FILE"},
}
"""What a service cannot do without, or would do differently in each replica, beside ``BUS``."""


@pytest.fixture(scope="module")
def file() -> dict[str, Any]:
    return compose()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that ``make_secrets.sh`` fills."""
    folder = tmp_path_factory.mktemp("compose") / "secrets"
    subprocess.run([COMPOSE / "make_secrets.sh", folder], check=True, capture_output=True)
    return folder


def fields(service: str) -> dict[str, Any]:
    """Return the variables that a service reads, each with its field."""
    found = settings_class(service).model_fields
    return {f"TUNEWHEEL_{name.upper()}": field for name, field in found.items()}


def of_cli() -> set[str]:
    """Return the variables that the command reads."""
    found = {f"TUNEWHEEL_{name.upper()}" for name in KafkaSettings.model_fields}
    for path in (*(ROOT / "cli/src").rglob("*.py"), *(ROOT / "client/src").rglob("*.py")):
        found |= set(re.findall(r"\bTUNEWHEEL_[A-Z_]*[A-Z]\b", path.read_text("utf-8")))
    return found


def told(service: dict[str, Any]) -> set[str]:
    """Return the ``TUNEWHEEL_`` variables of a service, those that are files included."""
    named = {*service.get("environment", {}), *(one["target"] for one in service.get("secrets", ()))}
    return {name for name in named if name.startswith("TUNEWHEEL_")}


def complaints(file: dict[str, Any]) -> list[str]:
    """Return each variable of ``file`` that its service does not read, or lacks."""
    found: list[str] = []
    for name in NAMES:
        given, known = told(file["services"][name]), fields(name)
        found += [f"{name} reads no {one}" for one in given - known.keys()]
        needed = NEEDED[name] | (set() if name == "engine" else BUS)
        found += [f"{name} lacks {one}" for one in needed - given]
    for name in ("topics", "cli"):
        found += [f"{name} reads no {one}" for one in told(file["services"][name]) - of_cli()]
    return sorted(found)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_as_the_schema_of_compose_files_asks(name: str) -> None:
    schema = json.loads((Path(__file__).parent / "vendored/compose-spec.json").read_text("utf-8"))
    check = Draft202012Validator(schema)
    file = compose(name, STORE_URL="s3://bucket")
    assert [error.message for error in check.iter_errors(file)] == []
    next(iter(file["services"].values()))["helthcheck"] = {}
    assert any("helthcheck" in error.message for error in check.iter_errors(file))


def test_every_service_is_there_and_built_by_its_name(file: dict[str, Any]) -> None:
    assert sorted(NEEDED) == NAMES
    assert set(NAMES) < file["services"].keys()
    for name in NAMES:
        build = file["services"][name]["build"]
        assert (COMPOSE / build["context"]).resolve() == ROOT
        assert (ROOT / build["dockerfile"]).is_file()
        assert build["args"]["SERVICE"] == name
        assert file["services"][name]["image"].startswith(f"tunewheel/{name}:")
    for one in compose("compose.gpu.yaml")["services"] | compose("compose.s3.yaml")["services"]:
        assert one in OWN


def test_vllm_takes_the_place_of_the_engine(file: dict[str, Any]) -> None:
    over = compose("compose.vllm.yaml")["services"]
    vllm = over.pop("vllm")
    assert over.keys() < file["services"].keys()
    assert over["engine"] == {"deploy": {"replicas": 0}}
    assert told(over["serve-gateway"]) <= fields("serve-gateway").keys()
    assert over["serve-gateway"]["environment"]["TUNEWHEEL_ENGINE_URL"] == "dns+http://vllm:8000"
    (command,) = vllm["command"]
    assert f"--dtype {over['eval']['environment']['TUNEWHEEL_EVAL_DTYPE']}" in command
    assert "--port 8000" in command
    assert "--enable-lora" in command
    state, _, folder = next(one for one in vllm["volumes"] if one.startswith("state:")).partition(":")
    assert f"{state}:{folder.removesuffix(':ro')}" in file["services"]["serve-gateway"]["volumes"]
    assert set(vllm["secrets"]) < file["secrets"].keys()


def test_variables_are_those_that_services_read_and_need(file: dict[str, Any]) -> None:
    assert complaints(file) == []


def test_an_unknown_variable_and_a_missing_one_are_found(file: dict[str, Any]) -> None:
    wrong = json.loads(json.dumps(file))
    wrong["services"]["ingest"]["environment"]["TUNEWHEEL_STOER_URL"] = "s3://bucket"
    del wrong["services"]["curate"]["secrets"]
    wrong["services"]["cli"]["environment"]["TUNEWHEEL_API_KEZ"] = "x"
    assert complaints(wrong) == [
        "cli reads no TUNEWHEEL_API_KEZ",
        "curate lacks TUNEWHEEL_PSEUDONYM_SECRET",
        "curate lacks TUNEWHEEL_SIGNING_KEY",
        "ingest reads no TUNEWHEEL_STOER_URL",
    ]


def test_no_secret_stands_in_a_file(file: dict[str, Any], made: Path) -> None:
    for name in NAMES:
        secret = {one for one, field in fields(name).items() if "SecretStr" in str(field.annotation)}
        assert secret
        assert not secret & file["services"][name].get("environment", {}).keys()
        for one in file["services"][name].get("secrets", ()):
            assert one["target"] in secret
    for one in file["secrets"].values():
        assert (made / Path(one["file"]).relative_to("secrets")).stat().st_size >= 32


@pytest.mark.parametrize("name", NAMES)
def test_a_service_takes_its_settings_and_can_tell_callers(
    name: str, file: dict[str, Any], made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the image sets, what the file sets and the secrets, laid out as Docker would."""
    service = file["services"][name]
    for one in [one for one in os.environ if one.startswith("TUNEWHEEL_")]:
        monkeypatch.delenv(one)
    mounted = tmp_path / "run-secrets"
    for one in service.get("secrets", ()):
        source = made / Path(file["secrets"][one["source"]]["file"]).relative_to("secrets")
        mounted.mkdir(exist_ok=True)  # Docker makes it where there are any
        (mounted / one["target"]).write_text(source.read_text("utf-8"), "utf-8")
    environment = image_environment("service") | service["environment"]
    for one, value in environment.items():
        if one.startswith("TUNEWHEEL_"):
            here = value.replace("/etc/tunewheel", str(made / "identity"))
            monkeypatch.setenv(one, here.replace("/run/secrets", str(mounted)))
    settings: Any = settings_class(name)()
    for one in service.get("secrets", ()):
        value = getattr(settings, one["target"].removeprefix("TUNEWHEEL_").lower())
        assert isinstance(value, SecretStr)
        assert value.get_secret_value() == (mounted / one["target"]).read_text("utf-8")
    if "TUNEWHEEL_API_KEYS_FILE" in NEEDED[name]:
        Access(settings, warn=lambda *_: None).require_identity(name, host=settings.http_host)
    if "TUNEWHEEL_SIGNING_KEYS_FILE" in NEEDED[name]:
        Signatures(name, settings, ObjectStore("memory://")).require_keys()


def public(made: Path) -> Path:
    return made / "identity" / "signing-keys.json"


def test_the_secrets_fit_together_and_are_made_once(made: Path) -> None:
    for file, secret, name, roles in (
        ("keys.yaml", "api_key", "operator", set(Role)),
        ("engine-keys.yaml", "engine_api_key", "gateway", {Role.APPLICATION, Role.VIEWER, Role.OPERATOR}),
    ):
        path = made / "identity" / file
        principal = read_keys(path).find((made / secret).read_text("utf-8"))
        assert principal is not None
        assert principal.name == name
        assert set(yaml.safe_load(path.read_text("utf-8"))["keys"][name]["roles"]) == roles
    assert made.stat().st_mode & 0o077 == 0
    before = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    (made / "session_secret").unlink()
    (made / "signing_key_eval").unlink()
    retire_key(public(made), next(iter(read_public_keys(public(made)))), {})
    subprocess.run([COMPOSE / "make_secrets.sh", made], check=True, capture_output=True)
    after = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed == {"session_secret", "signing_key_eval", "signing-keys.json"}
    services = [key.service for key in read_public_keys(public(made)).values()]
    assert services == [*SIGNERS, "eval"]


def test_what_is_ours_may_write_nothing_but_its_volumes(file: dict[str, Any]) -> None:
    for name in OWN:
        service = file["services"][name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    assert set(file["volumes"]) >= {one.split(":")[0] for one in file["services"]["train"]["volumes"][:2]}


def test_a_service_is_given_the_time_that_it_takes_to_stop(file: dict[str, Any]) -> None:
    for name in NAMES:
        known = settings_class(name).model_fields
        takes = [known[field].default for field in ("shutdown_seconds", "stop_seconds") if field in known]
        needed = max(takes, default=10)  # the engine's answers under way
        assert int(file["services"][name]["stop_grace_period"].removesuffix("s")) > needed


def test_files_that_are_mounted_are_there(file: dict[str, Any]) -> None:
    mounts = [one for service in file["services"].values() for one in service.get("volumes", ())]
    sources = {source for source in (one.split(":")[0] for one in mounts) if source.startswith(".")}
    sources -= {"./secrets/identity"}
    assert len(sources) >= 5
    assert [one for one in sources if not (COMPOSE / one).exists()] == []


def test_kafka_takes_what_a_cluster_is_told_to_take(file: dict[str, Any]) -> None:
    lines = (ROOT / "deploy/kafka/server.properties").read_text("utf-8").splitlines()
    wanted = dict(line.split("=", 1) for line in lines if re.match(r"[a-z]", line))
    given = file["services"]["kafka"]["environment"]
    for name in ("message.max.bytes", "replica.fetch.max.bytes", "auto.create.topics.enable",
                 "offsets.retention.minutes"):  # fmt: skip
        assert given[f"KAFKA_{name.replace('.', '_').upper()}"] == wanted[name]


def test_prometheus_asks_every_service_and_grafana_asks_prometheus(file: dict[str, Any]) -> None:
    asked = yaml.safe_load((COMPOSE / "prometheus.yaml").read_text("utf-8"))["scrape_configs"]
    (targets,) = [one for job in asked for one in job["dns_sd_configs"]]
    assert sorted(targets["names"]) == NAMES
    assert str(targets["port"]) == image_environment("service")["TUNEWHEEL_HEALTH_PORT"]
    (group,) = yaml.safe_load((COMPOSE / "services.yaml").read_text("utf-8"))["groups"]
    assert sorted(rule["labels"]["service"] for rule in group["rules"]) == sorted(NAMES)
    (source,) = yaml.safe_load((COMPOSE / "grafana/datasources.yaml").read_text("utf-8"))["datasources"]
    assert source["url"].removeprefix("http://").split(":")[0] in file["services"]
    pipelines = yaml.safe_load((COMPOSE / "collector.yaml").read_text("utf-8"))["service"]["pipelines"]
    assert pipelines.keys() == {"traces", "logs", "metrics"}


def test_the_commands_that_pages_give_name_what_is_there(file: dict[str, Any]) -> None:
    pages = [ROOT / "README.md", COMPOSE / "README.md", ROOT / "docs/operations.md"]
    text = "\n".join(page.read_text("utf-8") for page in pages)
    lines = [line.split() for line in re.findall(r"^(?:\$ )?(docker compose .+)$", text, re.MULTILINE)]
    assert len(lines) >= 6
    for words in lines:
        if "run" in words:
            assert words[words.index("--rm") + 1] in file["services"]
        if "-f" in words:
            assert (ROOT / words[words.index("-f") + 1]).is_file()
        for word in words:
            if word.startswith("/files/"):
                assert (ROOT / "examples" / word.removeprefix("/files/")).exists()


@pytest.mark.parametrize("name", NAMES)
def test_a_service_has_the_time_that_it_may_take_to_end(file: dict[str, Any], name: str) -> None:
    settings = settings_class(name).model_construct()
    given = float(file["services"][name]["stop_grace_period"].removesuffix("s"))
    assert given >= getattr(settings, "grace_seconds", 0.0)
