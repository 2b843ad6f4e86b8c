"""Curate and ingest scaled by the chart's own ScaledObjects: KEDA reads the lag of a real Kafka, and the
control plane's autoscaler reads KEDA's metrics.

Not part of ``make test``, hence the file's name. The services run, on the node that runs containers.
"""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiokafka import AIOKafkaConsumer, TopicPartition
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.upstream import TicketPublished
from tunewheel_contracts.topics import RECORD_INGESTED, TICKET_PUBLISHED, TopicSpec
from tunewheel_local.kafka.ports import free_port
from tunewheel_runtime.partitions import backlog_of
from tunewheel_testing.specs import declared

from ..integration.bus import Bus
from ..integration.bus import until as until_soon
from ..integration.secured_kafka import Authority
from ..integration.test_curate import records
from .conftest import require
from .control_plane import PATIENCE_SECONDS, ControlPlane, until
from .kubelet import HERE, Kubelet
from .release import Release, without_others
from .tools import EXAMPLES, TOOLS

MOST = 2
EVENTS = 40
"""That wait: as many as ``records`` makes."""
SCALING = {
    "enabled": True, "maxReplicas": MOST, "lagThreshold": 10, "pollingSeconds": 1,
    "cooldownSeconds": 3,
}  # fmt: skip


@pytest.fixture(scope="session")
def keda_tools() -> Path:
    require("keda-operator", "keda-adapter", "keda-crds")
    return TOOLS


@pytest.fixture(scope="module")
def keda(keda_tools: Path, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The operator, and the server of its metrics, until the control plane stops."""
    for path in sorted((keda_tools / "keda-crds").glob("*.yaml")):
        plane.define(yaml.safe_load(path.read_text("utf-8")))
    certs = certificates(tmp_path_factory.mktemp("keda"))
    told = {
        "KUBECONFIG": str(plane.kubeconfig), "KEDA_CLUSTER_OBJECT_NAMESPACE": "keda",
        "WATCH_NAMESPACE": "",  # all of them
    }  # fmt: skip
    metrics, port = f"localhost:{free_port()}", free_port()
    plane.run(
        "keda-operator", f"--cert-dir={certs}", "--enable-webhook-patching=false",
        f"--metrics-service-bind-address={metrics}", "--metrics-bind-address=0",
        f"--health-probe-bind-address=127.0.0.1:{free_port()}", **told,
    )  # fmt: skip
    ask = [
        f"--{what}-kubeconfig={plane.kubeconfig}" for what in ("lister", "authentication", "authorization")
    ]
    plane.run(
        "keda-adapter", *ask, f"--cert-dir={certs}", f"--tls-cert-file={certs / 'tls.crt'}",
        f"--tls-private-key-file={certs / 'tls.key'}", "--bind-address=127.0.0.1", f"--secure-port={port}",
        f"--port={free_port()}", f"--metrics-service-address={metrics}", **told,
    )  # fmt: skip
    serve_metrics(plane, port)


def certificates(folder: Path) -> Path:
    """Return a folder of what the operator and the server of its metrics know each other by."""
    authority = Authority(folder / "authority", "keda-ca")
    certificate, key = authority.issue("localhost")
    for path, name in ((authority.cafile, "ca.crt"), (certificate, "tls.crt"), (key, "tls.key")):
        shutil.copyfile(path, folder / name)
    return folder


def serve_metrics(plane: ControlPlane, port: int) -> None:
    """Have the API server ask this machine's ``port`` for external metrics."""
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "keda"}}
    plane.apply("/api/v1/namespaces", space)
    name = {"name": "keda-adapter", "namespace": "keda"}
    here = {"type": "ExternalName", "externalName": "localhost"}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": name, "spec": here}
    plane.apply("/api/v1/namespaces/keda/services", service)
    group, version = "external.metrics.k8s.io", "v1beta1"
    spec = {
        "group": group, "version": version, "service": name | {"port": port}, "insecureSkipTLSVerify": True,
        "groupPriorityMinimum": 100, "versionPriority": 100,
    }  # fmt: skip
    registered = {
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": f"{version}.{group}"}, "spec": spec,
    }  # fmt: skip
    plane.apply("/apis/apiregistration.k8s.io/v1/apiservices", registered)
    until(lambda: plane.api.get(f"/apis/{group}/{version}").is_success, "the server of KEDA's metrics")


@dataclass(frozen=True)
class Scaled:
    """A service, how few of it there may be, and how work of a project is put on its log."""

    service: str
    fewest: int
    topic: TopicSpec[Any]
    work: Callable[[str], Sequence[Envelope[Any]]]


def tickets(project: str) -> Sequence[Envelope[Any]]:
    return [
        declared(project),
        *(
            new_event(TicketPublished(project=project, ticket_id=f"T-{n}", body=f"bell {n}"), source="/test")
            for n in range(EVENTS)
        ),
    ]


SCALED = (
    Scaled("curate", 0, RECORD_INGESTED, records),
    # Never to none: its door is HTTP, which no lag speaks of.
    Scaled("ingest", 1, TICKET_PUBLISHED, tickets),
)


@pytest.fixture(params=SCALED, ids=lambda one: one.service)
def scaled(request: pytest.FixtureRequest) -> Scaled:
    return request.param


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A file that the service waits for before it starts."""
    return tmp_path / "open"


@pytest.fixture
def kubelet(keda: None, scaled: Scaled, plane: ControlPlane, gate: Path, tmp_path: Path) -> Iterator[Kubelet]:
    command = f"tunewheel-{scaled.service}"
    held = f'until [ -e "{gate}" ]; do sleep 0.1; done; exec {command}'
    with Kubelet(plane, tmp_path, {command: ("sh", "-c", held)}) as found:
        yield found


@pytest.fixture
def release(
    kubelet: Kubelet, scaled: Scaled, plane: ControlPlane, helm: str, chart: Path, fresh_kafka: str,
    tmp_path: Path,
) -> Iterator[Release]:  # fmt: skip
    values = tmp_path / "values.yaml"
    scaling = SCALING | {"minReplicas": scaled.fewest}
    told = {
        "kafka": {"bootstrapServers": fresh_kafka},
        "services": without_others(scaled.service) | {scaled.service: HERE | {"scaling": scaling}},
    }
    values.write_text(yaml.safe_dump(yaml.safe_load(EXAMPLES["minimal"].read_text("utf-8")) | told))
    found = Release(plane, helm, chart, values, f"scaling-{scaled.service}").prepare()
    yield found
    found.remove()


async def test_replicas_become_more_with_the_lag_and_as_few_as_before_without_it(
    release: Release, scaled: Scaled, kubelet: Kubelet, fresh_kafka: str, gate: Path, project: str
) -> None:
    release.helm("install")

    def replicas() -> tuple[int, int]:
        """Return how many are asked for, and how many run."""
        running = kubelet.running(lambda pod: pod["metadata"]["namespace"] == release.namespace)
        return release.workload(scaled.service)["spec"]["replicas"], len(running)

    few, many = (scaled.fewest,) * 2, (MOST,) * 2
    await until_soon(lambda: replicas() == few)
    async with Bus(fresh_kafka) as bus:
        await bus.publish(*scaled.work(project))
    await until_soon(lambda: replicas() == many)
    assert await waiting(fresh_kafka, scaled) == EVENTS
    gate.touch()
    await until_soon(lambda: replicas() == few)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await waiting(fresh_kafka, scaled):  # ingest's last one has room for some that wait
            await asyncio.sleep(0.2)


async def waiting(kafka: str, scaled: Scaled) -> int:
    """Return how many events the service has not taken yet."""
    (group,) = scaled.topic.groups_of(scaled.service)
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, group_id=group)
    await consumer.start()
    try:
        partitions = [TopicPartition(scaled.topic.name, n) for n in range(scaled.topic.partitions)]
        backlog = await backlog_of(consumer, partitions)
    finally:
        await consumer.stop()
    return sum(backlog.ends.values()) - sum(backlog.kept.values())
