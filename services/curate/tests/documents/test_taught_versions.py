"""Whole builds that ask a teacher over HTTP: what it taught is in the version, the card says who asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.dataset import DatasetManifest
from tunewheel_curate.builds.one_build import run_build
from tunewheel_curate.builds.order import BuildOrder
from tunewheel_curate.records.table import RecordTable, ends_of
from tunewheel_testing.teachers import Teacher

pytestmark = pytest.mark.usefixtures("one_page")

TOPICS = ("lockers", "bells", "refunds", "tyres", "helmets", "deliveries")
INVENTED = "It takes 4711 days, as everybody in Ulaanbaatar knows."


def sop(topic: str) -> str:
    """A document of two sections."""
    return (
        f"# All about {topic}\n\n## Repair\n\nBring your {topic} to the workshop before noon on Tuesdays.\n\n"
        f"## Loss\n\nWhoever loses {topic} writes to the front desk within two weeks of the journey."
    )


def lesson(asked: str) -> str:
    """A good pair, made of the section that was sent, and one that says what no section holds."""
    section = asked.rpartition("\n\n")[2]
    topic = next(topic for topic in TOPICS if topic in section)
    pairs = [(f"What shall I do about {topic}? {section[:5]}", section), (f"How long, {topic}?", INVENTED)]
    return json.dumps({"pairs": [{"question": asked_, "answer": told} for asked_, told in pairs]})


@pytest.fixture
def teacher() -> Iterator[Teacher]:
    one = Teacher()
    one.replies = [lesson]
    yield one
    one.close()


@pytest.fixture
def order(tmp_path: Path, records, varied_rows, spec, teacher: Teacher) -> BuildOrder:
    asked = {"base_url": teacher.url, "model": "some/teacher"}
    questions = {"enabled": True, "method": "teacher", "teacher": asked}
    documents = [
        {
            "kind": "document", "source_id": f"{topic}.md", "record_id": f"rec-{topic}", "group": topic,
            "title": f"All about {topic}", "input": sop(topic), "output": None,
            "sections": json.dumps([
                {"path": [f"All about {topic}", name], "text": text}
                for name, text in (part.split("\n\n") for part in sop(topic).split("\n\n## ")[1:])
            ]),
        }
        for topic in TOPICS
    ]  # fmt: skip
    rows = records(*varied_rows(20), *documents)
    RecordTable(str(tmp_path / "records")).append(rows)
    return BuildOrder(
        table_url=str(tmp_path / "records"),
        spec=spec(formats={"documents": {"questions": questions}}),
        records_upto=ends_of(rows),
        folder="",
        allowed=AllowedSources(hosts="127.0.0.1"),
    )


Built = tuple[DatasetManifest, dict[str, str], str]


@pytest.fixture
def built(order: BuildOrder, tmp_path: Path) -> Callable[[str], Built]:
    """Builds into a folder of that name; returns the manifest, answers by question, and the card."""

    def make(name: str) -> Built:
        folder = tmp_path / name
        folder.mkdir()
        outcome = run_build(order.model_copy(update={"folder": str(folder)}))
        assert outcome.rejections == ()
        assert outcome.manifest is not None
        train = pl.read_parquet(folder / "train.parquet").filter(pl.col("format") == "question")
        turns: list[list[dict[str, Any]]] = train["messages"].to_list()
        answers = {asked["content"]: told["content"] for _, asked, told in turns}
        return outcome.manifest, answers, (folder / "card.md").read_text()

    return make


def test_what_a_teacher_asks_is_trained_and_what_it_invents_is_not(
    built: Callable[[str], Built], teacher: Teacher
) -> None:
    manifest, answers, card = built("first")
    assert len(teacher.asked) == 12
    assert len(answers) == manifest.counts.formats["question"] == 12
    assert all(question.startswith("What shall I do about") for question in answers)
    assert "Bring your bells to the workshop before noon on Tuesdays." in answers.values()
    (drafts,) = [stage for stage in manifest.funnel if stage.stage == "documents.drafts"]
    assert drafts.reasons == {"ungrounded: a figure or name that the section does not hold": 12}
    assert manifest.teacher is not None
    assert (manifest.teacher.sections, manifest.teacher.answered) == (12, 12)
    assert "The teacher some/teacher answered for 12 of 12 sections" in card
    assert "questions are extractive" not in card

    teacher.replies = [503]
    assert built("again") == (manifest, answers, card), "what was taught once stands"
    assert len(teacher.asked) == 12


def test_without_the_teacher_the_sections_ask_themselves_and_the_card_says_so(
    built: Callable[[str], Built], teacher: Teacher
) -> None:
    teacher.close()
    manifest, answers, card = built("alone")
    assert len(answers) == 12
    assert answers['What does "All about bells" say about "Repair"?'] == (
        "Bring your bells to the workshop before noon on Tuesdays."
    )
    assert manifest.teacher is not None
    assert (manifest.teacher.sections, manifest.teacher.answered) == (12, 0)
    assert "The teacher some/teacher answered for 0 of 12 sections" in card
    assert "12 questions are extractive" in card
    assert built("again") == (manifest, answers, card)


def test_a_teacher_that_breaks_off_leaves_the_rest_to_the_sections(
    built: Callable[[str], Built], teacher: Teacher
) -> None:
    teacher.replies = [*[lesson] * 5, 401]
    manifest, answers, card = built("half")
    assert manifest.teacher is not None
    assert (manifest.teacher.sections, manifest.teacher.answered) == (12, 5)
    asked = [question for question in answers if question.startswith("What shall I do about")]
    assert (len(answers), len(asked)) == (12, 5)
    assert "The teacher some/teacher answered for 5 of 12 sections" in card
    assert "7 questions are extractive" in card
