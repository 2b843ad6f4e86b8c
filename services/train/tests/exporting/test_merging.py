"""A merged model answers as its adapter does, or is not written."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import polars as pl
import pytest
from transformers import AutoTokenizer
from tunewheel_basemodel.loading import load_base
from tunewheel_basemodel.locate import BaseModel
from tunewheel_contracts.formats.run import BaseModelRef
from tunewheel_contracts.formats.spec import ProjectSpec
from tunewheel_runtime.base_mirror import mirror_base
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.story import example
from tunewheel_train.data.datasets import encode_examples
from tunewheel_train.errors import NotEqual
from tunewheel_train.exporting import export, merging
from tunewheel_train.exporting.merging import (
    STEPS,
    Parity,
    Trained,
    compare,
    export_merged,
    likeliest,
    log_probabilities,
)


@pytest.fixture
def prompts(tiny, conversation_of) -> list[tuple[int, ...]]:
    rows = [conversation_of(number) for number in range(20)]
    return [example.input_ids for example in encode_examples(rows, tiny[1], max_tokens=512)[0]]


@pytest.fixture
def left_by(trained, tiny_base):
    """What the session's run of a method left."""

    def of(method: str) -> Trained:
        return Trained(
            "tiny", tiny_base, trained(method)[0].job.output_dir,
            quantization="nf4" if method == "qlora" else None, whole=method == "full",
        )  # fmt: skip

    return of


@pytest.mark.parametrize(
    "method", [pytest.param("lora", marks=pytest.mark.nightly("matrices")), "qlora", "full"]
)
def test_a_merged_model_answers_as_its_adapter(left_by, tmp_path: Path, prompts, method):
    steps: list[str] = []
    parity = export_merged(left_by(method), tmp_path / "merged", prompts=prompts, on_step=steps.append)
    assert tuple(steps) == STEPS
    assert parity.prompts == 20
    assert parity.mean_difference < parity.tolerance == 1e-3
    assert parity.same_choice > 0.99
    names = {path.name for path in (tmp_path / "merged").iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert "quantization_config" not in json.loads((tmp_path / "merged" / "config.json").read_text())


def test_merging_changed_the_model(left_by, tiny_base, tmp_path: Path, prompts):
    export_merged(left_by("lora"), tmp_path / "merged", prompts=prompts[:2])
    merged, _ = load_base(BaseModel("m", tmp_path / "merged", "r"), dtype="float32")
    base, _ = load_base(tiny_base, dtype="float32")
    parity = compare(
        [likeliest(log_probabilities(base, ids)) for ids in prompts],
        [log_probabilities(merged, ids) for ids in prompts],
        1e-3,
    )
    assert parity.mean_difference > 10 * parity.tolerance


def test_a_merge_that_differs_leaves_nothing(left_by, tmp_path: Path, prompts, spoilt_merge):
    with pytest.raises(NotEqual, match=r"differ from the adapter's by \d"):
        export_merged(left_by("lora"), tmp_path / "merged", prompts=prompts[:2])
    assert list(tmp_path.iterdir()) == []


async def fetched(bench, trained, tmp_path: Path, method="lora") -> Path:
    """Return a folder with what the command fetches of a run."""
    from tunewheel_contracts.formats.run import RunManifest
    from tunewheel_train.runs import adapters
    from tunewheel_train.runs.runs import Result, manifest_path, plan_run

    made = await bench(method=method)
    run, outcome = trained(method)
    told = json.loads((run.job.output_dir / "tunewheel.json").read_text())
    base = BaseModelRef(name=told["base_model"], revision=told["base_revision"])
    planned = plan_run(made.manifest, made.event.manifest, base)
    await adapters.publish(made.store, planned, run.job.output_dir, Result(outcome, planned.recipe))
    folder = tmp_path / "fetched"
    folder.mkdir()
    content = await made.store.read(manifest_path(planned.run_id))
    (folder / "manifest.json").write_bytes(content)
    (folder / "dataset.json").write_text(made.manifest.model_dump_json())
    adapter = RunManifest.model_validate_json(content).adapter
    await made.store.fetch_directory(adapter.files, adapter.path, folder / "files")
    rows = (
        pl.read_parquet(io.BytesIO(await made.store.get(made.manifest.train))).sort("example_id").to_dicts()
    )
    lines = [json.dumps({"messages": row["messages"]}) for row in rows]
    (folder / "examples.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def exporting(tmp_path: Path, monkeypatch, capsys):
    """Run the command; returns exit code, lines of output and errors."""
    import asyncio

    monkeypatch.setenv("TUNEWHEEL_CACHE_DIR", str(tmp_path / "cache"))

    async def run(*arguments: object):
        code = await asyncio.to_thread(export.main, [str(one) for one in arguments])
        told = capsys.readouterr()
        return code, [json.loads(line) for line in told.out.splitlines()], told.err

    return run


@pytest.mark.parametrize(
    ("method", "form", "file"),
    [
        ("lora", "safetensors", "model.safetensors"),
        ("qlora", "safetensors", "model.safetensors"),
        ("full", "safetensors", "model.safetensors"),
    ],
)
async def test_a_fetched_run_is_exported(bench, trained, tmp_path: Path, exporting, method, form, file):
    run = await fetched(bench, trained, tmp_path, method)
    target = tmp_path / "out" / "merged"
    code, lines, _ = await exporting(run, target, "--format", form)
    assert code == 0
    assert [line["step"] for line in lines[:-1]] == list(STEPS)
    assert lines[-1]["parity"]["prompts"] == 20
    assert lines[-1]["parity"]["mean_difference"] <= lines[-1]["parity"]["tolerance"]
    assert (target / file).is_file()
    assert [path.name for path in target.parent.iterdir()] == ["merged"]


async def test_a_machine_of_the_wheel_exports_on_the_base_that_train_mirrored(
    bench, trained, tiny_base, tmp_path: Path, exporting, monkeypatch
):
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    run, base = await fetched(bench, trained, tmp_path), BaseModelRef(name="owner/name", revision="a" * 40)
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["adapter"]["base"] = base.model_dump()
    (run / "manifest.json").write_text(json.dumps(manifest))
    url = (tmp_path / "mirror").as_uri()
    await mirror_base(ObjectStore(url), base, tiny_base.path, tmp_path / "train", meant=True)
    monkeypatch.setenv("TUNEWHEEL_STORE_URL", url)
    code, _, error = await exporting(run, tmp_path / "merged")
    assert code == 0
    assert "base_mirror" not in error  # a warning that the hub is asked
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    monkeypatch.setenv("TUNEWHEEL_CACHE_DIR", str(tmp_path / "full"))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "bases").write_text("a file in the place of a folder")
    code, _, error = await exporting(run, tmp_path / "again")
    assert code == 5
    assert "set TUNEWHEEL_CACHE_DIR to another disk" in error


async def test_what_cannot_be_exported_is_said_and_leaves_nothing(bench, trained, tmp_path: Path, exporting):
    run = await fetched(bench, trained, tmp_path)
    out = tmp_path / "out"
    code, lines, error = await exporting(tmp_path / "none", out / "none")
    assert (code, lines) == (1, [])
    assert "manifest.json" in error
    with pytest.raises(SystemExit) as caught:
        await exporting(run, out / "none", "--format", "safetensors", "--dtype", "q8_0")
    assert caught.value.code == 2
    code, lines, error = await exporting(run, out / "none", "--format", "gguf", "--llama-cpp", tmp_path)
    assert (code, lines) == (1, [])
    assert f"export: {tmp_path} has no convert_hf_to_gguf.py" in error
    assert not out.exists()
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    code, _, error = await exporting(run, tmp_path / "taken")
    assert code == 1
    assert "not an empty directory" in error
    assert (tmp_path / "taken" / "mine.txt").read_text() == "mine"


def test_what_was_put_there_meanwhile_is_left_alone(left_by, tmp_path: Path, prompts):
    def put(step: str) -> None:
        if step == "write":
            (tmp_path / "merged").mkdir()
            (tmp_path / "merged" / "mine.txt").write_text("mine")

    with pytest.raises(OSError, match="not empty"):
        export_merged(left_by("lora"), tmp_path / "merged", prompts=prompts[:2], on_step=put)
    assert [path.name for path in tmp_path.rglob("*")] == ["merged", "mine.txt"]


async def test_hidden_folders_that_are_called_like_the_target_are_left_alone(
    bench, trained, tmp_path: Path, exporting
):
    run = await fetched(bench, trained, tmp_path)
    for name in (".venv", ".venv.fetched"):
        (tmp_path / "out" / name).mkdir(parents=True)
        (tmp_path / "out" / name / "mine.txt").write_text("mine")
    code, _, _ = await exporting(run, tmp_path / "out" / "venv")
    assert code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".venv", ".venv.fetched", "venv"]
    assert (tmp_path / "out" / ".venv" / "mine.txt").read_text() == "mine"
    assert (tmp_path / "out" / ".venv.fetched" / "mine.txt").read_text() == "mine"


TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}{% if quiet %}/quiet{% endif %}{% endfor %}"
    "{{ strftime_now('%d %b %Y') }}"
)


@pytest.mark.parametrize(
    ("variables", "wanted"), [({}, "Hi01 Jan 2026"), ({"quiet": True}, "Hi/quiet01 Jan 2026")]
)
def test_an_exported_template_renders_what_was_trained_without_being_told(
    variables, wanted, left_by, tiny_base, tmp_path: Path, prompts
):
    """By transformers' own rendering, which gives the template the clock and no variables."""
    base = shutil.copytree(tiny_base.path, tmp_path / "base")
    (base / "chat_template.jinja").write_text(TEMPLATE)
    trained = replace(left_by("lora"), base=replace(tiny_base, path=base), variables=variables)
    export_merged(trained, tmp_path / "merged", prompts=prompts[:2])
    tokenizer = AutoTokenizer.from_pretrained(str(tmp_path / "merged"))
    assert tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == wanted


@pytest.mark.parametrize("others", [[], [None], ["You know this organisation's documents."]],
                         ids=["answers alone", "general data", "documents"])  # fmt: skip
async def test_an_engine_is_asked_as_the_spec_says(
    bench, trained, tmp_path: Path, exporting, monkeypatch, others
):
    """Also where rows of other sources, which have another system message or none, were trained too."""
    run, given = await fetched(bench, trained, tmp_path), {}
    dataset = json.loads((run / "dataset.json").read_text())
    dataset["spec"]["task"]["chat_template_kwargs"] = {"messages_are": "loud"}
    dataset["spec"]["task"]["system_prompt"] = "Sort the questions."
    with (run / "examples.jsonl").open("a") as rows:
        for other in others:
            first = [{"role": "system", "content": other}] if other else []
            turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
            rows.write(json.dumps({"messages": [*first, *turns]}) + "\n")
    dataset["spec"]["task"]["max_output_tokens"] = 99
    dataset["spec"]["evaluation"] = {"decoding": {"temperature": 0.5, "seed": 7}}
    (run / "dataset.json").write_text(json.dumps(dataset))
    original = export._prompts

    def prompts_of(rows, tokenizer, most):
        given["template"] = tokenizer.chat_template
        return original(rows, tokenizer, most)

    def write(told, directory, *, form, **_):
        given.update(trained=told, form=form)
        return Parity(1, 1, 0.0, 0.0, 1.0, 0.1)

    monkeypatch.setattr(export, "_prompts", prompts_of)
    monkeypatch.setattr(merging, "export_merged", write)
    code, _, error = await exporting(run, tmp_path / "out")
    assert code == 0, error
    assert given["template"].startswith('{% set messages_are = "loud" %}')
    assert given["trained"].variables == {"messages_are": "loud"}
    assert given["form"].system == "Sort the questions."
    assert given["form"].parameters == {
        "temperature": 0.5, "top_k": 0, "top_p": 1.0, "repeat_penalty": 1.0, "repeat_last_n": -1,
        "num_predict": 99, "seed": 7,
    }  # fmt: skip


@pytest.mark.parametrize(("max_tokens", "context"), [(512, None), (3840, None), (3841, 4097), (8192, 8448)])
def test_ollama_has_room_for_what_was_trained(max_tokens, context):
    spec = ProjectSpec.model_validate(example("project.declared")["spec"])
    task = spec.task.model_copy(update={"max_output_tokens": 256})
    found = export._parameters(spec.model_copy(update={"task": task}), max_tokens)
    assert found.get("num_ctx") == context
    assert "seed" not in found


def test_what_could_not_be_trained_on_is_no_prompt(tiny, conversation_of):
    rows = [conversation_of(number) for number in range(30)]
    rows[3]["messages"][-1]["content"] = " "  # the chat template refuses it
    found = export._prompts(rows, tiny[1], 512)
    expected = encode_examples([*rows[:3], *rows[4:21]], tiny[1], max_tokens=512)[0]
    assert found == [list(example.input_ids) for example in expected]
    assert len(found) == 20
