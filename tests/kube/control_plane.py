"""A real Kubernetes control plane on loopback: etcd, API server, controllers, scheduler, and kwok for a node.

The containers of kwok's node are simulated. ``kubelet.Kubelet`` adds a node that runs them here. What the
server, its controllers and its scheduler make of objects is real.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import ssl
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

import httpx
from tunewheel_local.kafka.ports import free_port

BINARIES = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "etcd", "kwok")
PATIENCE_SECONDS = 900.0
SIMULATED = "simulated"
"""The node whose pods are ready as soon as they are placed on it, and whose Jobs complete."""
KWOK = {"kwok.x-k8s.io/node": "fake"}
"""The annotation of nodes whose containers are simulated."""
Room = Mapping[str, str]
AMPLE: Room = {"cpu": "64", "memory": "512Gi", "pods": "200", "nvidia.com/gpu": "16"}


class ControlPlane:
    """Runs the binaries of ``tools`` with their data in ``folder``."""

    def __init__(self, tools: Path, folder: Path) -> None:
        self._tools = tools
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.port = free_port()
        self.kubeconfig = folder / "kubeconfig"
        self.authority = folder / "certs" / "apiserver.crt"
        """What a client trusts who asks the API server."""

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def get(self, path: str, **asked: str) -> Any:
        return _read(self.api.get(path, params=asked))

    def items(self, path: str, **asked: str) -> list[dict[str, Any]]:
        return self.get(path, **asked)["items"]

    def apply(self, path: str, body: dict[str, Any]) -> Any:
        """Make the object in the collection ``path``, or change it to ``body``."""
        return _read(
            self.api.patch(
                f"{path}/{body['metadata']['name']}",
                params={"fieldManager": "test", "force": "true"},
                content=json.dumps(body),
                headers={"content-type": "application/apply-patch+yaml"},
            )
        )

    def define(self, resource: dict[str, Any]) -> None:
        """Make a custom resource known, and wait until the server serves it."""
        self.apply("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", resource)
        path = f"/apis/{resource['spec']['group']}/{resource['spec']['versions'][0]['name']}"
        until(lambda: self.api.get(f"{path}/{resource['spec']['names']['plural']}").is_success, path)

    def patch(self, path: str, body: dict[str, Any]) -> Any:
        kind = "application/strategic-merge-patch+json"
        return _read(self.api.patch(path, content=json.dumps(body), headers={"content-type": kind}))

    def post(self, path: str, body: dict[str, Any]) -> Any:
        return _read(self.api.post(path, json=body))

    def delete(self, path: str, **body: Any) -> None:
        answer = self.api.request("DELETE", path, json=body)
        assert answer.is_success or answer.status_code == httpx.codes.NOT_FOUND, answer.text

    def run(self, name: str, *arguments: str, **environment: str) -> None:
        """Start a binary beside the others, until the control plane stops."""
        with (self._folder / f"{name}.log").open("wb") as log:
            command = [str(self._tools / name), *arguments]
            self._processes.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment or None))

    def _start(self) -> None:
        client, peer = (f"http://127.0.0.1:{free_port()}" for _ in range(2))
        token = secrets.token_hex(16)
        (self._folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
        self.kubeconfig.write_text(_kubeconfig(f"https://127.0.0.1:{self.port}", self.authority, token))
        data = ["--data-dir", str(self._folder / "etcd"), "--log-level", "error", "--unsafe-no-fsync"]
        self.run("etcd", *data, "--listen-client-urls", client, "--advertise-client-urls", client,
                 "--listen-peer-urls", peer)  # fmt: skip
        key = self._serve(client)
        self._until_ready(token)
        to, alone = ["--kubeconfig", str(self.kubeconfig)], ("--leader-elect=false", "--secure-port=0")
        # The simulated node gives no signs of life: after 50 s its pods would be unready, and stay so.
        self.run("kube-controller-manager", *to, *alone, f"--service-account-private-key-file={key}",
                 f"--root-ca-file={self.authority}", "--node-monitor-grace-period=1h",
                 "--horizontal-pod-autoscaler-sync-period=1s",
                 "--horizontal-pod-autoscaler-downscale-stabilization=1s")  # fmt: skip
        self.run("kube-scheduler", *to, *alone)
        self.add_node(SIMULATED, KWOK)
        self.run("kwok", *to, "--manage-all-nodes=false",
                 "--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake")  # fmt: skip

    def _serve(self, etcd: str) -> Path:
        """Start the API server; return the key that signs service accounts' tokens."""
        key, front, front_key = (self._folder / name for name in ("accounts.key", "front.crt", "front.key"))
        _openssl("genrsa", "-out", str(key), "2048")
        # Extension servers, as KEDA's adapter is one, know by this certificate that the API server asks them.
        _openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=front-proxy",
                 "-keyout", str(front_key), "-out", str(front))  # fmt: skip
        self.run(
            "kube-apiserver", f"--etcd-servers={etcd}", f"--cert-dir={self.authority.parent}",
            f"--secure-port={self.port}", "--bind-address=127.0.0.1", "--authorization-mode=RBAC",
            "--service-account-issuer=https://kubernetes.default", f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}", f"--token-auth-file={self._folder / 'tokens.csv'}",
            "--service-cluster-ip-range=10.0.0.0/22", f"--requestheader-client-ca-file={front}",
            f"--proxy-client-cert-file={front}", f"--proxy-client-key-file={front_key}",
            "--requestheader-username-headers=X-Remote-User",
            "--requestheader-group-headers=X-Remote-Group",
            "--requestheader-extra-headers-prefix=X-Remote-Extra-",
        )  # fmt: skip
        return key

    def _until_ready(self, token: str) -> None:
        trusting: list[ssl.SSLContext] = []

        def is_written() -> bool:
            with contextlib.suppress(FileNotFoundError, ssl.SSLError):  # not there, or not whole yet
                trusting.append(ssl.create_default_context(cafile=str(self.authority)))
            return bool(trusting)

        until(is_written, "the API server's certificate")
        self.api = httpx.Client(
            base_url=f"https://127.0.0.1:{self.port}",
            headers={"authorization": f"Bearer {token}"},
            verify=trusting[0],
            timeout=60,
        )

        def is_ready() -> bool:
            try:
                return self.api.get("/readyz").is_success
            except httpx.TransportError:
                return False

        until(is_ready, "the API server")

    def add_node(self, name: str, annotations: dict[str, str], *, room: Room = AMPLE, **spec: Any) -> None:
        """Add a node, by default with room for every example, and more GPUs than their pods hold."""
        metadata = {"name": name, "annotations": annotations, "labels": {"kubernetes.io/hostname": name}}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": metadata, "spec": spec}
        self.apply("/api/v1/nodes", node)
        self.patch(
            f"/api/v1/nodes/{name}/status", {"status": {"allocatable": dict(room), "capacity": dict(room)}}
        )

    def stop(self) -> None:
        """End the processes in the reverse order, and wait for it."""
        for process in reversed(self._processes):
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._processes.clear()


def until(condition: Callable[[], Any], what: str) -> None:
    """Wait for ``condition`` to hold; ``what`` is awaited."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited {PATIENCE_SECONDS} s in vain for {what}"
        time.sleep(0.1)


def _read(answer: httpx.Response) -> Any:
    assert answer.is_success, f"{answer.request.method} {answer.url}: {answer.text[:3000]}"
    return answer.json()


def _openssl(*arguments: str) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def _kubeconfig(server: str, authority: Path, token: str) -> str:
    cluster = {"server": server, "certificate-authority": str(authority)}
    return json.dumps({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "local", "cluster": cluster}],
        "users": [{"name": "admin", "user": {"token": token}}],
        "contexts": [{"name": "local", "context": {"cluster": "local", "user": "admin"}}],
        "current-context": "local",
    })  # fmt: skip
