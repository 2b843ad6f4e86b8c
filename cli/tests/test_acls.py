"""The least rights, as the topics say who does what."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from pathlib import Path

import pytest
from tunewheel_cli.acls import PRINCIPALS, SERVICES, UPSTREAM, commands, least_acls, principal
from tunewheel_cli.frame import app
from tunewheel_contracts.topics import (
    BY_NAME,
    ERASED_LETTERS,
    TAKEN_AGAIN,
    TICKET_PUBLISHED,
    TOPICS,
    TRAIN_CONTROL,
)
from tunewheel_local.connection import InvalidOption
from typer.testing import CliRunner

Rights = dict[tuple[str, str], tuple[str, ...]]


@pytest.fixture(scope="module")
def rights() -> dict[str, Rights]:
    """By principal: (kind, resource) → operations."""
    found: defaultdict[str, Rights] = defaultdict(dict)
    for acl in least_acls():
        assert (acl.kind, acl.resource) not in found[acl.name], "one line for a resource"
        found[acl.name][acl.kind, acl.resource] = acl.operations
    return found


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["admin", "acls", *arguments])
    return result.exit_code, result.stdout, result.stderr


def test_everybody_whom_the_topics_name_is_a_principal(rights: dict[str, Rights]) -> None:
    named = {name for spec in TOPICS for name in (*spec.producers, *spec.consumers)}
    assert named - {"upstream"} <= set(PRINCIPALS) == set(rights)


def test_each_upstream_system_writes_topics_of_its_own_and_only_privacy_erases(
    rights: dict[str, Rights],
) -> None:
    written = [spec.name for topics in UPSTREAM.values() for spec in topics]
    assert sorted(written) == sorted(spec.name for spec in TOPICS if "upstream" in spec.producers)
    assert len(written) == len(set(written)) > 5
    for name, topics in UPSTREAM.items():
        assert rights[name] == {("topic", spec.name): ("Write",) for spec in topics}
    erasing = {name for name in UPSTREAM if ("topic", "erasure.requested") in rights[name]}
    assert erasing == {"upstream-privacy"}


def test_a_service_reads_what_it_consumes_and_writes_what_it_produces(rights: dict[str, Rights]) -> None:
    for spec in TOPICS:
        for name in SERVICES:
            operations = rights[name].get(("topic", spec.name), ())
            again = name == "ingest" and spec in TAKEN_AGAIN  # refused messages, once more
            assert ("Write" in operations) == (again or name in spec.producers), (name, spec.name)
            if name != "console":
                assert ("Read" in operations) == (name in spec.consumers), (name, spec.name)
    assert rights["console"]["topic", TICKET_PUBLISHED.name] == ("Describe",)
    assert rights["console"]["topic", TRAIN_CONTROL.name] == ("Read", "Write")


def test_a_group_is_its_services_alone_and_no_right_is_for_all_of_a_kind(rights: dict[str, Rights]) -> None:
    for name in SERVICES:
        groups = {of for (kind, of), may in rights[name].items() if kind == "group" and may != ("Describe",)}
        assert all(group.startswith(f"{name}.") for group in groups)
        assert (f"{name}.active" in groups) == (name in ("registry", "index"))
        transactions = {acl for acl in rights[name].items() if acl[0][0] == "transactionalId"}
        assert transactions == {
            (("transactionalId", group), ("Write",)) for group in groups if group == f"{name}.active"
        }
    described = {of for (kind, of), may in rights["console"].items() if kind == "group"}
    assert described == {group for spec in TOPICS for name in SERVICES for group in spec.groups_of(name)}
    assert all(resource != "*" for found in rights.values() for _, resource in found)


def test_dead_letters_are_written_by_who_handles_the_topic_and_erased_by_ingest(
    rights: dict[str, Rights],
) -> None:
    assert rights["curate"]["topic", "record.ingested.dlq"] == ("Write",)
    assert ("topic", "project.declared.dlq") not in rights["curate"], "it only replays the topic"
    assert rights["registry"]["topic", "project.declared.dlq"] == ("Write",)
    deletes = {(name, r) for name in rights for (_, r), found in rights[name].items() if "Delete" in found}
    handled = {(spec.deleted_by, spec.name) for spec in TOPICS if spec.deleted_by}
    assert deletes == {("ingest", letters) for letters in ERASED_LETTERS} | handled
    assert rights["ingest"]["topic", "erasure.requested.dlq"] == ("Write",)


def test_people_only_look_and_who_makes_topics_reads_none(
    rights: dict[str, Rights],
) -> None:
    everything = {("topic", name) for name in BY_NAME}
    assert everything <= set(rights["cli"])
    may = {operation for found in rights["cli"].values() for operation in found}
    assert may == {"Read", "Describe"}, "what people do goes through the console and ingest"
    assert rights["cli"]["group", "ingest.ticket-published"] == ("Describe",)
    assert set(rights["topics"].values()) == {("Alter", "AlterConfigs", "Create")}


def test_a_principal_is_named_by_a_prefix_or_by_a_whole_subject() -> None:
    assert principal("ingest", "acme-{name}") == "User:acme-ingest"
    assert principal("ingest", "User:CN={name},O=Acme Corp") == "User:CN=ingest,O=Acme Corp"
    for template in ("acme", "{name}-{name}"):
        with pytest.raises(InvalidOption, match=r"--principals: .* must have \{name\} in it once"):
            principal("ingest", template)


def test_the_commands_allow_the_same_as_the_list() -> None:
    acls = least_acls(["ingest", "registry", "upstream-tickets"])
    allowed: set[tuple[str, str, str, str]] = set()
    for line in commands(acls, template="CN={name},O=Acme Corp", bootstrap_servers="kafka:9093"):
        words = shlex.split(line)
        assert words[:5] == ["kafka-acls.sh", "--bootstrap-server", "kafka:9093", "--command-config",
                             "admin.properties"]  # fmt: skip
        assert words[5] == "--add"
        pairs = list(zip(words[6::2], words[7::2], strict=True))
        (who,) = (value for option, value in pairs if option == "--allow-principal")
        operations = [value for option, value in pairs if option == "--operation"]
        kinds = {"--topic": "topic", "--group": "group", "--transactional-id": "transactionalId"}
        resources = [(kinds[option], value) for option, value in pairs if option in kinds]
        allowed |= {(who, kind, resource, o) for kind, resource in resources for o in operations}
    assert allowed == {
        (f"User:CN={acl.name},O=Acme Corp", acl.kind, acl.resource, operation)
        for acl in acls
        for operation in acl.operations
    }


def test_the_command_prints_for_people_for_machines_and_to_paste() -> None:
    code, out, _ = run("registry", "--principals", "acme-{name}")
    assert code == 0
    assert out.startswith("User:acme-registry  the service registry")
    assert "registry.active" in out
    code, out, _ = run("registry", "upstream-privacy", "--json")
    found = json.loads(out)
    assert {acl["principal"] for acl in found} == {
        "User:tunewheel-registry",
        "User:tunewheel-upstream-privacy",
    }
    assert {acl["pattern_type"] for acl in found} == {"literal"}
    code, out, _ = run("cli", "--commands", "--bootstrap-servers", "kafka:9093")
    assert out.count("\n") == 2, "topics, and groups"


def test_an_unknown_name_is_told_with_those_that_there_are() -> None:
    code, _, err = run("gateway")
    assert code == 2
    assert "there is no principal 'gateway'; choose from upstream-tickets, " in err


def test_the_names_are_those_on_the_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, under = least_acls(["curate"]), least_acls(["curate"], prefix="acme.")
    assert [acl.resource for acl in under] == [f"acme.{acl.resource}" for acl in plain]
    monkeypatch.setenv("TUNEWHEEL_TOPIC_PREFIX", "team.")
    code, out, _ = run("curate", "--json")
    assert (code, {acl["resource_name"].split(".")[0] for acl in json.loads(out)}) == (0, {"team"})
    code, out, _ = run("curate", "--json", "--topic-prefix", "acme.")
    assert (code, {acl["resource_name"].split(".")[0] for acl in json.loads(out)}) == (0, {"acme"})


SPEC = """
project: {project}
base_model: any/model
task: {{system_prompt: Answer.}}
criteria: [{{metric: rouge_l, minimum: 0.1}}]
sources:
  - {{name: crm, topic: crm.cases, kind: ticket, map: {{ticket_id: id}}}}
  - {{name: wiki, topic: {topic}, kind: ticket, map: {{ticket_id: id}}}}
  - {{name: zendesk, webhook: zendesk, use: zendesk}}
"""


def test_ingest_may_read_the_topics_of_other_systems_that_the_specs_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plain = {(acl.resource, acl.operations) for acl in least_acls(["ingest"], prefix="acme.")}
    one, two = tmp_path / "project.yaml", tmp_path / "two.yaml"
    one.write_text(SPEC.format(project="desk", topic="wiki.pages"))
    two.write_text(SPEC.format(project="shop", topic="shop-wiki"))

    def added(*arguments: str) -> set[tuple[str, ...]]:
        code, out, err = run("--json", "--topic-prefix", "acme.", *arguments)
        assert code == 0, err
        found = [acl for acl in json.loads(out) if acl["name"] == "ingest"]
        told = {(acl["resource_type"], acl["resource_name"], *acl["operations"]) for acl in found}
        assert len(told) == len(found), "one line for a resource"
        return {acl for acl in told if (acl[1], acl[2:]) not in plain}

    def groups(project: str) -> set[tuple[str, ...]]:
        return {("group", f"acme.ingest.source.{project}/{name}", "Read") for name in ("crm", "wiki")}

    desk = {("topic", "crm.cases", "Read"), ("topic", "wiki.pages", "Read")} | groups("desk")
    assert added() == desk, "of the project in this folder"
    shop = {("topic", "crm.cases", "Read"), ("topic", "shop-wiki", "Read")} | groups("shop")
    assert added("--spec", str(two)) == shop
    assert added("--spec", str(one), "--spec", str(two)) == desk | shop
    one.unlink()
    assert added() == set()
    code, _, err = run("--spec", str(one))
    assert (code, "project.yaml" in err) == (1, True)
