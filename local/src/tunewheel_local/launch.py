"""Runs a wheel on this machine: broker, topics, services. ``up`` and ``demo`` use it and show it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tunewheel_client.contexts import Addresses, Context, put
from tunewheel_contracts.errors import TunewheelError

from tunewheel_local import run_state
from tunewheel_local.connection import Connection, as_environment
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port, is_free
from tunewheel_local.places import Var
from tunewheel_local.roster import (
    BROKER,
    ENGINE,
    Member,
    assign_ports,
    command,
    environment,
    url,
)
from tunewheel_local.run_state import RunState
from tunewheel_local.supervisor import BrokerProgram, HttpProgram, Kept, Report, Supervisor
from tunewheel_local.topics import TopicReport, ensure_topics
from tunewheel_local.wheel_secrets import LOCAL, WheelSecrets, local_key, make_secrets

KAFKA_PORT = 9092


class TopicsDiffer(TunewheelError):
    """The cluster's topics differ from their specs."""

    def __init__(self, report: TopicReport) -> None:
        lines = "\n".join(f"  {difference}" for difference in report.differences)
        super().__init__(
            f"topics: {len(report.differences)} settings are not what the specs say:\n{lines}\n"
            "look with `tunewheel admin topics`, alter them with `tunewheel admin topics --apply`, or, if "
            "they are meant to be so, start with --keep-topics"
        )
        self.report = report


@dataclass(frozen=True, slots=True)
class Plan:
    """What to start. If ``connection`` has bootstrap servers, that Kafka is used instead of a local one."""

    var: Var
    members: tuple[Member, ...]
    connection: Connection = field(default_factory=Connection)
    kafka_port: int = KAFKA_PORT
    ports: Mapping[str, int] = field(default_factory=dict)
    auto_ports: bool = False
    keep_topics: bool = False
    """Start although topics differ from their specs."""
    base_model: str | None = None
    engine_url: str | None = None
    """The address of an engine that already runs (vLLM, TGI). Then no local engine is started."""
    extra_env: Mapping[str, str] = field(default_factory=dict)
    pseudonym_secret: bool = True
    """Whether a new folder gets a pseudonym secret. Without it, the same records make the same versions in
    every folder."""

    @property
    def is_local(self) -> bool:
        return self.connection.bootstrap_servers is None


class Wheel:
    """Starts and stops the processes of a ``Plan``, and keeps ``var/run.json`` up to date."""

    def __init__(
        self,
        plan: Plan,
        *,
        report: Report | None = None,
        jar_progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.plan = plan
        self.supervisor = Supervisor(self._note)
        self.ports: dict[str, int] = {}
        self.topics = TopicReport()
        self.on_report = report or (lambda _: None)
        """Is called at every change of a process's state."""
        self._jar_progress = jar_progress
        self._owns = False
        variables = {**os.environ, **plan.extra_env}
        self.state = RunState(
            supervisor_pid=os.getpid(),
            supervisor_started=run_state.started(os.getpid()) or 0.0,
            phase="starting",
            bootstrap_servers="",
            store_url=variables.get("TUNEWHEEL_STORE_URL", plan.var.store_url),
        )
        self.state.identity = variables.get("TUNEWHEEL_IDENTITY") or "required"
        self.state.keys_file = variables.get("TUNEWHEEL_API_KEYS_FILE") or str(plan.var.keys_file)

    async def start(self) -> None:
        """Start all processes and return when they are ready.

        Raises:
            AlreadyRunning, ServicePortTaken, SecretsUnusable, InvalidKeys, BrokerError, TransientError,
                TopicsDiffer, StartFailed: each says what to do. Processes that were started before the error
                still run: call ``stop``.
        """
        run_state.require_none(self.plan.var.run_file)
        self._owns = True
        self.ports = assign_ports(self.plan.members, overrides=self.plan.ports, auto=self.plan.auto_ports)
        try:
            await self._start()
        except TunewheelError as error:
            self.state.phase, self.state.error = "failed", str(error)
            self._write()
            raise
        self.state.phase = "running"
        self._write()
        self._put_context()

    async def stop(self) -> None:
        """Stop all processes in the reverse order and delete the state file."""
        if not self._owns:
            return
        if self.state.phase != "failed":
            self.state.phase = "stopping"
            self._write()
        await self.supervisor.stop()
        self.plan.var.contexts.unlink(missing_ok=True)
        if self.state.phase != "failed":  # after a failure the file stays, so that it can be read
            self.plan.var.run_file.unlink(missing_ok=True)

    @property
    def bootstrap_servers(self) -> str:
        return self.state.bootstrap_servers

    def url_of(self, service: str) -> str:
        return url(self.ports[service])

    async def _start(self) -> None:
        secrets = self._make_secrets()
        connection = self.plan.connection
        if self.plan.is_local:
            kafka = self._local_kafka()
            connection = Connection(
                bootstrap_servers=kafka.bootstrap_servers,
                security_protocol="PLAINTEXT",
                topic_prefix=connection.topic_prefix,
            )
            self.state.bootstrap_servers = kafka.bootstrap_servers
            await self.supervisor.start(BrokerProgram(kafka, self._jar_progress))
        settings = connection.settings()
        self.state.bootstrap_servers = settings.bootstrap_servers
        self.state.security_protocol = settings.security_protocol
        self.state.topic_prefix = settings.topic_prefix
        self.topics = await ensure_topics(connection.client_options())
        if self.topics.differences and not self.plan.keep_topics:
            raise TopicsDiffer(self.topics)
        shared = as_environment(settings) | dict(self.plan.extra_env)
        if self.plan.base_model:
            shared["TUNEWHEEL_BASE_MODEL"] = self.plan.base_model
        programs = (self._program(member, shared, secrets) for member in self.plan.members)
        await self.supervisor.start(*programs)

    @property
    def _engine_url(self) -> str:
        return self.plan.engine_url or url(self.ports.get(ENGINE.name, ENGINE.port))

    def _make_secrets(self) -> WheelSecrets:
        """Create missing secrets. This happens before the wheel has a log or a store."""
        variables = {**os.environ, **self.plan.extra_env}
        # A log or a store from elsewhere may hold versions with pseudonyms of another secret.
        is_elsewhere = variables.get("TUNEWHEEL_STORE_URL") or variables.get("TUNEWHEEL_PSEUDONYM_SECRET")
        wanted = self.plan.pseudonym_secret and self.plan.is_local and not is_elsewhere
        return make_secrets(self.plan.var, pseudonyms=wanted)

    def _local_kafka(self) -> LocalKafka:
        port = self.plan.kafka_port
        if self.plan.auto_ports and not is_free(port):
            port = free_port()
        return LocalKafka(self.plan.var.kafka, port=port, log=self.plan.var.logs / "kafka.log")

    def _program(self, member: Member, shared: Mapping[str, str], secrets: WheelSecrets) -> HttpProgram:
        env = environment(
            member, ports=self.ports, var=self.plan.var, shared=shared, engine_url=self._engine_url,
            wheel_secrets=secrets,
        )  # fmt: skip
        log = _fresh_log(self.plan.var.logs / f"{member.name}.log")
        ready_url = f"{url(self.ports[member.health])}/health/ready"
        return HttpProgram(member.name, command(member), env=env, log=log, ready_url=ready_url)

    def _put_context(self) -> None:
        """Let commands and programs find this wheel by its folder: the console's address and the key."""
        addresses = {
            name: url(self.ports[name]) for name in ("console", "gateway", "ingest") if name in self.ports
        }
        if (console := addresses.get("console")) is None:
            return
        own = self.state.identity != "open" and self.state.keys_file == str(self.plan.var.keys_file)
        context = Context(
            url=console,
            addresses=Addresses(**addresses),
            name=LOCAL,
            key=local_key(self.plan.var) if own else None,
        )
        put(LOCAL, context, file=self.plan.var.contexts)

    def _note(self, kept: Kept) -> None:
        name = kept.program.name
        port = self.ports.get(name)
        self.state.services[name] = {
            "pid": kept.program.pid,
            "port": port,
            "url": self.state.bootstrap_servers if name == BROKER else url(self.ports[name]),
            "health_url": None if name == BROKER else url(self.ports.get(f"{name}-health", self.ports[name])),
            "state": kept.state.value,
            "restarts": kept.restarts,
            "log": str(kept.program.log),
            "note": kept.note,
        }
        self._write()
        self.on_report(kept)

    def _write(self) -> None:
        self.state.write(self.plan.var.run_file)


def _fresh_log(log: Path) -> Path:
    """Rename the last run's log to ``.1.log``, so that each file holds one run."""
    if log.exists():
        log.replace(log.with_suffix(".1.log"))
    return log
