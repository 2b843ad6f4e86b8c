"""A cluster of three brokers on this machine, of which two must have a record before it counts."""

from __future__ import annotations

import subprocess
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self
from unittest.mock import patch

from tunewheel_local.kafka import properties
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port
from tunewheel_local.kafka.properties import server_properties
from tunewheel_runtime.cluster import admin_client, describe_cluster

COUNT = 3
PROPERTIES = {
    "default.replication.factor": "3",
    "min.insync.replicas": "2",
    "offsets.topic.replication.factor": "3",
    "transaction.state.log.replication.factor": "3",
    "transaction.state.log.min.isr": "2",
    "controller.quorum.election.timeout.ms": "1000",
    "controller.quorum.election.backoff.max.ms": "1000",
    "metadata.max.idle.interval.ms": "500",
    "auto.leader.rebalance.enable": "false",  # Who leads shows until the end who was killed.
}


async def leaders(options: Mapping[str, Any], names: Sequence[str]) -> dict[tuple[str, int], int]:
    """Return the node id of the leader of each partition of the topics ``names``."""
    async with admin_client(options) as admin:
        topics = (await describe_cluster(admin, names)).topics
    return {(name, n): copy.leader for name in names for n, copy in enumerate(topics[name].partitions)}


class _Broker(LocalKafka):
    """One of the three, which knows the other voters."""

    def __init__(self, root: Path, number: int, controllers: Sequence[int], cluster: str) -> None:
        super().__init__(root, port=None)
        self._number = number
        self._controllers = controllers
        self._cluster = cluster

    def _write_config(self) -> Path:
        voters = ",".join(f"{n}@127.0.0.1:{port}" for n, port in enumerate(self._controllers, 1))
        more = PROPERTIES | {"node.id": str(self._number), "controller.quorum.voters": voters}
        self.data.mkdir(parents=True, exist_ok=True)
        values = server_properties(
            data=self.data, port=self.port, controller_port=self._controllers[self._number - 1], more=more
        )
        config = self.root / "server.properties"
        config.write_text("".join(f"{key}={value}\n" for key, value in values.items()), "utf-8")
        return config

    def _format(self, java: Path, jars: Sequence[Path], config: Path, *, options: Sequence[str]) -> None:
        tool = ("kafka.tools.StorageTool", "format", "-t", self._cluster, "-c", str(config))
        command = self._command(java, jars, *tool, options=options)
        subprocess.run(command, stdin=subprocess.DEVNULL, check=True, capture_output=True, timeout=120)


class ThreeBrokers:
    """Starts the brokers at once, since none answers without a second one."""

    def __init__(self, root: Path) -> None:
        controllers = [free_port() for _ in range(COUNT)]
        cluster = f"T{urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]}"
        self._brokers = [_Broker(root / f"kafka-{n}", n, controllers, cluster) for n in range(1, COUNT + 1)]

    @property
    def servers(self) -> str:
        return ",".join(broker.bootstrap_servers for broker in self._brokers)

    def __enter__(self) -> Self:
        with ThreadPoolExecutor(COUNT) as pool:
            for started in [pool.submit(broker.start, patience=300) for broker in self._brokers]:
                started.result()
        return self

    def kill(self, number: int) -> None:
        """Kill the broker of that node id with -9."""
        self._brokers[number - 1].kill()

    def start(self, number: int) -> None:
        """Start the broker of that node id again on its data."""
        with patch.object(properties, "NODE_ID", number):  # Elsewhere every local broker is node 1.
            self._brokers[number - 1].start(patience=300)

    def __exit__(self, *_: object) -> None:
        for broker in self._brokers:
            broker.kill()
