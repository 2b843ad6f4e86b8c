from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tunewheel_runtime.store import CorruptArtifact, ObjectStore
from tunewheel_serve_gateway.adapter_files import AdapterFiles, InvalidAdapter, check_safetensors
from tunewheel_testing.adapters import put_adapter, safetensors


async def test_an_adapter_is_brought_whole(tmp_path: Path):
    store = ObjectStore("memory://")
    adapter = await put_adapter(store, "m-1")
    files = AdapterFiles(store, tmp_path)
    folder = await files.materialise(adapter)
    assert folder == tmp_path / "m-1"
    assert await files.materialise(adapter) == folder


async def test_a_spoilt_copy_is_replaced(tmp_path: Path):
    store = ObjectStore("memory://")
    files = AdapterFiles(store, tmp_path)
    adapter = await put_adapter(store, "m-1")
    folder = await files.materialise(adapter)
    (folder / "adapter_model.safetensors").write_bytes(b"spoilt")
    await files.materialise(adapter)
    assert (folder / "adapter_model.safetensors").read_bytes() == safetensors()


async def test_only_what_was_laid_out_and_not_asked_for_lately_is_removed(tmp_path: Path):
    store = ObjectStore("memory://")
    files = AdapterFiles(store, tmp_path)
    assert await files.remove_except(()) == []  # nothing there yet
    for name in ("old", "kept", "recent", "again"):
        await files.materialise(await put_adapter(store, name))
    for name in ("old", "kept", "again"):
        asked_for_long_ago(tmp_path, name)
    await files.materialise(await put_adapter(store, "again"))
    (tmp_path / "somebody-elses").mkdir()
    assert await files.remove_except({"kept"}) == ["old"]
    assert {path.name for path in tmp_path.iterdir()} == {
        ".laid",
        "kept",
        "recent",
        "again",
        "somebody-elses",
    }
    assert await files.remove_except(()) == ["kept"]
    folder = await files.materialise(await put_adapter(store, "old"))
    assert (folder / "adapter_model.safetensors").is_file()


@pytest.mark.parametrize("when", ["it looks at the mark", "it deletes the folder", "it deletes the mark"])
async def test_gateways_that_share_the_folder_remove_the_same_adapters_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
):
    store, rmtree = ObjectStore("memory://"), shutil.rmtree
    files, other = AdapterFiles(store, tmp_path), AdapterFiles(store, tmp_path)
    for name in ("a", "b", "c"):
        await files.materialise(await put_adapter(store, name))
        asked_for_long_ago(tmp_path, name)

    class Kept(set[str]):
        """The other gateway removes what it finds before it is asked whether ``b`` is kept."""

        def __contains__(self, name: object) -> bool:
            if name == "b" and when == "it looks at the mark":
                other._remove_except(())
            return super().__contains__(name)

    def remove(folder: Path) -> None:
        monkeypatch.setattr(shutil, "rmtree", rmtree)
        if when == "it deletes the folder":
            other._remove_except(())
        rmtree(folder)
        if when == "it deletes the mark":
            other._remove_except(())

    if when != "it looks at the mark":
        monkeypatch.setattr(shutil, "rmtree", remove)
    assert set(await files.remove_except(Kept())) <= {"a", "b", "c"}
    assert [path.name for path in tmp_path.rglob("*")] == [".laid"]


def asked_for_long_ago(root: Path, name: str) -> None:
    os.utime(root / ".laid" / name, (0, 0))


async def test_content_that_does_not_hash_is_refused(tmp_path: Path):
    store = ObjectStore("memory://")
    adapter = await put_adapter(store, "m-1")
    wrong = adapter.files[1].model_copy(update={"sha256": "f" * 64})
    forged = adapter.model_copy(update={"files": (adapter.files[0], wrong)})
    with pytest.raises(CorruptArtifact):
        await AdapterFiles(store, tmp_path).materialise(forged)
    assert not (tmp_path / "m-1").exists()


async def test_files_outside_the_adapters_folder_are_refused(tmp_path: Path):
    store = ObjectStore("memory://")
    adapter = await put_adapter(store, "m-1")
    with pytest.raises(CorruptArtifact, match="below"):
        await AdapterFiles(store, tmp_path).materialise(adapter.model_copy(update={"path": "adapters/m-2"}))


async def test_weights_that_are_not_safetensors_are_refused(tmp_path: Path):
    store = ObjectStore("memory://")
    adapter = await put_adapter(store, "m-1", weights=b"PK\x03\x04 a pickle in a zip")
    with pytest.raises(InvalidAdapter, match="is not safetensors"):
        await AdapterFiles(store, tmp_path).materialise(adapter)


@pytest.mark.parametrize(
    "content",
    [b"", b"\x01", b"\0" * 8, b"\xff" * 64, b"\x04" + b"\0" * 7 + b"[1]x", b"\x03" + b"\0" * 7 + b"[1]"],
)
def test_no_broken_header_passes(tmp_path: Path, content: bytes):
    file = tmp_path / "m.safetensors"
    file.write_bytes(content)
    with pytest.raises(InvalidAdapter):
        check_safetensors(file)


async def test_a_pickle_is_refused_before_it_is_fetched(tmp_path: Path):
    store = ObjectStore("memory://")
    adapter = await put_adapter(store, "m-1")
    pickle = await store.put("adapters/m-1/adapter_model.bin", b"x")
    with pytest.raises(InvalidAdapter, match="pickled files"):
        await AdapterFiles(store, tmp_path).materialise(
            adapter.model_copy(update={"files": (*adapter.files, pickle)})
        )


async def test_an_adapter_without_its_config_is_refused(tmp_path: Path):
    store = ObjectStore("memory://")
    adapter = await put_adapter(store, "m-1")
    with pytest.raises(InvalidAdapter, match=r"lacks adapter_config\.json"):
        await AdapterFiles(store, tmp_path).materialise(
            adapter.model_copy(update={"files": adapter.files[1:]})
        )


async def test_a_whole_model_is_brought_with_all_its_weights(tmp_path: Path):
    store = ObjectStore("memory://")
    model = await put_adapter(store, "m-1", method="full")
    more = await store.put("adapters/m-1/model-2.safetensors", b"not safetensors at all")
    folder = await AdapterFiles(store, tmp_path).materialise(model)
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    with pytest.raises(InvalidAdapter, match=r"model-2\.safetensors is not safetensors"):
        await AdapterFiles(store, tmp_path / "other").materialise(
            model.model_copy(update={"files": (*model.files, more)})
        )


async def test_a_whole_model_without_weights_is_refused(tmp_path: Path):
    store = ObjectStore("memory://")
    model = await put_adapter(store, "m-1", method="full")
    with pytest.raises(InvalidAdapter, match=r"lacks \*\.safetensors"):
        await AdapterFiles(store, tmp_path).materialise(model.model_copy(update={"files": model.files[:1]}))
