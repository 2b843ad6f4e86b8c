"""A release of the chart in a namespace of its own, with the Secrets and volumes that it asks for."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from tunewheel_runtime.identity.keys import ApiKey, KeyFile, sum_of
from tunewheel_runtime.identity.roles import Role
from tunewheel_testing.command_keys import CommandKeys

from .control_plane import ControlPlane, until
from .tools import run

SERVICES = (
    "console", "curate", "engine", "eval", "index", "ingest", "monitor", "registry", "serve-gateway", "train",
)  # fmt: skip
OPERATOR = "operator"
"""The key that may do everything."""


@dataclass(frozen=True)
class Published:
    """A chart in a registry without TLS."""

    address: str
    version: str

    @property
    def words(self) -> tuple[str, ...]:
        return (self.address, "--version", self.version, "--plain-http")


class Release:
    """A release in ``namespace``, with the values of files, the last of which counts."""

    def __init__(
        self,
        plane: ControlPlane,
        helm: str,
        chart: Path | Published,
        values: Path,
        namespace: str,
        *more: Path,
        name: str = "wheel",
    ) -> None:
        self._plane = plane
        self._helm = helm
        self._chart = chart.words if isinstance(chart, Published) else (str(chart),)
        self._values = [word for path in (values, *more) for word in ("--values", str(path))]
        self._name = name
        self.namespace = namespace

    def prepare(self) -> Release:
        """Prepare the namespace as an operator does; nothing is installed yet."""
        plane, namespace = self._plane, self.namespace
        # The server itself holds pods to the standard.
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}
        plane.apply("/api/v1/namespaces", space)
        with TemporaryDirectory() as folder:
            signing = CommandKeys(Path(folder))
            keys = signing.file.read_text()
        for secret_name, data in {**secrets(), "tunewheel-signing": signing.private}.items():
            metadata = {"name": secret_name}
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": data}
            plane.apply(f"/api/v1/namespaces/{namespace}/secrets", secret)
        public = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tunewheel-signing"},
                  "data": {"signing-keys.json": keys}}  # fmt: skip
        plane.apply(f"/api/v1/namespaces/{namespace}/configmaps", public)
        for n, storage_class in enumerate(("shared-files", "", "", "", "")):
            plane.apply("/api/v1/persistentvolumes", volume(f"{namespace}-{n}", storage_class))
        return self

    def helm(self, command: str, *options: str, fails: bool = False) -> str:
        to = ("--kubeconfig", str(self._plane.kubeconfig), "--namespace", self.namespace)
        takes = {"rollback": ("1",), "uninstall": ()}
        values = takes.get(command, (*self._chart, *self._values))
        return run(self._helm, command, self._name, *values, *options, *to, fails=fails)

    def until_available(self) -> None:
        """Wait until every Deployment and StatefulSet has all its replicas, of its newest pod."""
        until(
            lambda: self.available() == {one["metadata"]["name"] for one in self.workloads()}, "all replicas"
        )

    def available(self) -> set[str]:
        """Return the workloads that have all their replicas, of their newest pod."""
        return {
            one["metadata"]["name"]
            for one in self.workloads()
            if one["status"].get("observedGeneration") == one["metadata"]["generation"]
            and {
                one["status"].get(name, 0)
                for name in ("replicas", "readyReplicas", "updatedReplicas", "availableReplicas")
            }
            == {one["spec"]["replicas"]}
        }

    def workloads(self) -> list[dict[str, Any]]:
        apps = f"/apis/apps/v1/namespaces/{self.namespace}"
        return [*self._plane.items(f"{apps}/deployments"), *self._plane.items(f"{apps}/statefulsets")]

    def workload(self, service: str) -> dict[str, Any]:
        (found,) = (
            one for one in self.workloads() if one["metadata"]["name"] == f"{self._name}-tunewheel-{service}"
        )
        return found

    def pods(self) -> list[dict[str, Any]]:
        """Return those that run and are not going."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        found = self._plane.items(path, fieldSelector="status.phase=Running")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def templates(self) -> dict[str, set[str]]:
        """Return by service which templates the pods that run were made from."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for pod in self.pods():
            labels = pod["metadata"]["labels"]
            made_from = labels.get("pod-template-hash") or labels["controller-revision-hash"]
            found[labels["app.kubernetes.io/component"]].add(made_from)
        return dict(found)

    def remove(self) -> None:
        self._plane.delete(f"/api/v1/namespaces/{self.namespace}")


def without_others(service: str) -> dict[str, Any]:
    """Return values of services by which one of them is installed alone."""
    return {name: {"enabled": False} for name in SERVICES if name != service}


def secrets() -> dict[str, dict[str, str]]:
    """Return what the examples ask for, and Strimzi's operator would make."""
    entry = ApiKey(sha256=(sum_of("operator's key"),), roles=tuple(Role))
    keys = yaml.safe_dump(KeyFile(keys={OPERATOR: entry}).model_dump(mode="json", exclude_none=True))
    secret = "0123456789abcdef" * 4
    own = ("completion-secret", "session-secret", "pseudonym-secret", "engine-api-key", "webhook-secret")
    passwords = [
        f"{prefix}{name}" for name in (*SERVICES, "topics") for prefix in ("kafka-", "wheel-tunewheel-")
    ]
    return {
        "tunewheel-keys": {"keys.yaml": keys, "engine-keys.yaml": keys},
        "tunewheel-secrets": dict.fromkeys(own, secret) | {"limits-url": "redis://limits:6379"},
        "tunewheel-store": {"AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": secret},
        "tunewheel-tls": dict.fromkeys(("tls.crt", "tls.key", "ca.crt"), "PEM"),
        "kafka-ca": {"ca.crt": "PEM"},
        "wheel-cluster-ca-cert": {"ca.crt": "PEM"},
        **{name: {"password": secret} for name in passwords},
    }


def volume(name: str, storage_class: str) -> dict[str, Any]:
    """Return a volume for a claim: nothing provisions any here."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": name},
        "spec": {
            "storageClassName": storage_class,
            "capacity": {"storage": "500Gi"},
            "accessModes": ["ReadWriteOnce", "ReadWriteMany"],
            "hostPath": {"path": "/simulated"},
        },
    }
