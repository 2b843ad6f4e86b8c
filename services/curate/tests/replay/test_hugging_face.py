"""General data out of Hugging Face datasets, read by ``datasets`` from folders: no hub is asked."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.dataset_spec import ReplaySpec
from tunewheel_curate.builds.one_build import run_build
from tunewheel_curate.builds.order import BuildOrder
from tunewheel_curate.records.table import RecordTable, ends_of
from tunewheel_curate.replay.sources import pool_of, read_replay

EVERYWHERE = AllowedSources(folders=("/",))
read = partial(read_replay, allowed=EVERYWHERE)

README = """---
configs:
- config_name: default
  data_files:
  - {split: train, path: data/train-*.parquet}
  - {split: validation, path: data/validation.parquet}
---
"""


def chats(first: int, count: int) -> list[dict[str, Any]]:
    """Conversations of two turns, with a system prompt in every other one; a third column says nothing."""
    return [
        {
            "messages": [
                *([{"role": "system", "content": "Be kind."}] if n % 2 else []),
                {"role": "user", "content": " ".join(f"g{n}x{w}" for w in range(8))},
                {"role": "assistant", "content": f"Answer {n}."},
            ],
            "id": n,
        }
        for n in range(first, first + count)
    ]


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """A dataset as the hub lays it out: a card that names the splits, and Parquet files in two parts."""
    folder = tmp_path / "instructions"
    (folder / "data").mkdir(parents=True)
    (folder / "README.md").write_text(README)
    for number in range(2):
        pl.DataFrame(chats(20 * number, 20)).write_parquet(folder / "data" / f"train-{number}.parquet")
    pl.DataFrame(chats(100, 5)).write_parquet(folder / "data" / "validation.parquet")
    return folder


def test_a_split_is_read_whole_and_the_same_as_the_same_rows_in_lines(dataset: Path, tmp_path: Path) -> None:
    pool = read(ReplaySpec(source=str(dataset)))
    assert pool == pool_of(chats(0, 40))
    assert len(pool.conversations) == 40
    assert read(ReplaySpec(source=str(dataset), split="validation")) == pool_of(chats(100, 5))
    assert read(ReplaySpec(source=str(dataset), split="train[:10]")) == pool_of(chats(0, 10))
    lines = tmp_path / "same.jsonl"
    lines.write_text("\n".join(json.dumps(row) for row in reversed(chats(0, 40))))
    assert read(ReplaySpec(source=str(lines))).sha256 == pool.sha256


def test_a_version_is_pinned_by_the_hash_of_its_conversations(dataset: Path) -> None:
    sha256 = read(ReplaySpec(source=str(dataset))).sha256
    pinned = ReplaySpec(source=str(dataset), sha256=sha256)
    assert read(pinned).sha256 == sha256
    pl.DataFrame(chats(200, 20)).write_parquet(dataset / "data" / "train-1.parquet")
    with pytest.raises(InvalidSpec, match=r"dataset\.replay\.sha256.*bring back the old content"):
        read(pinned)
    assert read(ReplaySpec(source=str(dataset))) == pool_of([*chats(0, 20), *chats(200, 20)])


def broken(folder: Path, name: str, data: bytes) -> None:
    folder.mkdir()
    (folder / name).write_bytes(data)


@pytest.mark.parametrize(
    ("name", "data", "split", "told"),
    [
        ("notes.txt", b"Only text.", "train", "holds no conversation"),
        ("photo.png", b"not even a picture", "train", "holds no conversation"),
        ("left.tmp", b"", "train", "is no data set that can be read"),
        ("train.jsonl", b'{"prompt": "a", "response": "b"}\nnot json\n', "train", "in row 1"),
        ("train.parquet", b"PAR1 nonsense", "train", "magic bytes"),
        ("train.jsonl", b'{"prompt": "a", "response": "b"}\n', "test", 'Unknown split "test"'),
        ("train.jsonl", b'{"a": "b"}\n', "train", "holds no conversation"),
    ],
)
def test_what_is_no_dataset_is_refused_with_the_reason(
    tmp_path: Path, name: str, data: bytes, split: str, told: str
) -> None:
    broken(tmp_path / "broken", name, data)
    with pytest.raises(InvalidSpec, match=r"dataset\.replay\.source") as caught:
        read(ReplaySpec(source=str(tmp_path / "broken"), split=split))
    assert told in str(caught.value)


def test_a_folder_that_is_not_there_is_not_waited_for(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="is no data set that can be read"):
        read(ReplaySpec(source=str(tmp_path / "nowhere")))


def test_the_revision_is_asked_of_the_hub(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder has no revisions, so the library's own answer to them is not to be had here."""
    import datasets

    asked: list[str | None] = []
    load = datasets.load_dataset_builder

    def noted(source: str, *, revision: str | None, **options: Any) -> Any:
        asked.append(revision)
        return load(source, **options)

    monkeypatch.setattr(datasets, "load_dataset_builder", noted)
    read(ReplaySpec(source=str(dataset)))
    read(ReplaySpec(source=str(dataset), revision="bdd27f4"))
    assert asked == [None, "bdd27f4"]


@pytest.mark.usefixtures("one_page")
def test_a_version_replays_a_dataset_and_is_built_again_without_it(
    dataset: Path, tmp_path: Path, records, varied_rows, spec
) -> None:
    rows = records(*varied_rows(30))
    RecordTable(str(tmp_path / "records")).append(rows)
    order = BuildOrder(
        table_url=str(tmp_path / "records"),
        spec=spec(replay={"source": str(dataset), "share": 0.2, "license": "CC-BY-4.0"}),
        records_upto=ends_of(rows),
        folder=str(tmp_path / "first"),
        allowed=EVERYWHERE,
    )
    Path(order.folder).mkdir()
    made = run_build(order).manifest
    assert made is not None
    train = pl.read_parquet(tmp_path / "first" / "train.parquet")
    replayed = train.filter(pl.col("format") == "replay")
    assert replayed.height == made.counts.replay >= 5
    assert {turns[-1]["content"] for turns in replayed["messages"].to_list()} <= {
        f"Answer {n}." for n in range(40)
    }
    assert made.replay is not None
    assert made.replay.sha256 == pool_of(chats(0, 40)).sha256
    for file in (dataset / "data").iterdir():
        file.unlink()
    again = order.model_copy(update={"folder": str(tmp_path / "again")})
    Path(again.folder).mkdir()
    assert run_build(again).manifest == made
    assert (tmp_path / "again" / "train.parquet").read_bytes() == (
        tmp_path / "first" / "train.parquet"
    ).read_bytes()


def test_a_folder_is_read_only_where_it_is_allowed(dataset: Path) -> None:
    with pytest.raises(InvalidSpec, match="TUNEWHEEL_SPEC_FOLDERS"):
        read_replay(ReplaySpec(source=str(dataset)), AllowedSources())


@pytest.mark.parametrize("named", ["{outside}/*.jsonl", "../outside/*.jsonl"])
def test_a_card_leads_to_no_file_beside_its_data_set(tmp_path: Path, named: str) -> None:
    folder, outside = tmp_path / "set", tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jsonl").write_text('{"prompt": "Which key?", "response": "This one."}\n')
    folder.mkdir()
    config = f'- config_name: default\n  data_files: "{named.format(outside=outside)}"\n'
    (folder / "README.md").write_text(f"---\nconfigs:\n{config}---\n")
    spec = ReplaySpec(source=str(folder))
    assert len(read(spec).conversations) == 1, "the library would follow it"
    with pytest.raises(InvalidSpec, match="TUNEWHEEL_SPEC_FOLDERS"):
        read_replay(spec, AllowedSources(folders=(str(folder),)))


def test_a_reader_of_the_library_is_no_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret.json").write_text('{"prompt": "Which key?", "response": "This one."}\n')
    with pytest.raises(InvalidSpec, match="json is no data set"):
        read(ReplaySpec(source="json"))
