"""Settings, options, and what is imported before the model is wanted."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_engine.main import read_settings, serve
from tunewheel_engine.settings import Settings
from tunewheel_runtime.base_mirror import mirror_base
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.tiny import write_tiny_model


def test_options_win_over_the_environment(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TUNEWHEEL_HTTP_PORT", "1234")
    monkeypatch.setenv("TUNEWHEEL_MAX_BATCH", "5")
    monkeypatch.setenv("TUNEWHEEL_ADAPTER_ROOTS", '["/srv/adapters"]')
    settings = read_settings(["--port", "99", "--threads", "3"])
    assert (settings.http_port, settings.max_batch, settings.threads) == (99, 5, 3)
    assert settings.allowed_roots == (Path("/srv/adapters"),)
    given = read_settings(["--adapter-root", str(tmp_path / "a"), "--adapter-root", str(tmp_path / "b")])
    assert given.allowed_roots == (tmp_path / "a", tmp_path / "b")


def test_adapters_lie_in_the_cache_unless_told(tmp_path: Path) -> None:
    assert Settings(cache_dir=tmp_path).allowed_roots == (tmp_path.resolve() / "adapters",)


@pytest.mark.usefixtures("default_logs")
def test_a_base_model_that_is_not_there_is_named(tmp_path: Path, capsys) -> None:
    settings = Settings(base_model=str(tmp_path / "none"), cache_dir=tmp_path)
    assert serve(settings) == 2
    logged = capsys.readouterr().err
    assert '"field": "base_model"' in logged
    assert "no directory" in logged


@pytest.mark.usefixtures("default_logs")
def test_the_engine_does_not_start_with_another_revision_than_the_configured_one(
    tmp_path: Path, capsys
) -> None:
    path = write_tiny_model(tmp_path / "base")
    settings = Settings(base_model=str(path), base_revision="sha256:0", cache_dir=tmp_path, identity="open")
    assert serve(settings) == 2
    assert "and was sha256:0 in training" in capsys.readouterr().err


@pytest.mark.usefixtures("default_logs")
@pytest.mark.parametrize(
    ("blocked", "said"),
    [("store/bases", "which commit owner/name means is not known"), ("cache/bases", "TUNEWHEEL_CACHE_DIR")],
    ids=["a store that is away", "a disk that holds nothing"],
)
def test_an_engine_that_cannot_take_the_mirrored_base_says_why_it_does_not_start(
    blocked: str, said: str, tmp_path: Path, capsys
) -> None:
    url, base = (tmp_path / "store").as_uri(), BaseModelRef(name="owner/name", revision="a" * 40)
    path = write_tiny_model(tmp_path / "base")
    asyncio.run(mirror_base(ObjectStore(url), base, path, tmp_path / "train", meant=True))
    if (tmp_path / blocked).exists():
        (tmp_path / blocked).rename(tmp_path / "away")
    (tmp_path / blocked).parent.mkdir(exist_ok=True)
    (tmp_path / blocked).write_text("a file in the place of a folder")
    settings = Settings(base_model=base.name, store_url=url, cache_dir=tmp_path / "cache", identity="open")
    assert serve(settings) == 2
    logged = capsys.readouterr().err
    assert "cannot_start" in logged
    assert said in logged


@pytest.mark.usefixtures("default_logs")
@pytest.mark.parametrize("store", ["file", "file/below"])
def test_an_engine_whose_store_is_no_folder_names_the_setting(store: str, tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    url = (tmp_path / store).as_uri()
    assert serve(Settings(store_url=url, cache_dir=tmp_path / "cache", identity="open")) == 2
    logged = capsys.readouterr().err
    assert '"field": "store_url"' in logged
    assert f"the folder {tmp_path / store} cannot be made" in logged


@pytest.mark.usefixtures("default_logs")
def test_the_engine_does_not_start_without_identity_settings(tmp_path: Path, capsys) -> None:
    settings = Settings(base_model=str(tmp_path / "none"), cache_dir=tmp_path, identity="required")
    assert serve(settings) == 2
    assert "TUNEWHEEL_API_KEYS_FILE" in capsys.readouterr().err
    assert serve(settings.model_copy(update={"identity": "open", "http_host": "0.0.0.0"})) == 2
    assert "open to the network" in capsys.readouterr().err
    assert serve(settings.model_copy(update={"identity": "open"})) == 2
    assert '"field": "base_model"' in capsys.readouterr().err, "which is looked for next"


def test_torch_is_not_imported_before_the_model_is_wanted() -> None:
    modules = ", ".join(f"tunewheel_engine.{name}" for name in ("main", "api_openai", "api_tgi", "scheduler"))
    heavy = "{'torch', 'transformers', 'peft'} & set(sys.modules)"
    code = f"import sys, {modules}; sys.exit(bool({heavy}))"
    assert subprocess.run([sys.executable, "-c", code], timeout=120).returncode == 0
