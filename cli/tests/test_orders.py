"""Commands that change something: what comes to the log, and what the person is told of the outcome."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.lifecycle import CommandRefused, ModelPromoted
from tunewheel_testing.console import Console
from tunewheel_testing.story import Story, example, model_of

DATASET = "ds-0123456789abcdef0123456789abcdef"
RUN, MODEL = f"run-{DATASET}", model_of(DATASET)
WHY = ("-p", "desk", "--reason", "better")


@pytest.fixture
def told(console: Console) -> Console:
    """A console that has read of a run with a verdict, and of a run that still trains."""
    story = Story("desk")
    story.say("project.declared")
    for dataset in (DATASET, "ds-2"):
        story.version(story.request(dataset), dataset)
        story.train("started", dataset)
    story.train("completed", DATASET)
    story.say("model.registered", model_id=MODEL)
    story.judge("eval.passed", DATASET)
    console.read(*story.events)
    return console


def answered(refused: bool = False) -> Callable[[Envelope[Any]], list[Envelope[Any]]]:
    """Return what the registry says of a command on a model."""

    def answer(event: Envelope[Any]) -> list[Envelope[Any]]:
        if event.data.type != "model.commanded":
            return []
        data = event.data
        if refused:
            told = {"model_id": data.model_id, "action": data.action, "command_id": event.id}
            said: Any = CommandRefused(project="desk", field="model_id", reason="is no better", **told)
        else:
            fields = example("model.promoted") | {
                "project": "desk",
                "model_id": data.model_id,
                "cause": event.id,
            }
            said = ModelPromoted.model_validate(fields)
        return [new_event(said, source="/registry", cause=event)]

    return answer


def test_a_command_names_who_asked_and_waits_for_the_registrys_answer(told: Console, run: Any) -> None:
    told.answer = answered()
    done = json.loads(run("model", "promote", MODEL, *WHY, "--force", "--json").stdout)
    (command,) = told.log.of("model.commanded")
    assert (command.model_id, command.action, command.force, command.reason) == (
        MODEL,
        "promote",
        True,
        "better",
    )
    assert command.principal.name == "lead"
    assert (done["state"], done["target"]) == ("done", MODEL)


def test_a_refusal_is_exit_1_with_field_and_reason(told: Console, run: Any) -> None:
    told.answer = answered(refused=True)
    said = json.loads(run("model", "promote", MODEL, *WHY, "--force", "--json", code=1).stdout)
    assert (said["kind"], said["field"]) == ("Refused", "model_id")
    assert "is no better" in said["error"]


def test_no_answer_in_time_is_exit_6_and_the_command_stays(told: Console, run: Any) -> None:
    assert (
        "it stays on the log"
        in run("model", "promote", MODEL, *WHY, "--force", "--timeout", "0.1", code=6).stderr
    )
    assert len(told.log.of("model.commanded")) == 1
    assert run("model", "promote", MODEL, *WHY, "--force", "--timeout", "0").stdout.endswith("asked for\n")


def test_what_would_be_refused_is_refused_before_it_is_on_the_log(told: Console, run: Any) -> None:
    assert "model" in run("model", "promote", "desk-nothing", *WHY, code=1).stderr
    assert "has ended" in run("run", "pause", RUN, "-p", "desk", code=1).stderr
    assert "no verdict yet" in run("run", "evaluate", "run-ds-2", "-p", "desk", code=1).stderr
    assert told.log.events == []


def test_a_request_with_the_same_name_is_the_same_command(told: Console, run: Any) -> None:
    for _ in range(2):
        run("run", "pause", "run-ds-2", "-p", "desk", "--request", "r1", "--timeout", "0")
    assert len({event.id for event in told.log.events}) == 1
    (command,) = told.log.of("train.control")
    assert (command.run_id, command.action.value) == ("run-ds-2", "pause")


@pytest.mark.parametrize(("options", "waits"), [((), True), (("--no-wait",), False)])
def test_a_build_waits_for_ingest_unless_told_not_to(
    options: tuple[str, ...], waits: bool, told: Console, run: Any
) -> None:
    run("dataset", "build", "-p", "desk", "--timeout", "0", *options)
    assert told.has_waited is waits
    (command,) = told.log.of("dataset.requested")
    assert command.reason.value == "command"


def test_other_criteria_are_read_from_a_file(told: Console, run: Any, tmp_path: Any) -> None:
    file = tmp_path / "criteria.yaml"
    file.write_text("criteria: [{metric: valid_output, minimum: 0.5}]\n")
    run("run", "evaluate", RUN, "-p", "desk", "--criteria", str(file), "--timeout", "0")
    (command,) = told.log.of("eval.requested")
    assert command.criteria[0].metric == "valid_output"
    file.write_text("criteria: [")
    assert "--criteria: " in run("run", "evaluate", RUN, "-p", "desk", "--criteria", str(file), code=2).stderr


SPEC = """project: shop
base_model: org/tiny
task: {system_prompt: Answer.}
criteria: [{metric: perplexity, maximum: 9}]
"""


def test_a_spec_is_checked_and_put_in_force(told: Console, run: Any, tmp_path: Any) -> None:
    file = tmp_path / "project.yaml"
    file.write_text(SPEC)
    assert run("project", "declare", str(file), "--check").stdout.startswith("checked shop: 1 criteria")
    assert told.log.events == []
    said = json.loads(run("project", "declare", str(file), "--json").stdout)
    (command,) = told.log.of("project.declared")
    assert (command.project, said["spec_sha256"]) == ("shop", command.spec.sha256)


def test_all_that_is_wrong_with_a_spec_is_told_at_once(told: Console, run: Any, tmp_path: Any) -> None:
    file = tmp_path / "project.yaml"
    file.write_text("project: shop\nbase_model: ''\ntask: {}\ncriteria: []\n")
    said = run("project", "declare", str(file), code=1).stderr
    faults = json.loads(run("project", "declare", str(file), "--json", code=1).stdout)["faults"]
    assert {"base_model", "task.system_prompt", "criteria"} <= {fault["field"] for fault in faults}
    assert all(fault["field"] in said for fault in faults)
    assert told.log.events == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("project: [", "is not YAML (line 1)"),
        ("- a\n", "is not a mapping"),
        ("task: {}\n", "project"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_that_is_no_spec_is_not_sent(text: str | None, words: str, run: Any, tmp_path: Any) -> None:
    file = tmp_path / "spec.yaml"
    if text is not None:
        file.write_text(text)
    assert words in run("project", "declare", str(file), code=1).stderr
    file.write_bytes(b"project: caf\xe9")
    assert "is not UTF-8 (byte 12)" in run("project", "declare", str(file), code=1).stderr


def test_a_project_is_removed_once_somebody_has_said_yes(told: Console, run: Any) -> None:
    assert "Stop building" in run("project", "remove", "desk", code=1, input="n\n").output
    assert told.log.events == []
    for _ in range(2):
        assert "removed desk" in run("project", "remove", "desk", "--yes").stdout
    assert told.log.taken_back


def test_documents_are_withdrawn_and_an_id_that_nobody_knows_is_doubted(told: Console, run: Any) -> None:
    told.documents.add("sops/a.md")
    options = ("-p", "desk", "--reason", "old", "--timeout", "0")
    said = run("withdraw", "sops/a.md", "sops/b.md", *options).stdout
    assert "withdrew sops/a.md, sops/b.md from desk\n'sops/b.md' is withdrawn, but" in said
    commands = told.log.of("document.withdrawn")
    assert [(one.document_id, one.reason) for one in commands] == [("sops/a.md", "old"), ("sops/b.md", "old")]


def test_an_erasure_asks_first_and_says_who_has_not_answered(told: Console, run: Any) -> None:
    words = ("forget", "-p", "desk", "--requested-by", "privacy", "--customer", "ann", "--request", "letter")
    said = run(*words, code=1, input="n\n")
    assert said.stderr.startswith(f"on {told.url}\n"), "whose it is stands before the question"
    assert "for good?" in said.output
    assert "--customer: or --source" in run("forget", "-p", "desk", "--requested-by", "m", code=2).stderr
    run("forget", "-p", "nope", "--requested-by", "m", "--customer", "ann", "--yes", code=1)
    assert told.log.events == []
    said = run(*words, "--yes", "--timeout", "0.1", code=6).stdout
    assert "curate has not answered yet" in said
    (command,) = told.log.of("erasure.requested")
    assert (command.erasure_id, command.customer) == ("letter", "ann")


def test_keys_are_made_listed_renewed_and_taken_away(told: Console, run: Any) -> None:
    key = run("key", "add", "app", "--role", "application", "-p", "desk").stdout.split()[-1]
    assert key.startswith("tw")
    assert "--role: say what" in run("key", "add", "other", code=2).stderr
    assert run("key", "rotate", "app").stdout.split()[-1] != key
    (line,) = (line for line in run("key", "list").stdout.splitlines() if line.startswith("app"))
    assert line.split() == ["app", "application", "desk", "1"]
    run("key", "revoke", "app")
    assert [
        one["name"] for one in json.loads(run("key", "list", "--json").stdout.splitlines()[-1])["keys"]
    ] == ["lead"]


def test_who_ordered_what_is_listed_and_exported(told: Console, run: Any) -> None:
    run("model", "promote", MODEL, *WHY, "--force", "--timeout", "0")
    assert "lead" in run("admin", "audit").stdout
    (line, *_) = run("admin", "audit", "--export", "jsonl").stdout.splitlines()
    assert json.loads(line)["project"] == "desk"
    for name, count in (("lead", 1), ("somebody else", 0)):
        assert len(json.loads(run("admin", "audit", "--principal", name, "--json").stdout)["items"]) == count


def test_models_are_listed_by_their_stage(told: Console, run: Any) -> None:
    every = json.loads(run("model", "list", "-p", "desk", "--json").stdout)["items"]
    stages = {one["stage"] for one in every}
    for stage in ("registered", "retired"):
        listed = json.loads(run("model", "list", "-p", "desk", "--stage", stage, "--json").stdout)["items"]
        assert [one["model_id"] for one in listed] == [m["model_id"] for m in every if m["stage"] == stage]
    assert "registered" in stages, "something is listed"


def test_the_base_that_answers_alone_is_unpinned_by_its_alias(told: Console, run: Any) -> None:
    story = Story("desk")
    base = {"model_id": "base-cae662172fd4", "role": "production", "percent": 100, "adapter": None}
    story.say("model.registered", like="base", model_id=base["model_id"])
    story.say("model.pinned", model_id=base["model_id"], pinned=True)
    desired = example("serving.desired")["desired"] | {"routes": [base], "pinned": base["model_id"]}
    story.say("serving.desired", desired=desired)
    told.read(*story.events)
    run("model", "unpin", "base", *WHY, "--timeout", "0")
    assert told.log.of("model.commanded")[0].model_id == base["model_id"]
