"""A node whose containers run: as processes of this machine, with their pod's command, environment, files."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import httpx
from tunewheel_local.kafka.ports import free_port

from .control_plane import ControlPlane
from .pods import Material, Pod, container_of, path_of, written_below

NODE = "here"
TOLERATION = {"key": "tunewheel.io/node", "operator": "Equal", "value": NODE, "effect": "NoSchedule"}
HERE = {"nodeSelector": {"kubernetes.io/hostname": NODE}, "tolerations": [TOLERATION]}
"""Values of a service whose pods are to be placed on this node; no other pod is."""
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
PORTS = ("TUNEWHEEL_HTTP_PORT", "TUNEWHEEL_HEALTH_PORT")


class Container:
    """The process that stands for a pod's only container. Every pod has its own disk and its own ports."""

    def __init__(
        self, plane: ControlPlane, pod: Pod, folder: Path, commands: Mapping[str, Sequence[str]]
    ) -> None:
        self.pod = pod
        self.told: object = None
        self._asked_to_end = False
        container = container_of(pod)
        material = Material(plane, pod["metadata"]["namespace"])
        mounts = _mounted(material, pod, folder)
        words = container.get("command") or [f"tunewheel-{container['name']}"]
        words = [*words, *container.get("args", ())]
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(folder),
            "KUBERNETES_SERVICE_HOST": "127.0.0.1",
            "KUBERNETES_SERVICE_PORT": str(plane.port),
            "SERVICE_ACCOUNT": str(mounts.get(SERVICE_ACCOUNT, "")),
            "OMP_NUM_THREADS": "1",
        }
        told = {name: written_below(mounts, text) for name, text in material.environment(pod).items()}
        self._ports = {name: str(free_port()) for name in PORTS}
        own = self._ports | {"TUNEWHEEL_HTTP_HOST": "127.0.0.1"}
        path = folder / "log"
        with path.open("wb") as log:
            self.process = subprocess.Popen(
                [*commands.get(words[0], [words[0]]), *words[1:]],
                env=environment | told | own, stdout=log, stderr=log, cwd=folder,
            )  # fmt: skip

    @property
    def exit_code(self) -> int | None:
        """As a shell tells it: 137 after SIGKILL."""
        code = self.process.poll()
        return 128 - code if code is not None and code < 0 else code

    def is_ready(self) -> bool:
        """Ask as the pod's readiness probe says."""
        probe = container_of(self.pod).get("readinessProbe")
        if probe is None:
            return True
        asked = probe["httpGet"]
        assert (asked["port"], asked["scheme"]) == ("health", "HTTP")
        port = self._ports["TUNEWHEEL_HEALTH_PORT"]
        try:
            return httpx.get(f"http://127.0.0.1:{port}{asked['path']}", timeout=5).is_success
        except httpx.TransportError:
            return False

    def ask_to_end(self) -> None:
        if not self._asked_to_end and self.process.poll() is None:
            self._asked_to_end = True
            self.process.terminate()


class Kubelet:
    """Runs the pods of the node ``NODE``. ``commands``: what stands for an image's commands."""

    def __init__(self, plane: ControlPlane, folder: Path, commands: Mapping[str, Sequence[str]]) -> None:
        self._plane = plane
        self._folder = folder
        self._commands = commands
        self._containers: dict[str, Container] = {}
        self._thread = threading.Thread(target=self._work, name="kubelet")
        self._stopped = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        taint = {key: TOLERATION[key] for key in ("key", "value", "effect")}
        self._plane.add_node(NODE, {}, taints=[taint])
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        for container in self._containers.values():
            container.process.kill()
            container.process.wait()
        self._plane.delete(f"/api/v1/nodes/{NODE}")
        if self._failure is not None:
            raise self._failure

    def running(self, wanted: Callable[[Pod], bool]) -> list[Container]:
        """Return the containers that run, of pods that are ``wanted``."""
        found = list(self._containers.values())
        return [one for one in found if one.exit_code is None and wanted(one.pod)]

    def _work(self) -> None:
        try:
            while not self._stopped.wait(0.2):
                self._beat()
                for pod in self._plane.items("/api/v1/pods", fieldSelector=f"spec.nodeName={NODE}"):
                    self._look_after(pod)
        except BaseException as error:
            self._failure = error

    def _beat(self) -> None:
        """The controllers take the pods from a node that is silent."""
        condition = {"type": "Ready", "status": "True", "reason": "Here", "lastHeartbeatTime": _now()}
        self._plane.patch(f"/api/v1/nodes/{NODE}/status", {"status": {"conditions": [condition]}})

    def _look_after(self, pod: Pod) -> None:
        metadata = pod["metadata"]
        container = self._containers.get(metadata["uid"])
        going = "deletionTimestamp" in metadata
        if container is None and not going and pod["status"]["phase"] == "Pending":
            folder = self._folder / metadata["uid"]
            folder.mkdir(parents=True)
            container = Container(self._plane, pod, folder, self._commands)
            self._containers[metadata["uid"]] = container
        if container is not None:
            if going:
                container.ask_to_end()
            self._tell(container)
        if going and (container is None or container.exit_code is not None):
            self._plane.delete(path_of(pod), gracePeriodSeconds=0)

    def _tell(self, container: Container) -> None:
        """Tell the server how the container is, if that has changed."""
        code = container.exit_code
        now = (code, code is None and container.is_ready())
        if now == container.told:
            return
        container.told = now
        phase = "Running" if code is None else "Failed" if code else "Succeeded"
        state = {"running": {"startedAt": _now()}} if code is None else {"terminated": {"exitCode": code}}
        own = container_of(container.pod)
        status = {
            "phase": phase,
            "conditions": [{"type": kind, "status": str(now[1])} for kind in ("Ready", "ContainersReady")],
            "containerStatuses": [
                {
                    "name": own["name"], "image": own["image"], "imageID": "", "restartCount": 0,
                    "ready": now[1], "started": code is None, "state": state,
                }
            ],
        }  # fmt: skip
        self._plane.patch(f"{path_of(container.pod)}/status", {"status": status})


def _mounted(material: Material, pod: Pod, folder: Path) -> dict[str, Path]:
    """Lay the pod's volumes into ``folder``, or, where pods share them, beside it; return them by the paths
    that the container has them at."""
    found: dict[str, Path] = {}
    volumes = {volume["name"]: volume for volume in pod["spec"]["volumes"]}
    for mount in container_of(pod)["volumeMounts"]:
        volume = volumes[mount["name"]]
        files = material.files(pod, volume)
        claim = volume.get("persistentVolumeClaim")
        place = claim_folder(folder.parent, claim["claimName"]) if claim else folder / mount["name"]
        place.mkdir(parents=True, exist_ok=True)
        for path, content in (files or {}).items():
            (place / path).write_bytes(content)
        found[mount["mountPath"]] = place
    return found


def claim_folder(folder: Path, name: str) -> Path:
    return folder / "claims" / name


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
