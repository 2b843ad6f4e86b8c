"""``make release REGISTRY=…``: what a registry then has is signed, pulled, started and built again.

With the image of ``ingest`` alone, and a registry on this machine, without TLS and without a login.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from pydantic import SecretStr
from tunewheel_contracts import topics
from tunewheel_local.kafka.ports import free_port
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_testing.endpoint import Endpoint
from tunewheel_testing.feed import EventFeed
from tunewheel_testing.oci_registry import oci_registry

from ..chaos import small_loop
from ..images.containers import (
    BUILDAH,
    VOLUME,
    Image,
    buildah,
    container,
    environment,
    lay_out,
    prune,
    signing,
    skip_without_base,
)
from .bus import PATIENCE_SECONDS, Bus
from .releases import ROOT, UV, VERSION, key_pair, release, run, verification

pytestmark = [pytest.mark.integration, pytest.mark.nightly("matrices")]

KUBE_TOOLS = Path(os.environ.get("KUBE_TOOLS", Path.home() / ".cache" / "tunewheel-kube"))
OCI = "application/vnd.oci.image.manifest.v1+json"
NO_SIGNATURE, NO_MATCHING_SIGNATURE = 10, 12
"""Codes that cosign ends with."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private key, and the public one."""
    return key_pair(tmp_path_factory.mktemp("keys"))


@dataclass(frozen=True)
class Pushed:
    """A signed release, and the registry that it was pushed to."""

    dist: Path
    host: str
    image: Image
    digest: str
    cosign: str

    def manifest(self, reference: str, name: str = "ingest", put: bytes | None = None) -> httpx.Response:
        """Ask for the manifest of an image or the chart; with ``put``, first give its tag another one."""
        address = f"http://{self.host}/v2/wheels/{name}/manifests/{reference}"
        if put is not None:
            httpx.put(
                address, content=put, headers={"content-type": OCI}, timeout=PATIENCE_SECONDS
            ).raise_for_status()
        return httpx.get(address, headers={"accept": OCI}, timeout=PATIENCE_SECONDS).raise_for_status()


@pytest.fixture(scope="module")
def pushed(keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    helm, cosign = (shutil.which(name) or shutil.which(str(KUBE_TOOLS / name)) for name in ("helm", "cosign"))
    if UV is None or helm is None or cosign is None:
        pytest.skip("needs uv, and helm and cosign, which tests/kube/build.sh builds into KUBE_TOOLS")
    skip_without_base()
    folder = tmp_path_factory.mktemp("pushed")
    with oci_registry(folder / "registry") as host:
        told = {
            "PATH": os.pathsep.join((*(str(Path(one).parent) for one in (helm, cosign)), os.environ["PATH"])),
            "REGISTRY": f"{host}/wheels", "IMAGES": "ingest", "PLAIN_HTTP": "1", "KEY": str(keys[0]),
            "STORAGE_DRIVER": BUILDAH[2], "BUILDAH_ISOLATION": "chroot",
        }  # fmt: skip
        image = Image("ingest", f"{host}/wheels/ingest:{VERSION}")
        try:
            dist = release(folder / "dist", **told)
            values = yaml.safe_load((dist / "images.yaml").read_text("utf-8"))["image"]
            digest = values["digests"].pop("ingest")
            assert values == {"repository": f"{host}/wheels", "digests": {}}
            yield Pushed(dist, host, image, digest, cosign)
        finally:
            with contextlib.suppress(AssertionError):
                buildah("rmi", "--force", image.tag)
            prune()


def test_a_push_to_a_registry_names_chart_and_images_by_the_digests_they_have_there(
    pushed: Pushed, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    """``tests/kube`` installs a chart from a registry."""
    dist = pushed.dist
    assert "Verification succeeded" in run(*verification(dist, dist / "release.sig", keys[1]), cwd=tmp_path)
    assert "images.yaml" in (dist / "SHA256SUMS").read_text("utf-8")
    head = (dist / "images.yaml").read_text("utf-8").splitlines()[0]
    address, _, chart = head.removeprefix("# The chart: ").partition("@")
    assert address == f"oci://{pushed.host}/wheels/tunewheel:{VERSION}"
    for name, digest in (("ingest", pushed.digest), ("tunewheel", chart)):
        assert pushed.manifest(VERSION, name).headers["docker-content-digest"] == digest, name


@pytest.fixture
def verify(
    pushed: Pushed, keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., None]:
    """Call it with an image's or the chart's name: cosign verifies it by the page's command, or ends with
    ``code``."""
    page = (ROOT / "docs/releasing.md").read_text("utf-8")
    folder = tmp_path_factory.mktemp("verifier")
    (words,) = (shlex.split(line)[2:-1] for line in page.splitlines() if line.startswith("$ cosign verify "))

    def verify(name: str, *, key: Path = keys[1], code: int = 0) -> None:
        shutil.copy(key, folder / "public.pem")
        run(pushed.cosign, *words, f"{pushed.host}/wheels/{name}", cwd=folder, code=code)

    return verify


def test_cosign_verifies_image_and_chart_by_the_pages_command_and_refuses_another_key(
    pushed: Pushed, verify: Callable[..., None], tmp_path: Path
) -> None:
    _, another = key_pair(tmp_path)
    for name in (f"ingest:{VERSION}", f"ingest@{pushed.digest}", f"tunewheel:{VERSION}"):
        verify(name)
        verify(name, key=another, code=NO_MATCHING_SIGNATURE)


def test_cosign_refuses_another_image_at_the_releases_tag(
    pushed: Pushed, verify: Callable[..., None]
) -> None:
    """Without a signature, and with the signature of the release's image at its place."""
    kept = pushed.manifest(VERSION).content
    changed = json.dumps(json.loads(kept) | {"annotations": {"changed": "yes"}}).encode()
    other = pushed.manifest(VERSION, put=changed).headers["docker-content-digest"]
    try:
        assert other != pushed.digest
        verify(f"ingest:{VERSION}", code=NO_SIGNATURE)
        signature = pushed.manifest(f"{pushed.digest.replace(':', '-')}.sig").content
        pushed.manifest(f"{other.replace(':', '-')}.sig", put=signature)
        verify(f"ingest:{VERSION}", code=NO_MATCHING_SIGNATURE)
        verify(f"ingest@{pushed.digest}")
    finally:
        pushed.manifest(VERSION, put=kept)
    verify(f"ingest:{VERSION}")


def test_an_image_that_a_release_names_by_its_digest_is_pulled_and_takes_tickets(
    pushed: Pushed, kafka: str, project: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Into a store that has nothing of the build, so that all layers come from the registry."""
    store = tmp_path / "storage.conf"
    folders = f'graphroot = "{tmp_path}/images"\nrunroot = "{tmp_path}/run"\n'
    store.write_text(f'[storage]\ndriver = "{BUILDAH[2]}"\n{folders}')
    monkeypatch.setenv("CONTAINERS_STORAGE_CONF", str(store))
    image = Image("ingest", f"{pushed.host}/wheels/ingest@{pushed.digest}")
    image.pull()
    try:
        asyncio.run(_takes_tickets(image, kafka, project, tmp_path))
    finally:
        buildah("rmi", "--force", image.tag)


async def _takes_tickets(ingest: Image, kafka: str, project: str, folder: Path) -> None:
    """Start ``ingest`` and post tickets there, until the log has a record of each."""
    volume, port = folder / "volume", free_port()
    key = SecretStr(lay_out(volume))
    told = environment(kafka, port=port, health_port=free_port()) | signing(volume, ["ingest"])["ingest"]
    told["TUNEWHEEL_API_KEYS_FILE"] = f"{VOLUME}/keys.yaml"
    async with Bus(kafka) as bus:
        await bus.publish(small_loop.spec_event(f"{VOLUME}/model", project=project))
    with container(ingest, volume) as made, made.started(told, folder / "log"):
        async with EventFeed(KafkaSettings(bootstrap_servers=kafka)) as feed:
            door = Endpoint("ingest", f"http://127.0.0.1:{port}", key)
            await small_loop.publish_file(door, project=project)
            await feed.until(
                lambda: (
                    sum(event.project == project for event in feed.by_topic[topics.RECORD_INGESTED.name])
                    == small_loop.COUNT
                ),
                patience=small_loop.PATIENCE_SECONDS,
                what="a record of each ticket",
            )


def test_a_second_build_of_an_image_has_the_digest_that_the_release_names(
    pushed: Pushed, tmp_path: Path
) -> None:
    """Without a step of the first build."""
    again = Image("ingest", f"{pushed.host}/wheels/ingest:again")
    again.build("--no-cache")
    file = tmp_path / "digest"
    buildah("push", "--quiet", "--tls-verify=false", "--digestfile", str(file), again.tag)
    buildah("rmi", "--force", again.tag)
    assert file.read_text("utf-8") == pushed.digest
