"""Jobs of a Kubernetes cluster (batch/v1), made from the operator's template."""

# kubernetes_asyncio has no types for what its API returns.
from __future__ import annotations

import asyncio
import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import yaml
from tunewheel_contracts.errors import TransientError, TunewheelError
from tunewheel_runtime.kafka import InvalidSetting

CONTAINER = "train"
EXIT_STOPPED = 75
"""The exit code of a pod that was told to stop before its run ended; see ``worker.EXIT_STOPPED``."""
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
PAUSED = "tunewheel.io/paused"
"""Annotation of a Job that this service suspended. A Job that a queue or a person suspended is not
resumed."""
UNAUTHORIZED, NOT_FOUND, CONFLICT = 401, 404, 409
REFUSED = (400, 422)
"""Status codes of an invalid Job. Retrying is useless."""


class JobRefused(TunewheelError):
    """The cluster refuses the Job. The message is that of the API server."""


@dataclass(frozen=True, slots=True)
class JobState:
    paused: bool = False
    """Whether this service suspended it."""
    begun: bool = False
    """Whether one of its pods is ready."""
    failure: str | None = None
    """Why the cluster starts no further pod; None: it may start more."""
    complete: bool = False


def read_template(path: Path, *, nodes: int = 1) -> dict[str, Any]:
    """Return the Job from which every run's Job is made. Raises InvalidSetting: it is no Job, has no
    container ``train``, or, for several ``nodes``, no ``subdomain`` by which its pods find each other. The
    message names the field and the fix."""

    def refuse(reason: str) -> InvalidSetting:
        return InvalidSetting("train_job_template", f"{path} {reason}")

    try:
        found: Any = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise refuse(f"cannot be read: {error}") from error
    if not isinstance(found, dict) or (found.get("apiVersion"), found.get("kind")) != ("batch/v1", "Job"):
        raise refuse("is no Job; write apiVersion: batch/v1 and kind: Job")
    job = cast("dict[str, Any]", found)
    try:
        containers = job["spec"]["template"]["spec"]["containers"]
        named = [one["name"] for one in containers]
    except (KeyError, TypeError) as error:
        raise refuse(f"lacks spec.template.spec.containers: {error!r}") from error
    if CONTAINER not in named:
        raise refuse(
            f"has no container named {CONTAINER}, only {', '.join(map(str, named))}; give it that name"
        )
    if nodes > 1 and not job["spec"]["template"]["spec"].get("subdomain"):
        raise refuse(
            f"lacks spec.template.spec.subdomain, and TUNEWHEEL_TRAIN_NODES is {nodes}; write the name of a "
            "headless Service that selects its pods"
        )
    return job


def job_of(template: dict[str, Any], name: str, *, labels: dict[str, str], nodes: int = 1) -> dict[str, Any]:
    """Return the Job ``name``.

    Values of the template are kept. Defaults are added, so that a lost node costs no attempt and a pod that
    was told to stop is started again. With several ``nodes`` it is an Indexed Job, whose first pod the others
    find by its host name.
    """
    job = copy.deepcopy(template)
    metadata = job.setdefault("metadata", {})
    metadata["name"] = name
    metadata.pop("generateName", None)
    metadata["labels"] = {**metadata.get("labels", {}), **labels}
    spec = job["spec"]
    # backoffLimit counts the pods of all nodes together, and one lack of memory may end all of them.
    spec["backoffLimit"] = spec.get("backoffLimit", 3) * nodes
    spec.setdefault("ttlSecondsAfterFinished", 86_400)
    spec.setdefault("podFailurePolicy", _failure_policy())
    pod = spec["template"]
    pod.setdefault("metadata", {}).setdefault("labels", {}).update(labels)
    pod["spec"]["restartPolicy"] = "Never"  # a failure policy allows no other
    for container in pod["spec"]["containers"]:
        if container["name"] == CONTAINER:
            container["args"] = [*container.get("args", []), name]
            place = _place(name, pod["spec"].get("subdomain"), nodes)
            others = [one for one in container.get("env", []) if one["name"] not in place]
            container["env"] = [*others, *({"name": k, "value": v} for k, v in place.items())]
    if nodes > 1:
        spec |= {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes}
    return job


def _place(name: str, subdomain: str | None, nodes: int) -> dict[str, str]:
    """Return the environment that tells a pod the number of nodes and the address of node 0. So the number
    stays the same even if the setting changes while the Job lives. Kubernetes itself sets
    JOB_COMPLETION_INDEX. The host name of a pod of an Indexed Job is the Job's name and the pod's index."""
    count = {"TUNEWHEEL_TRAIN_NODES": str(nodes)}
    if nodes == 1:
        return count
    return count | {"MASTER_ADDR": f"{name}-0.{subdomain}"}


def _failure_policy() -> dict[str, Any]:
    stopped = {"containerName": CONTAINER, "operator": "In", "values": [EXIT_STOPPED]}
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "Ignore", "onExitCodes": stopped},
        ]
    }


class Jobs:
    """The Jobs of one namespace. The API server is the one in ``KUBECONFIG``, else that of the cluster that
    this process runs in."""

    def __init__(self, template: dict[str, Any], *, nodes: int = 1) -> None:
        self._template = template
        self._nodes = nodes
        self._client: Any = None
        self._connecting = asyncio.Lock()
        self._namespace = template.get("metadata", {}).get("namespace") or _own_namespace()

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()
            self._client = None

    async def ensure(self, name: str, *, labels: dict[str, str], one_node: bool = False) -> None:
        """Create the Job ``name``, unless it exists. ``one_node``: whatever the number of nodes of a run's
        Job. Raises JobRefused, TransientError."""
        body = job_of(self._template, name, labels=labels, nodes=1 if one_node else self._nodes)
        await self._call("create_namespaced_job", self._namespace, body)

    async def state(self, name: str) -> JobState | None:
        """Return the state of the Job; None: it does not exist. Raises TransientError."""
        job = await self._call("read_namespaced_job", name, self._namespace)
        return _state(job) if job is not None else None

    async def pause(self, name: str, *, paused: bool) -> None:
        """Suspend the Job, which ends its pods, or resume it. Raises TransientError."""
        annotations = {PAUSED: "true" if paused else None}
        body = {"metadata": {"annotations": annotations}, "spec": {"suspend": paused}}
        await self._call("patch_namespaced_job", name, self._namespace, body)

    async def _call(self, method: str, *arguments: Any) -> Any:
        from aiohttp import ClientError
        from kubernetes_asyncio.client import BatchV1Api
        from kubernetes_asyncio.client.exceptions import ApiException

        try:
            async with asyncio.timeout(30):
                api = BatchV1Api(await self._connected())
                return await getattr(api, method)(*arguments)
        except ApiException as error:
            said = f"{error.status} {error.reason}: {str(error.body)[:500]}"
            # a conflict can also come from a quota that others use at the same time; then no Job was made
            if error.status == NOT_FOUND or (error.status == CONFLICT and '"AlreadyExists"' in said):
                return None
            if error.status in REFUSED:
                raise JobRefused(f"the cluster refuses it: {said}") from error
            if error.status == UNAUTHORIZED:
                await self.close()  # the next call reads the credentials anew
            raise TransientError(f"the cluster refuses {method}: {said}") from error
        except (ClientError, OSError) as error:
            raise TransientError(f"the cluster does not answer {method}: {error!r}") from error

    async def _connected(self) -> Any:
        async with self._connecting:
            return await self._connect()

    async def _connect(self) -> Any:
        if self._client is None:
            from kubernetes_asyncio.client import ApiClient, Configuration
            from kubernetes_asyncio.config import ConfigException, load_incluster_config, load_kube_config

            configuration = Configuration()
            try:
                if file := os.environ.get("KUBECONFIG"):
                    await load_kube_config(config_file=file, client_configuration=configuration)
                else:
                    load_incluster_config(client_configuration=configuration)
            except ConfigException as error:
                raise TransientError(f"no cluster is known here: {error}; set KUBECONFIG") from error
            self._client = ApiClient(configuration)
        return self._client


def _state(job: Any) -> JobState:
    conditions = {one.type: one for one in job.status.conditions or () if one.status == "True"}
    failed = conditions.get("Failed")
    return JobState(
        paused=PAUSED in (job.metadata.annotations or {}),
        begun=bool(job.status.ready),
        failure=f"{failed.reason}: {failed.message}" if failed else None,
        complete="Complete" in conditions,
    )


def _own_namespace() -> str:
    try:
        return NAMESPACE_FILE.read_text().strip()
    except OSError:
        return "default"
