"""A model's card and the comparison of two, from artifacts in a store and events on the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from starlette.testclient import TestClient
from tunewheel_contracts.events.lifecycle import ModelRegistered, Stage
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.bundle import Decoding
from tunewheel_contracts.formats.recipe import TrainSpec
from tunewheel_contracts.formats.run import BaseModelFacts, RunManifest
from tunewheel_contracts.formats.scorecard import Contestant, Finding, MetricFacts, Role, Scorecard
from tunewheel_registry.about.card import model_card
from tunewheel_registry.about.facts import ModelFacts
from tunewheel_registry.api import add_about, make_api
from tunewheel_registry.lifecycle import apply
from tunewheel_registry.state import Model, State, Step, base_model_id
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.identity.guard import guard
from tunewheel_runtime.settings import HttpSettings
from tunewheel_testing.adapters import bundle_of
from tunewheel_testing.datasets import parquet
from tunewheel_testing.story import example

from ..wheel import Wheel, row

PROMPT = "Answer as JSON.\nBe | brief."


async def trained_rows(wheel: Wheel, n: int, labels: dict[str, str]) -> ArtifactRef:
    """Store the training rows of version ``n``: a record and its label each. Without any label there is no
    column of labels."""
    rows = [{"record_ids": [name]} | ({"label": label} if label else {}) for name, label in labels.items()]
    return await wheel.store.put(f"datasets/ds-{n}/train.parquet", parquet(rows))


def scorecard(
    wheel: Wheel, n: int, *, accuracy: float, champion: int | None, temperature: float
) -> Scorecard:
    model_id = wheel.desk.model_id(n)
    contestants = [
        Contestant(role=Role.BASE, model_id="base", metrics={"label_accuracy": 0.1, "examples": 40.0}),
        Contestant(
            role=Role.CANDIDATE, model_id=model_id, metrics={"label_accuracy": accuracy, "examples": 40.0}
        ),
    ]
    findings: list[Finding] = []
    if champion is not None:
        contestants.append(
            Contestant(
                role=Role.CHAMPION, model_id=wheel.desk.model_id(champion), metrics={"label_accuracy": 0.7}
            )
        )
        findings.append(
            Finding(
                metric="label_accuracy", against="champion", test="sign_flip", difference=0.2, p_value=0.01,
                low=0.05, high=0.35, alpha=0.025, rows=40, clusters=31,
            )
        )  # fmt: skip
    bundle = bundle_of(
        model_id, adapter_sha256=None, system_prompt=PROMPT, decoding=Decoding(temperature=temperature),
        max_output_tokens=64, precision="bfloat16",
    )  # fmt: skip
    return Scorecard.model_validate(
        example("scorecard")
        | {
            "model_id": model_id, "contestants": [c.model_dump(mode="json") for c in contestants],
            "findings": [f.model_dump(mode="json") for f in findings],
            "bundle": bundle.model_dump(mode="json"),
            "metrics": {"label_accuracy": MetricFacts(
                unit="fraction", lower_is_better=False, repeat_spread=0.01).model_dump(mode="json")},
            "looks": 2, "left_out": {"too_long": 1},
        }
    )  # fmt: skip


async def evaluated(wheel: Wheel, n: int, recipe: TrainSpec, labels: dict[str, str], card: Scorecard) -> None:
    """Build, train and judge model ``n``."""
    rows = await trained_rows(wheel, n, labels)
    version = await wheel.dataset(n, [row(1)], train=rows, previous=None if n == 1 else f"ds-{n - 1}")
    run = RunManifest.model_validate(
        example("run-manifest")
        | {"run_id": f"run-{n}", "recipe": recipe.model_dump(mode="json"), "dtype": "bfloat16"}
    )
    ref = await wheel.store.put(f"runs/run-{n}/manifest.json", run.model_dump_json().encode())
    wheel.model(n, version, manifest=ref)
    told = await wheel.store.put(f"scorecards/sc-{n}.json", card.model_dump_json().encode())
    wheel.happened(wheel.desk.passed(n).data.model_copy(update={"scorecard": told}))


@pytest.fixture
def unlabelled() -> set[int]:
    """The versions whose rows have no column of labels."""
    return set()


@pytest.fixture
async def client(wheel: Wheel, unlabelled: set[int]) -> TestClient:
    base = wheel.desk.adapter(1).base
    facts = BaseModelFacts(license="apache-2.0")
    wheel.happened(
        ModelRegistered(
            project="desk", model_id=base_model_id(base), kind="base", base=base, base_facts=facts
        )
    )
    first, second = {"rec-1": "lock", "rec-2": "bell"}, {"rec-2": "bell", "rec-3": "bell", "rec-4": "lock"}
    first, second = (
        dict.fromkeys(labels, "") if n in unlabelled else labels for n, labels in ((1, first), (2, second))
    )
    one = scorecard(wheel, 1, accuracy=0.7, champion=None, temperature=0.0)
    other = scorecard(wheel, 2, accuracy=0.9, champion=1, temperature=0.5)
    await evaluated(wheel, 1, TrainSpec(rank=8), first, one)
    await evaluated(wheel, 2, TrainSpec(rank=16), second, other)
    state = State("desk")
    for event in wheel.log:
        if isinstance(event.data, ModelRegistered):
            state = apply(state, event.data, at=event.time)

    class Known:
        projects = ("desk",)

        def state(self, project: str) -> State:
            return state if project == "desk" else State(project)

    ledger: Any = Known()
    api = make_api(ledger, lambda _: wheel.desk.spec())
    add_about(api, ledger, wheel.index, wheel.store)
    guard(api.routes, Access(HttpSettings(identity="open"), warn=print))
    return TestClient(api)


def card_of(client: TestClient, model_id: str) -> str:
    answer = client.get(f"/v1/projects/desk/models/{model_id}/card")
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/markdown")
    return answer.text


async def test_the_hubs_own_reader_finds_the_metadata(
    client: TestClient, wheel: Wheel, tmp_path: Path
) -> None:
    file = tmp_path / "README.md"
    file.write_text(card_of(client, wheel.desk.model_id(2)), "utf-8")
    data = ModelCard.load(file).data
    assert (data.license, data.base_model, data.library_name) == ("apache-2.0", "org/Tiny-Base", "peft")
    assert data.base_model_relation == "adapter"
    assert [(r.metric_type, r.metric_value, r.dataset_name) for r in data.eval_results or []] == [
        ("label_accuracy", 0.9, "ds-2 (holdout)")
    ]


async def test_the_card_says_what_made_the_model_and_how_sure_its_figures_are(
    client: TestClient, wheel: Wheel
) -> None:
    text = card_of(client, wheel.desk.model_id(2))
    for words in (
        "| version | `ds-2` |", "| previous version | `ds-1` |", "| rank | 16 |", "| precision | bfloat16 |",
        "| label_accuracy | champion | +0.2 | +0.05 … +0.35 (each end 97.5%) | 0.01 | sign_flip | 40 | 31 |",
        "2 verdicts were based", "1 (too_long)", "> Be | brief.", "| decoding | temperature 0.5,",
        "No review was asked for.", "| 31 |",
    ):  # fmt: skip
        assert words in text, words
    assert text == card_of(client, wheel.desk.model_id(2))


async def test_a_card_says_what_cannot_be_read(client: TestClient, wheel: Wheel) -> None:
    await wheel.store.delete(["datasets/ds-2/manifest.json", "scorecards/sc-2.json"])
    text = card_of(client, wheel.desk.model_id(2))
    assert "## Files that cannot be read\n\n- dataset: datasets/ds-2/manifest.json is not in" in text
    assert "Outcome: passed." in text
    base = base_model_id(wheel.desk.adapter(1).base)
    assert "It has not been evaluated yet." in card_of(client, base)


@pytest.mark.parametrize(
    ("stage", "reason", "decided_by", "shown"),
    [
        (Stage.REJECTED, "rejected by Ada: not our tone", "review", "rejected in a review"),
        (Stage.ROLLED_BACK, "rejected by Ada", "review", "rejected in a review"),
        (Stage.REJECTED, "rejected by Ada", None, "rejected in a review"),
        (
            Stage.EVALUATED, "misses rouge_l; Ada; of Kent overruled that, but waits: desk-1 is pinned",
            "criteria", "misses rouge_l; a review overruled that, but waits: desk-1 is pinned",
        ),
        (Stage.REJECTED, "label_accuracy is .4; valid_output is .6", "criteria",
         "label_accuracy is .4; valid_output is .6"),
        (Stage.ROLLED_BACK, "worse in canary", "rollout", "worse in canary"),
    ],
)  # fmt: skip
def test_a_card_names_no_reviewer(
    wheel: Wheel, stage: Stage, reason: str, decided_by: str | None, shown: str
) -> None:
    base = wheel.desk.adapter(1).base
    known = ModelRegistered(project="desk", model_id=base_model_id(base), kind="base", base=base)
    step = Step(event_id="step-1", stage=stage, reason=reason, decided_by=decided_by)
    model = Model(registration=known, stage=stage, history=(step,))
    text = model_card(ModelFacts(model, None, None, None, None, evaluation=None, reviews=()))
    assert f"|  | {stage.value} | {shown} |" in text
    assert "Ada" not in text


async def test_two_models_are_compared_in_all_that_made_them(client: TestClient, wheel: Wheel) -> None:
    one, other = wheel.desk.model_id(1), wheel.desk.model_id(2)
    found = client.get(f"/v1/projects/desk/models/{one}/comparison/{other}").json()
    dataset = found["dataset"]
    assert (dataset["datasets"], dataset["records_added"], dataset["records_removed"]) == (
        ["ds-1", "ds-2"],
        2,
        1,
    )
    assert dataset["labels"] == {"bell": [1, 2]}
    assert found["recipe"] == {"rank": [8, 16]}
    assert found["bundle"] == {"model_id": [one, other], "decoding.temperature": [0.0, 0.5]}
    assert found["metrics"]["label_accuracy"] == {
        "first": 0.7, "second": 0.9, "lower_is_better": False, "repeat_spread": 0.01,
    }  # fmt: skip
    assert [(f["metric"], f["low"], f["high"]) for f in found["direct"]] == [("label_accuracy", 0.05, 0.35)]
    assert (found["criteria"], found["missing"]) == ({}, {})
    back = client.get(f"/v1/projects/desk/models/{other}/comparison/{one}").json()
    assert back["direct"] == [], "the first was not judged against the second"
    assert back["recipe"] == {"rank": [16, 8]}


@pytest.mark.parametrize(
    ("unlabelled", "labels"),
    [
        ({1}, {"bell": [None, 2], "lock": [None, 1]}),
        ({2}, {"bell": [1, None], "lock": [1, None]}),
        ({1, 2}, {}),
    ],
    ids=["the first", "the second", "both"],
)
async def test_models_are_compared_whose_rows_have_no_labels(
    client: TestClient, wheel: Wheel, labels: dict[str, Any]
) -> None:
    one, other = wheel.desk.model_id(1), wheel.desk.model_id(2)
    dataset = client.get(f"/v1/projects/desk/models/{one}/comparison/{other}").json()["dataset"]
    assert (dataset["records_added"], dataset["labels"]) == (2, labels)


async def test_the_remaining_facts_of_a_deleted_version_are_compared(
    client: TestClient, wheel: Wheel
) -> None:
    await wheel.store.delete(["datasets/ds-1/train.parquet"])
    one, other = wheel.desk.model_id(1), wheel.desk.model_id(2)
    found = client.get(f"/v1/projects/desk/models/{one}/comparison/{other}").json()
    assert found["dataset"]["records_added"] is None
    assert "train.parquet is not in" in found["missing"]["rows"]
    assert found["recipe"] == {"rank": [8, 16]}


async def test_an_unknown_model_and_anothers_are_not_found(client: TestClient, wheel: Wheel) -> None:
    known = wheel.desk.model_id(1)
    for path in (
        "desk/models/none/card", f"shop/models/{known}/card", f"desk/models/{known}/comparison/none",
    ):  # fmt: skip
        answer = client.get(f"/v1/projects/{path}")
        assert (answer.status_code, "is unknown in project" in answer.json()["error"]["message"]) == (
            404,
            True,
        )
