"""Services of an earlier release and of today on one log: replaced one by one under traffic, and back.

The earlier release is its sources of a commit, on the libraries of today's lock. A service is replaced as
Kubernetes does: the next process is ready before the one before is told to stop.

``PYTHONPATH=testing python -m tests.frozen.upgrading COMMIT [--back]`` runs one upgrade.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from operator import attrgetter
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, Event, new_event
from tunewheel_contracts.events.upstream import ProjectDeclared
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_contracts.topics import TOPICS
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.topics import ensure_topics, wanted_topics
from tunewheel_runtime.log import read
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.adapters import SMOLLM2
from tunewheel_testing.engine import FakeEngine
from tunewheel_testing.sender import publish_events
from tunewheel_testing.specs import declared
from tunewheel_testing.story import EXAMPLES
from tunewheel_testing.waiting import until

from ..integration.test_gateway import desired
from ..integration.verdicts import stored_adapter
from .snapshot import settled
from .values import Document, document, places, using_everything

REPOSITORY = Path(__file__).resolve().parents[2]
RELEASES = [
    line
    for line in (Path(__file__).parent / "releases.txt").read_text("utf-8").split("\n")
    if line and not line.startswith("#")
]
SERVICES = ("ingest", "curate", "registry", "serve_gateway", "monitor", "index")
"""Those that answer or fold the log; nobody trains or measures meanwhile."""
RECREATED = ("monitor",)
"""Services of which two processes never run side by side (``Recreate`` in the chart)."""
PROJECT = "desk"
"""The project of the traffic."""
RESULTS = Path("var/nightly/upgrades.json")
PATIENCE_SECONDS = 900.0


def check_out(commit: str, folder: Path) -> Path:
    """Lay the sources of ``commit`` out in ``folder``."""
    folder.mkdir(parents=True)
    packed = subprocess.run(["git", "archive", commit], cwd=REPOSITORY, check=True, capture_output=True)
    subprocess.run(["tar", "x", "-C", str(folder)], input=packed.stdout, check=True)
    return folder


def known_topics(sources: Path) -> set[str]:
    """Return the names that a release may have given to topics: each topic has a folder of examples."""
    return {path.name for path in (sources / "contracts" / "examples").iterdir()}


@dataclass
class Process:
    """One process of a service."""

    service: str
    popen: subprocess.Popen[bytes]
    http_port: int
    health_port: int
    log: Path

    async def is_ready(self) -> bool:
        """Whether it is ready, or a standby that waits for the active process to end."""
        assert self.popen.poll() is None, self.log.read_text(errors="replace")[-3_000:]
        url = f"http://127.0.0.1:{self.health_port}/health/ready"
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError):
            return False


@dataclass
class Fleet:
    """One process of each service, of one release or another."""

    kafka: str
    folder: Path
    settings: Mapping[str, str]
    running: dict[str, Process] = field(default_factory=dict)
    _started: int = 0

    async def replace(self, service: str, sources: Path) -> None:
        """Start ``service`` of the release in ``sources``, and stop the process before once this one is
        ready; the monitor's before it starts."""
        before = self.running.get(service)
        if before is not None and service in RECREATED:
            await self._stop(before)
        started = self._start(service, sources)
        await until(started.is_ready, f"{service} of {sources.name} ready", patience=PATIENCE_SECONDS)
        self.running[service] = started
        if before is not None and service not in RECREATED:
            await self._stop(before)
            await until(started.is_ready, f"{service} active", patience=PATIENCE_SECONDS)

    async def _stop(self, process: Process) -> None:
        process.popen.terminate()
        code = await asyncio.to_thread(process.popen.wait, PATIENCE_SECONDS)
        assert code == 0, process.log.read_text(errors="replace")[-3_000:]

    def _start(self, service: str, sources: Path) -> Process:
        self._started += 1
        name = f"{self._started:02}-{service}-{sources.name[:8]}"
        ports, log = (free_port(), free_port()), self.folder / f"{name}.log"
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join(
                str(path) for pattern in ("*/src", "services/*/src") for path in sources.glob(pattern)
            ),
            "TUNEWHEEL_BOOTSTRAP_SERVERS": self.kafka,
            "TUNEWHEEL_IDENTITY": "open",
            "TUNEWHEEL_STORE_URL": (self.folder / "store").as_uri(),
            "TUNEWHEEL_CACHE_DIR": str(self.folder / "cache"),
            "TUNEWHEEL_WORK_DIR": str(self.folder / "work" / name),
            "TUNEWHEEL_HTTP_PORT": str(ports[0]),
            "TUNEWHEEL_HEALTH_PORT": str(ports[1]),
            **self.settings,
        }
        command = [sys.executable, "-m", f"tunewheel_{service}.main"]
        with log.open("ab") as stream:
            popen = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream)
        return Process(service, popen, *ports, log)

    def url(self, service: str) -> str:
        return f"http://127.0.0.1:{self.running[service].http_port}"

    def close(self) -> None:
        for process in self.running.values():
            process.popen.kill()
            process.popen.wait(60)


@dataclass
class Traffic:
    """What people and systems ask meanwhile, without an end."""

    fleet: Fleet
    statuses: Counter[str] = field(default_factory=Counter)
    """By door and status; 0 where the connection ended without an answer."""
    tickets: list[str] = field(default_factory=list)
    """Those that ingest accepted."""
    answers: list[str] = field(default_factory=list)
    """The completions that the gateway answered."""

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        async with aiohttp.ClientSession() as session:
            tasks = [asyncio.create_task(one(session)) for one in (self._publish, self._ask, self._look)]
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()
                for ended in await asyncio.gather(*tasks, return_exceptions=True):
                    if not isinstance(ended, asyncio.CancelledError):
                        raise ended

    async def _publish(self, session: aiohttp.ClientSession) -> None:
        number = len(self.tickets)
        while True:
            number += 1
            if await self.ticket(session, PROJECT, f"T-{number}") == 202:
                self.tickets.append(f"T-{number}")

    async def ticket(self, session: aiohttp.ClientSession, project: str, name: str) -> int:
        body = {"ticket_id": name, "body": f"The bell {name} does not ring", "customer": "c-1"}
        return (await self._call(session, "ingest", f"/v1/tickets?project={project}", body))[0]

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        while True:
            body = {"model": PROJECT, "messages": [{"role": "user", "content": "hello"}]}
            status, answer = await self._call(session, "serve_gateway", "/v1/chat/completions", body)
            if status == 200:
                self.answers.append(answer["id"])

    async def _look(self, session: aiohttp.ClientSession) -> None:
        while True:
            await self._call(session, "registry", f"/v1/projects/{PROJECT}/models", None)

    async def _call(
        self, session: aiohttp.ClientSession, service: str, path: str, body: Any
    ) -> tuple[int, Any]:
        method = "GET" if body is None else "POST"
        status, said = 0, None
        with contextlib.suppress(aiohttp.ClientError):
            async with session.request(method, self.fleet.url(service) + path, json=body) as answer:
                status, said = answer.status, await answer.json()
        self.statuses[f"{service} {status}"] += 1
        await asyncio.sleep(0.1)
        return status, said


@cache
def documents() -> Mapping[type[Event], Sequence[Document]]:
    """Return events of every topic as today's services write them, which together use every field and every
    value of enumerations that the contracts accept. A project is declared by each example of a spec too."""
    found: dict[type[Event], list[Document]] = {}
    for topic in sorted(TOPICS, key=attrgetter("name")):  # Projects before their tickets
        for path in sorted((EXAMPLES / topic.name / "valid").glob("*.json")):
            example = document(topic.event, json.loads(path.read_text("utf-8")))
            found.setdefault(topic.event, []).append(example)
    rich = Path(__file__).parent / "rich.yaml"
    for path in (rich, *sorted((EXAMPLES / "project-spec" / "valid").glob("*.json"))):
        spec = yaml.safe_load(path.read_text("utf-8"))
        declared = {"project": spec["project"], "spec": spec}
        found[ProjectDeclared].append(document(ProjectDeclared, declared))
    for model, known in found.items():
        known += using_everything(model, known, [one for others in found.values() for one in others])
    return found


def unused() -> list[str]:
    """Return the places of events that no document uses."""
    return sorted(
        f"{model.__name__}: {field}" + (f" is {value}" if value else "")
        for model, known in documents().items()
        for field, value in places(model).difference(*(one.uses for one in known))
    )


def specs() -> Iterator[Envelope[ProjectDeclared]]:
    """Declare a project for each document that declares one: together they use every field of a spec."""
    for number, one in enumerate(documents()[ProjectDeclared]):
        spec = ProjectSpec.model_validate(one.content["spec"] | {"project": f"spec-{number}"})
        yield new_event(ProjectDeclared(project=spec.project, spec=spec), source="/tunewheel/console")


def everything() -> Iterator[Envelope[Any]]:
    """Publish all documents of all topics, as today's services write them and as today's doors pass them."""
    for model, known in documents().items():
        for one in known[:1] if model is ProjectDeclared else known:
            yield new_event(model.model_validate(one.content), source="/tunewheel/ingest")


async def ids(kafka: str, names: Sequence[str], field_name: str = "") -> Counter[tuple[str, str]]:
    """Return what is on the topics ``names``: topic, and the event's id or a field of its data."""
    found = Counter[tuple[str, str]]()
    async for records in read({"bootstrap_servers": kafka}, names, missing_ok=True):
        for record in records:
            name = record.headers.get("ce_id", b"").decode()
            if field_name:
                name = str(json.loads(record.value or b"{}").get(field_name))
            found[record.position.topic, name] += 1
    return found


async def letters(kafka: str) -> dict[tuple[str, str], str]:
    """Return all dead letters: topic and event, and why."""
    found: dict[tuple[str, str], str] = {}
    names = [spec.dead_letter for spec in TOPICS if spec.dead_letter_exists]
    async for records in read({"bootstrap_servers": kafka}, names, missing_ok=True):
        for record in records:
            told = {name: value.decode() for name, value in record.headers.items()}
            found[record.position.topic, told.get("ce_id", "")] = f"{told['dlq_field']} {told['dlq_reason']}"
    return found


async def upgrade(commit: str, folder: Path, broker: LocalKafka, *, back: bool) -> dict[str, Any]:
    """Upgrade each service from ``commit`` to today under traffic, and ``back`` again; return figures."""
    old, today = check_out(commit, folder / commit), REPOSITORY
    kafka = broker.bootstrap_servers
    options = {"bootstrap_servers": kafka}
    before = [spec for spec in TOPICS if spec.name in known_topics(old)]
    await ensure_topics(options, wanted_topics(before))
    adapter = await stored_adapter(ObjectStore((folder / "store").as_uri()), PROJECT, 1)
    async with FakeEngine(SMOLLM2.name, answers_anything=True).serving() as engine:
        fleet = Fleet(kafka, folder, {"TUNEWHEEL_ENGINE_URL": engine})
        traffic = Traffic(fleet)
        try:
            await publish_events(options, declared(PROJECT), desired(PROJECT, 1, (adapter, 100)))
            await asyncio.gather(*(fleet.replace(service, old) for service in SERVICES))
            await _served(fleet)
            async with traffic.going_on():
                await ensure_topics(options)
                for service in SERVICES:
                    await fleet.replace(service, today)
            await publish_events(options, *specs(), *everything())
            await settled(kafka, patience=PATIENCE_SECONDS)  # What today's services refuse is no loss.
            refused_today = await letters(kafka)
            async with traffic.going_on():
                if back:
                    for service in reversed(SERVICES):
                        await fleet.replace(service, old)
                    await publish_events(options, *specs(), *everything())
                await _goes_on(traffic)
            forgotten = await _forgotten(kafka, traffic)
            await _all_there(kafka, traffic)
            refused = await letters(kafka)
        finally:
            fleet.close()
    more = {place: why for place, why in refused.items() if place not in refused_today}
    return {
        "commit": commit[:8],
        "back": back,
        "replaced": len(SERVICES) * (2 if back else 1),
        "requests": traffic.statuses.total(),
        "answers_5xx": sum(n for said, n in traffic.statuses.items() if said.split()[-1][0] == "5"),
        "unanswered": sum(n for said, n in traffic.statuses.items() if said.endswith(" 0")),
        "statuses": dict(sorted(traffic.statuses.items())),
        "tickets": len(traffic.tickets),
        "completions": len(traffic.answers),
        "projects": len(list(specs())) + 1,
        "events": sum(len(known) for known in documents().values()),
        "places": sum(len(places(model)) for model in documents()),
        "places_unused": unused(),
        "projects_forgotten": forgotten,
        "refused_by_both": len(refused_today),
        "dead_letters": {" ".join(place): why for place, why in more.items()},
    }


async def _served(fleet: Fleet) -> None:
    async def is_served() -> bool:
        body = {"model": PROJECT, "messages": [{"role": "user", "content": "hello"}]}
        url = f"{fleet.url('serve_gateway')}/v1/chat/completions"
        async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
            return answer.status == 200

    await until(is_served, "the project is served", patience=PATIENCE_SECONDS)


async def _goes_on(traffic: Traffic, requests: int = 100) -> None:
    before = traffic.statuses.total()
    await until(lambda: traffic.statuses.total() > before + requests, "traffic", patience=PATIENCE_SECONDS)


async def _all_there(kafka: str, traffic: Traffic) -> None:
    """Wait until every accepted ticket is a record, and every answer a completion, on the log."""

    async def is_there(names: list[str], topic: str, field_name: str) -> bool:
        found = {name for _, name in await ids(kafka, [topic], field_name)}
        return set(names) <= found

    for names, topic, field_name in (
        (traffic.tickets, topics.RECORD_INGESTED.name, "source_id"),
        (traffic.answers, topics.INFERENCE_COMPLETED.name, "completion_id"),
    ):
        await until(
            lambda n=names, t=topic, f=field_name: is_there(n, t, f), topic, patience=PATIENCE_SECONDS
        )


async def _forgotten(kafka: str, traffic: Traffic) -> list[str]:
    """Return the declared projects whose tickets ingest refuses."""
    forgotten: list[str] = []
    async with aiohttp.ClientSession() as session:
        for event in specs():
            taken = await traffic.ticket(session, event.project, f"last-of-{event.project}")
            if taken != 202:
                forgotten.append(f"{event.project}: {taken}")
            else:
                traffic.tickets.append(f"last-of-{event.project}")
    return forgotten


def run(commit: str, folder: Path, broker: LocalKafka, *, back: bool) -> dict[str, Any]:
    """Run one upgrade, write its figures, and return them."""
    found = asyncio.run(upgrade(commit, folder, broker, back=back))
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    results[commit[:8]] = found
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1, sort_keys=True) + "\n", "utf-8")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("commit")
    parser.add_argument("--back", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        broker = LocalKafka(Path(scratch) / "kafka", port=None).start(patience=PATIENCE_SECONDS)
        try:
            print(json.dumps(run(options.commit, Path(scratch), broker, back=options.back), indent=1))
        finally:
            broker.kill()


if __name__ == "__main__":
    main()
