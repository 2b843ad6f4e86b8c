from __future__ import annotations

import gzip
import json
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from tunewheel_contracts.errors import InvalidSpec, TransientError
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.dataset import ChatExample, ExampleFormat
from tunewheel_contracts.formats.dataset_spec import BUNDLED, ContaminationPolicy, ReplaySpec
from tunewheel_curate.evaluation.benchmarks import BenchmarkTexts, regression_benchmark
from tunewheel_curate.evaluation.contamination import Search
from tunewheel_curate.holdout.memory import LEAK_SIMILARITY, ComparedRecords, HoldoutMemory
from tunewheel_curate.inputs import Inputs
from tunewheel_curate.pipeline import build
from tunewheel_curate.replay.mixing import draft_replay
from tunewheel_curate.replay.sources import conversation, pool_of, read_replay
from tunewheel_curate.versions.suite import observed
from tunewheel_curate.versions.versioning import with_origin, write_version

SHARE = {"source": "general.jsonl", "share": 0.2}


def general(count: int) -> list[dict[str, str]]:
    return [
        {"instruction": " ".join(f"g{n}x{w}" for w in range(8)), "response": f"Answer {n}."}
        for n in range(count)
    ]


@pytest.fixture
def made(records, spec, varied_rows):
    def make(
        rows: list[dict[str, str]],
        *,
        count: int = 40,
        memory: HoldoutMemory | None = None,
        benchmarks: Sequence[BenchmarkTexts] = (),
        **dataset,
    ):
        inputs = Inputs(memory=memory or HoldoutMemory(), replay=pool_of(rows), benchmarks=tuple(benchmarks))
        known = spec(replay=SHARE, **dataset)
        return build(records(*varied_rows(count)), known, inputs)

    return make


def replayed(frame: pl.DataFrame) -> list[ChatExample]:
    rows = frame.filter(pl.col("format") == "replay").to_dicts()
    return [ChatExample.model_validate(row) for row in rows]


def test_the_share_is_mixed_into_training_and_never_held_out(made) -> None:
    build_ = made(general(200))
    mixed = replayed(build_.split.train)
    own = build_.counts.train - len(mixed)
    assert len(mixed) == int(own * 0.25) == build_.counts.replay
    assert build_.counts.examples == own + build_.counts.holdout == 40
    assert not replayed(build_.split.holdout)
    assert all(e.format is ExampleFormat.REPLAY and e.label is None and not e.record_ids for e in mixed)
    assert build_.replayed.use.share == pytest.approx(0.2, abs=0.02)
    assert build_.funnel[-1].stage == "replay"
    assert build_.funnel[-1].reasons == {"not_needed": 200 - len(mixed)}


def test_the_same_conversations_are_taken_in_any_order_and_a_larger_version_takes_more(made) -> None:
    rows = general(200)
    small, again, large = made(rows), made([*rows[::-1], *rows[:50]]), made(rows, count=120)
    ids = [{e.example_id for e in replayed(b.split.train)} for b in (small, again, large)]
    assert ids[0] == ids[1]
    assert ids[0] < ids[2]
    assert small.replayed.use.sha256 == again.replayed.use.sha256


def test_nothing_that_the_project_knows_is_replayed(made, varied_rows) -> None:
    ours = [{"instruction": row["input"], "response": "x"} for row in varied_rows(40)]
    near = [{"instruction": row["input"] + " please", "response": "x"} for row in varied_rows(40)]
    build_ = made([*ours, *near])
    assert build_.counts.replay == 0
    reasons = build_.replayed.use.reasons
    leaks = "contaminated: held-out questions"
    assert set(reasons) == {"asked_by_project", "held_out", "like_project", leaks}
    assert reasons["asked_by_project"] + reasons["held_out"] == 40
    assert sum(reasons.values()) == 80


def test_what_an_earlier_version_held_out_is_not_replayed(made, records) -> None:
    secret = {"instruction": "once held out and gone since", "response": "x"}
    frame = records({}).with_columns(pl.lit("once held out and gone since").alias("key"))
    memory = HoldoutMemory().extended(ComparedRecords(frame).marks([["rec-0000"]]))
    assert made([secret]).counts.replay == 1
    refused = made([secret], memory=memory)
    assert refused.counts.replay == 0
    assert refused.replayed.use.reasons == {"held_out": 1}


@pytest.mark.parametrize("action", ["drop", "report"])
def test_what_gives_a_benchmark_away_is_not_replayed_and_counted(made, action: str) -> None:
    regression = regression_benchmark(None)
    mine = BenchmarkTexts("mine", ("who keeps the keys of the third shed by the old canal",))
    away = [
        {"instruction": regression.texts[0].upper(), "response": "x"},
        {"instruction": f"One more thing: {regression.texts[1]}", "response": "x"},
        {"instruction": mine.texts[0].replace("old", "new"), "response": "x"},
    ]
    earlier = [{"role": "user", "content": mine.texts[0]}, {"role": "assistant", "content": "Ann."}]
    turns = [{"role": "user", "content": "And who has them today?"}, {"role": "assistant", "content": "Ben."}]
    rows = [*general(2), *away, {"messages": [*earlier, *turns]}]
    build_ = made(rows, benchmarks=[regression, mine], contamination={"action": action})
    assert build_.replayed.use.reasons == {"contaminated: mine": 2, "contaminated: regression-set": 2}
    assert build_.funnel[-1].reasons == build_.replayed.use.reasons
    assert build_.counts.replay == 2
    assert made(rows).counts.replay == 6, "there is room for all of them"


def test_long_and_repeated_conversations_are_left_out(made) -> None:
    long = {"instruction": "tell me all of it", "response": "x" * 9000}
    twin = general(1)[0] | {"response": "Another answer."}
    build_ = made([long, *general(1), twin])
    assert build_.counts.replay == 1
    assert build_.replayed.use.reasons == {"like_another": 1, "too_long": 1}


def test_manifest_card_and_suite_know_of_it(made, spec, tmp_path: Path) -> None:
    build_ = made(general(200))
    written = spec(replay=SHARE)
    manifest = write_version(build_, written, tmp_path)
    assert manifest.replay == build_.replayed.use
    assert manifest.counts.replay == manifest.replay.sampled > 0
    assert "general.jsonl" in (tmp_path / "card.md").read_text()
    seen = observed(
        *(with_origin(side, build_.lineage) for side in (build_.split.train, build_.split.holdout))
    )
    assert "replay" not in seen["format"].to_list()


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]},
        {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
        {"prompt": "Hi", "completion": "Hello"},
        {"question": "Hi", "answer": "Hello"},
        {
            "prompt": "Below is an instruction.\n\n### Instruction:\nHi\n\n### Response:\n",
            "response": "Hello",
        },
    ],
)
def test_the_usual_forms_are_known(row: dict[str, object]) -> None:
    assert conversation(row) == [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello"},
    ]


def test_a_context_belongs_to_the_question() -> None:
    turns = conversation({"instruction": "Sum up.", "context": "A text.", "response": "Text."})
    assert turns is not None
    assert turns[0]["content"] == "Sum up.\n\nA text."


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"prompt": "Hi"},
        {"prompt": "Hi", "response": "  "},
        {"messages": [{"role": "user", "content": "Hi"}]},
        {"messages": [{"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Hi"}]},
        {"messages": [{"role": "tool", "content": "Hi"}]},
        {"messages": ["Hi"]},
        {"messages": [{"role": "user", "content": None}, {"role": "assistant", "content": "Hi"}]},
    ],
)
def test_what_is_no_conversation_is_left_out(row: dict[str, object]) -> None:
    assert conversation(row) is None


@given(st.dictionaries(st.sampled_from(["messages", "conversations", "prompt", "response", "input"]),
                       st.recursive(st.none() | st.text(max_size=5) | st.integers(),
                                    lambda inner: st.lists(inner, max_size=3)
                                    | st.dictionaries(st.sampled_from(["role", "content", "from"]), inner),
                                    max_leaves=6)))  # fmt: skip
def test_any_row_is_read_or_left_out(row: dict[str, object]) -> None:
    turns = conversation(row)
    assert turns is None or turns[-1]["role"] == "assistant"


read = partial(read_replay, allowed=AllowedSources(hosts="127.0.0.1", folders=("/",)))


def write(path: Path, data: bytes) -> ReplaySpec:
    path.write_bytes(data)
    return ReplaySpec(source=str(path))


def test_the_bundled_conversations_may_be_read_everywhere_and_none_is_of_the_general_set() -> None:
    pool = read_replay(ReplaySpec(source=BUNDLED), AllowedSources(hosts="", folders=()))
    search = Search((regression_benchmark(None),), ContaminationPolicy().words, LEAK_SIMILARITY)
    assert len(pool.conversations) >= 100
    assert search.reasons(draft_replay(pool).rows) == {}
    with pytest.raises(ValidationError, match="pin it by sha256"):
        ReplaySpec(source=BUNDLED, revision="main")
    with pytest.raises(InvalidSpec, match=r"dataset\.replay\.sha256"):
        read(ReplaySpec(source=BUNDLED, sha256="0" * 64))


def test_files_are_read_plain_and_packed(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(row) for row in general(3)).encode()
    plain = read(write(tmp_path / "a.jsonl", lines))
    packed = read(write(tmp_path / "b.jsonl.gz", gzip.compress(lines)))
    url = read(ReplaySpec(source=(tmp_path / "a.jsonl").as_uri()))
    listed = read(write(tmp_path / "c.json", json.dumps(general(3), indent=1).encode()))
    assert plain == packed == url == listed
    assert len(plain.conversations) == 3
    pinned = ReplaySpec(source=str(tmp_path / "a.jsonl"), sha256=plain.sha256)
    assert read(pinned) == plain


@pytest.mark.parametrize(
    ("name", "data", "told"),
    [
        ("a.jsonl", b"{}\nnot json\n", "line 2 is not JSON"),
        ("a.jsonl", b'{"a": 1}\n', "holds no conversation"),
        ("a.jsonl", b"\xff\xfe{", "line 1 is not JSON"),
        ("a.jsonl.gz", b"\x1f\x8bgarbage", "no whole gzip"),
        ("a.jsonl.gz", gzip.compress(b"x" * 99, mtime=0)[:12] + b"\xff" * 30, "no whole gzip"),
        ("a.jsonl", b"\n" * 200_001, "has over 200,000 lines"),
        ("a.jsonl", b'{"a":' * 100_000, "line 1 is not JSON"),
        ("a.json", b'[{"a": 1}', "is no whole list in JSON"),
        ("a.json", b"[" * 100_000, "is no whole list in JSON"),
        ("a.json", b"[" + b"{}," * 200_000 + b"{}]", "has over 200,000 rows"),
    ],
)
def test_a_bad_source_is_named_with_the_fix(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    with pytest.raises(InvalidSpec, match=r"dataset\.replay\.source") as caught:
        read(write(tmp_path / name, data))
    assert told in str(caught.value)


def test_what_unpacks_to_too_much_is_not_unpacked_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tunewheel_curate.replay.sources.MAX_BYTES", 4 << 20)
    spec = write(tmp_path / "a.jsonl.gz", gzip.compress(bytes(256 << 20), 1))
    tracemalloc.start()
    try:
        with pytest.raises(InvalidSpec, match="is over 4 MiB unpacked; take a part of it"):
            read(spec)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 24 << 20


def test_a_source_that_changed_or_is_gone_is_refused(tmp_path: Path) -> None:
    spec = write(tmp_path / "a.jsonl", json.dumps(general(1)[0]).encode())
    with pytest.raises(InvalidSpec, match=r"dataset\.replay\.sha256.*accept the new"):
        read(spec.model_copy(update={"sha256": "0" * 64}))
    with pytest.raises(InvalidSpec, match="cannot be read where curate runs"):
        read(ReplaySpec(source=str(tmp_path / "missing.jsonl")))


@pytest.mark.parametrize("source", ["s3://bucket/a.jsonl", "hf://datasets/a", "://a.jsonl"])
def test_a_scheme_that_nothing_reads_is_refused(source: str) -> None:
    with pytest.raises(InvalidSpec, match=r"dataset\.replay\.source.*give a path, or a file://"):
        read(ReplaySpec(source=source))


def test_a_server_that_does_not_answer_is_waited_for() -> None:
    with pytest.raises(TransientError, match="cannot be read"):
        read(ReplaySpec(source="http://127.0.0.1:9/a.jsonl"))


def test_real_instruction_data_is_read(shared_data: Path) -> None:
    pool = read(ReplaySpec(source=str(shared_data / "dolly_hh_1k/dolly_hhrlhf_train_small.jsonl")))
    assert len(pool.conversations) >= 900
    assert not [turns for turns in pool.conversations if "### Instruction" in turns[0]["content"]]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """A server on this machine: ``/a.jsonl`` is data, anything else is sent on to the path after ``/to/``."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/a.jsonl":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(general(1)[0]).encode())
                return
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_a_server_is_asked_only_where_it_is_allowed_and_leads_nowhere_else(server: str) -> None:
    def source(path: str) -> ReplaySpec:
        return ReplaySpec(source=f"{server}{path}")

    assert len(read(source("/a.jsonl")).conversations) == 1
    assert len(read(source(f"/to/{server}/a.jsonl")).conversations) == 1
    with pytest.raises(InvalidSpec, match=r"127\.0\.0\.1 is not a host that specs may name"):
        read_replay(source("/a.jsonl"), AllowedSources())
    elsewhere = server.replace("127.0.0.1", "localhost")
    with pytest.raises(InvalidSpec, match="localhost is not a host that specs may name"):
        read(source(f"/to/{elsewhere}/a.jsonl"))


def test_a_file_is_read_only_where_it_is_allowed_there_or_not(
    tmp_path: Path,
) -> None:
    there = write(tmp_path / "a.jsonl", json.dumps(general(1)[0]).encode())
    for spec in (there, ReplaySpec(source=str(tmp_path / "missing.jsonl"))):
        with pytest.raises(InvalidSpec, match="TUNEWHEEL_SPEC_FOLDERS"):
            read_replay(spec, AllowedSources())
    assert len(read_replay(there, AllowedSources(folders=(str(tmp_path),))).conversations) == 1
