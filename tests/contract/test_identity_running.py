"""Who may call a service that runs: the registry's own process, without Kafka, with all of its log."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from tunewheel_testing.command_keys import CommandKeys
from tunewheel_testing.oidc_issuer import Issuer, make_key
from tunewheel_testing.waiting import wait_for

PATIENCE_SECONDS = 300.0
LISTENING = re.compile(r"Uvicorn running on http://127\.0\.0\.1:(\d+)")
CANARY = "canary-7f3c"


class Mounted:
    """A file of keys as Kubernetes mounts a secret: it is a link through ``..data``, which is replaced."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._count = 0
        self.path = folder / "keys.yaml"
        self.path.symlink_to(Path("..data") / "keys.yaml")

    def write(self, content: str) -> None:
        data, before = self._folder / "..data", self._folder / f"..{self._count}"
        self._count += 1
        now, link = self._folder / f"..{self._count}", self._folder / "..data_tmp"
        now.mkdir()
        (now / "keys.yaml").write_text(content)
        link.symlink_to(now.name)
        link.replace(data)
        shutil.rmtree(before, ignore_errors=True)

    def hold(self, **keys: list[str]) -> None:
        """Let each name have these keys, and the group ``readers`` read."""
        entries = {
            name: {"sha256": [hashlib.sha256(key.encode()).hexdigest() for key in its], "roles": ["viewer"]}
            for name, its in keys.items()
        }
        self.write(yaml.safe_dump({"keys": entries, "groups": {"readers": {"roles": ["viewer"]}}}))


class Running:
    """The process, once it listens."""

    def __init__(self, log: Path, **settings: str) -> None:
        told = {name: value for name, value in os.environ.items() if not name.startswith("TUNEWHEEL_")}
        own = {f"TUNEWHEEL_{name.upper()}": value for name, value in settings.items()}
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tunewheel_registry.main"], env={**told, **own}, stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        wait_for(lambda: len(self._ports()) == 2)
        clients = [
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_SECONDS)
            for port in self._ports()
        ]
        wait_for(lambda: all(map(_answers, clients)))
        self.api, self.health = sorted(clients, key=lambda http: http.get("/health/live").status_code == 200)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def _ports(self) -> list[str]:
        assert self.process.poll() is None, self.log
        return LISTENING.findall(self.log)

    def status(self, secret: str) -> int:
        return self.ask(f"Bearer {secret}").status_code

    def ask(self, authorization: str, path: str = "/v1/projects/desk/models") -> httpx.Response:
        return self.api.get(path, headers={"authorization": authorization.encode()})

    def stop(self) -> None:
        self.api.close()
        self.health.close()
        self.process.terminate()
        self.process.wait(PATIENCE_SECONDS)


def _answers(http: httpx.Client) -> bool:
    """A port is told when it is bound, which is before anybody listens there."""
    try:
        return http.get("/health/live").status_code > 0
    except httpx.ConnectError:
        return False


@pytest.fixture(scope="module")
def issuer() -> Iterator[Issuer]:
    with Issuer() as made:
        yield made


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Mounted:
    made = Mounted(tmp_path_factory.mktemp("secret"))
    made.hold(app=["first"])
    return made


@pytest.fixture(scope="module")
def registry(issuer: Issuer, mounted: Mounted, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    keys = CommandKeys(tmp_path_factory.mktemp("signing"))
    running = Running(
        tmp_path_factory.mktemp("registry") / "log", identity="required", api_keys_file=str(mounted.path),
        oidc_issuer=issuer.url, oidc_audience=issuer.audience, bootstrap_servers="127.0.0.1:1",
        store_url="memory://", log_level="DEBUG", http_port="0", signing_keys_file=str(keys.file),
        signing_key=keys.private["registry"],
    )  # fmt: skip
    yield running
    running.stop()


def test_keys_come_change_and_go_while_the_service_runs(registry: Running, mounted: Mounted) -> None:
    assert [registry.status(key) for key in ("first", "second", "third")] == [200, 401, 401]
    mounted.hold(app=["first", "second"])
    wait_for(lambda: registry.status("second") == 200)
    assert registry.status("first") == 200, "both count while an application changes keys"
    mounted.hold(app=["second"], other=["third"])
    wait_for(lambda: registry.status("first") == 401)
    assert [registry.status(key) for key in ("second", "third")] == [200, 200]
    mounted.hold()
    wait_for(lambda: registry.status("second") == 401)
    assert registry.status("third") == 401


def test_no_credential_stands_in_the_log_or_in_an_answer(
    registry: Running, issuer: Issuer, mounted: Mounted
) -> None:
    key = f"{CANARY}-key"
    mounted.hold(app=[key])
    wait_for(lambda: registry.status(key) == 200)
    of_others = make_key("RS256", issuer.key.kid)
    tokens = [
        issuer.token("ada", ["readers"], note=CANARY),
        issuer.token("ada", note=CANARY),
        issuer.token("ada", aud=CANARY),
        issuer.token("ada", iss=CANARY),
        issuer.token("ada", exp=CANARY),
        issuer.token("ada", groups={CANARY: 1}),
        issuer.token("ada", header={"kid": CANARY}),
        issuer.token("ada", header={"typ": CANARY}),
        issuer.token("ada", header={"alg": CANARY}),
        issuer.token("ada", header={"crit": [CANARY]}),
        issuer.token(f"{CANARY}\n"),
        issuer.token("ada", key=of_others, note=CANARY),
        issuer.forged(CANARY, algorithm="none"),
        issuer.forged(CANARY, algorithm="HS256"),
    ]
    secrets = [key, f"{CANARY}-unknown", f"{CANARY}.{CANARY}.{CANARY}", f"{CANARY}.é.x", *tokens]
    answers = [registry.ask(f"Bearer {secret}") for secret in secrets]
    answers += [
        registry.ask(f"Basic {CANARY}"),
        registry.ask(f"{CANARY} x"),
        registry.ask(f"Bearer {key} {CANARY}"),
    ]
    answers += [registry.ask(f"Bearer {key}", "/v1/projects/desk/models/none/card"), registry.ask("")]
    assert {answer.status_code for answer in answers} == {200, 401, 403, 404}
    mounted.write(f"keys: {{app: {{sha256: '{CANARY}-plain")
    wait_for(
        lambda: registry.status(key) == 200 and "cannot be read" in registry.health.get("/health/ready").text
    )

    told = [
        registry.log,
        registry.health.get("/health/ready").text,
        *(f"{a.headers}{a.text}" for a in answers),
    ]
    assert "caller_refused" in registry.log
    parts = {part for token in tokens for part in token.split(".")[1:] if part}
    assert len(parts) > 20
    assert not [where for where in told for secret in (CANARY, *parts) if secret in where]


def test_tokens_are_taken_while_the_issuers_keys_rotate(registry: Running, issuer: Issuer) -> None:
    old = issuer.token("ada", ["readers"])
    wait_for(lambda: registry.status(old) == 200)
    issuer.rotate("ES256", keep=1)
    wait_for(lambda: registry.status(issuer.token("ada", ["readers"])) == 200)
    assert registry.status(old) == 200
    assert registry.status(issuer.token("ada", ["others"])) == 403
