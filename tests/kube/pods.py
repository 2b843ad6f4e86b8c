"""What a pod of the API server asks for: its environment and its files, as a kubelet finds them."""

from __future__ import annotations

import base64
import re
from pathlib import Path
from typing import Any

from .control_plane import ControlPlane

Pod = dict[str, Any]


def path_of(pod: Pod) -> str:
    return f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"


def container_of(pod: Pod) -> dict[str, Any]:
    (container,) = pod["spec"]["containers"]
    return container


class Material:
    """Looks up what the pods of a namespace refer to. A ConfigMap, Secret, key or claim that is not there is
    an AssertionError or a KeyError: no container of such a pod would ever start."""

    def __init__(self, plane: ControlPlane, namespace: str) -> None:
        self._plane = plane
        self._core = f"/api/v1/namespaces/{namespace}"
        self.namespace = namespace

    def environment(self, pod: Pod) -> dict[str, str]:
        container, found = container_of(pod), dict[str, str]()
        for source in container.get("envFrom", ()):
            ((kind, reference),) = source.items()
            data = self._data("configmaps" if kind == "configMapRef" else "secrets", reference["name"])
            found |= {name: content.decode() for name, content in data.items()}
        for one in container.get("env", ()):
            found[one["name"]] = one["value"] if "value" in one else self._from(pod, one["valueFrom"])
        return found

    def files(self, pod: Pod, volume: dict[str, Any]) -> dict[str, bytes] | None:
        """Return the files of a volume by their paths; None: of a volume that pods write to."""
        if "persistentVolumeClaim" in volume:
            claim = self._plane.get(
                f"{self._core}/persistentvolumeclaims/{volume['persistentVolumeClaim']['claimName']}"
            )
            assert claim["status"]["phase"] == "Bound", claim
            return None
        if "emptyDir" in volume:
            return None
        return {
            path: content
            for source in volume.get("projected", {"sources": [volume]})["sources"]
            for path, content in self._projected(pod, source).items()
        }

    def _projected(self, pod: Pod, source: dict[str, Any]) -> dict[str, bytes]:
        if wanted := source.get("serviceAccountToken"):
            return {wanted["path"]: self._token(pod, wanted)}
        if fields := source.get("downwardAPI"):
            assert [one["fieldRef"]["fieldPath"] for one in fields["items"]] == ["metadata.namespace"]
            return {fields["items"][0]["path"]: self.namespace.encode()}
        if kept := source.get("secret"):
            data = self._data("secrets", kept.get("secretName") or kept["name"])
        else:
            kept = source["configMap"]
            data = self._data("configmaps", kept["name"])
        items = kept.get("items") or [{"key": key, "path": key} for key in data]
        return {item["path"]: data[item["key"]] for item in items}

    def _token(self, pod: Pod, wanted: dict[str, Any]) -> bytes:
        """Return a token that the API server gives to this very pod."""
        of = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod["metadata"]["name"],
            "uid": pod["metadata"]["uid"],
        }
        spec = {"expirationSeconds": wanted["expirationSeconds"], "boundObjectRef": of}
        if audience := wanted.get("audience"):
            spec["audiences"] = [audience]
        account = f"{self._core}/serviceaccounts/{pod['spec']['serviceAccountName']}/token"
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        return self._plane.post(account, request)["status"]["token"].encode()

    def _from(self, pod: Pod, source: dict[str, Any]) -> str:
        if field := source.get("fieldRef"):
            assert field["fieldPath"] == "metadata.name"
            return pod["metadata"]["name"]
        reference = source["secretKeyRef"]
        return self._data("secrets", reference["name"])[reference["key"]].decode()

    def _data(self, kind: str, name: str) -> dict[str, bytes]:
        found = self._plane.get(f"{self._core}/{kind}/{name}").get("data", {})
        decode = base64.b64decode if kind == "secrets" else str.encode
        return {key: decode(text) for key, text in found.items()}


def written_below(folders: dict[str, Path], text: str) -> str:
    """Return ``text`` with the container's paths replaced by the folders that stand for their mounts."""
    paths = sorted(folders, key=len, reverse=True)
    pattern = re.compile(rf"(?<![\w.-])({'|'.join(map(re.escape, paths))})(?![\w.-])")
    return pattern.sub(lambda found: str(folders[found[1]]), text)
