"""``init``: a project is drafted of files as people have them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tunewheel_cli.drafting.base import available_models
from tunewheel_cli.drafting.columns import read_columns
from tunewheel_cli.drafting.start import NothingToDraft, Started, start
from tunewheel_cli.frame import app
from tunewheel_cli.publishing.items import SourceUnusable
from tunewheel_cli.spec_file import read_spec
from tunewheel_contracts.errors import InvalidSpec
from typer.testing import CliRunner

LABELS = ("refund", "exchange", "warranty")


@pytest.fixture(autouse=True)
def _without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tunewheel_cli.drafting.start.available_models", tuple)


def drafted(path: Path, content: str | bytes, **options: Any) -> Started:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return start([path], **options)


def accepted(folder: Path, started: Started) -> dict[str, Any]:
    """Check the file as ``declare`` does; return what it says."""
    path = folder / "project.yaml"
    path.write_text(started.text, "utf-8")
    read_spec(path)
    return yaml.safe_load(started.text)


def labelled(rows: int = 600, label: str = "label") -> str:
    lines = (f"question number {n} about my order,{LABELS[n % 3]}" for n in range(rows))
    return "\n".join([f"text,{label}", *lines])


def test_a_column_of_few_values_becomes_the_label_and_its_values_the_schema(tmp_path: Path) -> None:
    started = drafted(tmp_path / "desk.csv", labelled())
    spec = accepted(tmp_path, started)
    assert spec["project"] == "desk"
    assert spec["task"]["label_field"] == "label"
    assert spec["task"]["output_schema"]["properties"] == {"label": {"enum": sorted(LABELS)}}
    assert started.read.files[0].maps == ("text=input", "label=output.label")
    (publish,) = [line for line in started.commands(Path("project.yaml")) if " publish " in line]
    assert publish.endswith("--map text=input --map label=output.label --validated-by NAME")
    assert drafted(tmp_path / "desk.csv", labelled()).text == started.text, "the same file, the same draft"


@pytest.mark.parametrize("address", ["http://[hub", "http://hub:80a"])
def test_a_hub_at_no_address_is_refused_with_the_fix(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", address)
    with pytest.raises(InvalidSpec, match="HF_ENDPOINT is no address of a hub; write it as") as caught:
        available_models()
    assert caught.value.field == "base_model"


def test_the_learning_rate_suits_the_base(tmp_path: Path) -> None:
    small = accepted(tmp_path, drafted(tmp_path / "a.csv", labelled()))
    assert (small["base_model"], small["train"]["learning_rate"]) == (
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        0.002,
    )
    large = accepted(tmp_path, drafted(tmp_path / "a.csv", labelled(), base_model="Qwen/Qwen3-8B"))
    assert (large["base_model"], large["train"]["learning_rate"]) == ("Qwen/Qwen3-8B", 0.0001)


def test_a_larger_base_is_taken_where_it_can_be_had_and_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tunewheel_planner.devices import Device, catalogue

    def on(device: str, gib: float) -> str:
        card = catalogue().named(device)
        assert isinstance(card, Device)
        card = card.model_copy(update={"memory_gib": gib})
        monkeypatch.setattr("tunewheel_cli.drafting.start.this_device", lambda: card)
        return drafted(tmp_path / "a.csv", labelled()).base.name

    monkeypatch.setattr(
        "tunewheel_cli.drafting.start.available_models",
        lambda: ("Qwen/Qwen2.5-7B-Instruct", "HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    )
    assert on("h100-80", 79) == "Qwen/Qwen2.5-7B-Instruct"
    assert on("l4", 8) == "HuggingFaceTB/SmolLM2-1.7B-Instruct"
    assert on("cpu", 3) == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_json_answers_give_their_schema(tmp_path: Path) -> None:
    def record(n: int) -> str:
        answer = {"category": LABELS[n % 3], "reply": f"We answer number {n}.", "urgent": n % 2 == 0}
        messages = [
            {"role": "system", "content": "You are the desk."},
            {"role": "user", "content": f"where is parcel {n}?"},
            {"role": "assistant", "content": json.dumps(answer | ({"note": 1} if n % 5 == 0 else {}))},
        ]
        return json.dumps({"messages": messages})

    spec = accepted(tmp_path, drafted(tmp_path / "chat.jsonl", "\n".join(map(record, range(600)))))
    schema = spec["task"]["output_schema"]
    assert schema["required"] == ["category", "reply", "urgent"]
    assert schema["properties"]["category"] == {"enum": sorted(LABELS)}
    assert schema["properties"]["urgent"] == {"type": "boolean"}
    assert spec["task"]["label_field"] == "category"
    assert spec["task"]["system_prompt"] == "You are the desk."


def test_text_answers_give_a_task_of_text_and_few_answers_a_choice(tmp_path: Path) -> None:
    lines = [f'Wie geht Schritt {n}?;"Schritt {n} geht so: ""{"a" * n}""."' for n in range(60)]
    text = accepted(tmp_path, drafted(tmp_path / "faq.csv", "\n".join(["Frage;Antwort", *lines])))
    assert text["task"].keys() == {"system_prompt", "max_output_tokens"}
    assert {one["metric"] for one in text["criteria"]} == {"perplexity", "chrf"}
    pairs = "\n".join(
        json.dumps({"input": f"is {n} odd?", "target": ("no", "yes")[n % 2]}) for n in range(300)
    )
    choice = accepted(tmp_path, drafted(tmp_path / "odd.jsonl", pairs))
    assert choice["task"]["output_rules"][0]["values"] == ["no", "yes"]
    assert choice["criteria"][0]["metric"] == "label_accuracy"


def test_a_misspelt_label_is_no_value_and_is_named(tmp_path: Path) -> None:
    content = labelled() + "\nwhat now with my order,refnd"
    started = drafted(tmp_path / "a.csv", content)
    assert accepted(tmp_path, started)["task"]["output_schema"]["properties"]["label"]["enum"] == sorted(
        LABELS
    )
    assert "'refnd' looks like 'refund' misspelt" in started.text
    rare = drafted(tmp_path / "a.csv", labelled() + "\nsomething else about it,legal")
    assert "legal" in accepted(tmp_path, rare)["task"]["output_schema"]["properties"]["label"]["enum"]
    assert "# label: once or twice only: legal" in rare.text


def test_ids_dates_and_numbers_are_no_questions_and_customers_are_groups() -> None:
    records = [
        {
            "Ticket ID": f"T-{n:05}",
            "created": f"2026-01-{n % 28 + 1:02} 10:00:00+00:00",
            "amount": str(n * 17),
            "Kunde": f"K-{n % 20}",
            "Nachricht": f"Ich habe die Frage Nummer {n} zu meiner Bestellung",
            "Abteilung": LABELS[n % 3],
            "Status": "open",
        }
        for n in range(80)
    ]
    reading = read_columns(records)
    assert reading is not None
    assert reading.maps == ("Nachricht=input", "Abteilung=output.abteilung", "Kunde=group")


def test_a_label_that_contradicts_itself_is_not_learnt_where_there_is_an_answer() -> None:
    records = [
        {"text": f"the same old question {n % 25}", "category": LABELS[n % 3], "reply": f"long answer {n}"}
        for n in range(60)
    ]
    reading = read_columns(records)
    assert reading is not None
    assert reading.maps == ("text=input", "reply=output")
    assert reading.others == ("category",)


@pytest.mark.parametrize(
    "bad",
    [
        "a: b", "# x", "- x", "'", '"', "{a: 1}", "!!python/object:os.system", "yes", "null", "1e3", "&a",
        "x\ny: z", "\u2028base_model: evil",
    ],
)  # fmt: skip
def test_no_cell_becomes_yaml(tmp_path: Path, bad: str) -> None:
    """Every name and value of a file is data, in a label, in a column's name and in the system prompt."""
    column = f"label {bad}" if bad.isprintable() else "label"
    records = [{"text": f"question {n} of somebody", column: bad if n % 2 else "good"} for n in range(600)]
    started = drafted(tmp_path / "a.json", json.dumps(records))
    spec = accepted(tmp_path, started)
    assert spec["base_model"] == "HuggingFaceTB/SmolLM2-135M-Instruct"
    (values,) = spec["task"]["output_schema"]["properties"].values()
    assert values == {"enum": sorted({bad, "good"})}
    chat = [
        {
            "messages": [
                {"role": "system", "content": bad},
                {"role": "user", "content": f"q {n}"},
                {"role": "assistant", "content": f"answer number {n}"},
            ]
        }
        for n in range(600)
    ]
    assert accepted(tmp_path, drafted(tmp_path / "b.json", json.dumps(chat)))["task"]["system_prompt"] == bad


def test_few_rows_are_judged_by_what_they_can_decide_and_hardly_any_are_cautioned_of(tmp_path: Path) -> None:
    assert drafted(tmp_path / "a.csv", labelled(600)).draft.choice.is_decidable
    few = drafted(tmp_path / "a.csv", labelled(24))
    accepted(tmp_path, few)
    assert not few.draft.choice.is_decidable
    assert any("Collect more examples" in caution for caution in few.draft.cautions)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "no header line"),
        ("a.csv", b"text,label\n", "it is empty|nothing tells"),
        ("a.csv", b"only\n" + b"words and more words\n" * 50, "nothing tells what its records are"),
        ("a.jsonl", b"", "it is empty"),
        ("a.jsonl", b"{\n" * 50, "50 lines are refused"),
        ("a.jsonl", b'{"ticket_id": "T", "body": "help"}\n', "tickets without an answer"),
    ],
)
def test_a_file_without_examples_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    with pytest.raises(SourceUnusable, match=words):
        drafted(tmp_path / name, content)


def test_answered_tickets_are_examples(tmp_path: Path) -> None:
    tickets = [
        {"ticket_id": f"T-{n}", "body": f"my parcel {n} is late", "answer": {"category": LABELS[n % 3]},
         "validated_by": "kim"}
        for n in range(600)
    ]  # fmt: skip
    tickets.append({"ticket_id": "T-new", "body": "not answered yet"})
    started = drafted(tmp_path / "desk.jsonl", "\n".join(map(json.dumps, tickets)))
    assert accepted(tmp_path, started)["task"]["label_field"] == "category"
    assert started.read.survey.examples == 600
    (publish,) = [line for line in started.commands(Path("p.yaml")) if " publish " in line]
    assert "--validated-by" not in publish


def test_documents_are_searched_and_alone_they_are_not_enough(tmp_path: Path) -> None:
    sops = tmp_path / "sops"
    sops.mkdir()
    (sops / "a.md").write_text("# A\n\ntext\n")
    with pytest.raises(NothingToDraft, match="give a file of answered questions"):
        start([sops])
    (tmp_path / "qa.csv.gz").write_bytes(gzip.compress(labelled().encode()))
    started = start([tmp_path / "qa.csv.gz", sops])
    assert accepted(tmp_path, started)["retrieval"] == {"default": "off", "floor": "calibrated"}
    assert [line for line in started.commands(Path("p.yaml")) if line.endswith("sops --project qa")]


def test_a_folder_of_data_files_is_read_whole(tmp_path: Path) -> None:
    folder = tmp_path / "Größe 3"
    folder.mkdir()
    for part in range(3):
        (folder / f"train-{part}.csv").write_text(labelled(40).replace("number", f"of part {part} number"))
    started = start([folder])
    assert (started.project, started.read.survey.distinct) == ("grosse-3", 120)


def test_the_command_writes_a_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.csv").write_text(labelled())
    done = CliRunner().invoke(app, ["init", "train.csv", "--json", "-p", "mine"])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["project"] == "mine"
    assert told["spec"] == yaml.safe_load((tmp_path / "project.yaml").read_text())
    assert told["power"]["decidable"]
    (tmp_path / "project.yaml").write_text("mine: own\n")
    refused = CliRunner().invoke(app, ["init", "train.csv"])
    assert refused.exit_code == 1
    assert "--force" in refused.stderr
    assert (tmp_path / "project.yaml").read_text() == "mine: own\n"
    assert CliRunner().invoke(app, ["init", "train.csv", "--force"]).exit_code == 0
    assert "criteria" in (tmp_path / "project.yaml").read_text()
