"""A judge over HTTP compares the rows of an evaluation and the pairs that people reviewed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tunewheel_contracts.errors import InvalidEvent, TransientError
from tunewheel_contracts.events.evaluation import (
    EvalPassed,
    EvalRequested,
    EvalUndecided,
    ReviewAnswered,
    ReviewRequested,
    ReviewSubmitted,
)
from tunewheel_contracts.formats.allowed_sources import AllowedSources
from tunewheel_contracts.formats.generations import Generation
from tunewheel_contracts.formats.judge import JUDGED, JudgeSpec
from tunewheel_contracts.formats.review import ReviewSet
from tunewheel_contracts.formats.scorecard import Role, Scorecard
from tunewheel_contracts.formats.spec import ProjectSpec, ReviewSpec
from tunewheel_eval.errors import PassagesAway
from tunewheel_eval.evaluation import Evaluator
from tunewheel_eval.forgetting import Erased
from tunewheel_eval.judges.asking import CONCURRENT, LONGEST_SECONDS, Judges
from tunewheel_eval.judges.judged import Judgement, ReviewedPairs, judgement
from tunewheel_eval.requests import Asked
from tunewheel_eval.reviewing.cases import Cases, ReviewCase, Submission, review_id_of
from tunewheel_eval.reviewing.drawing import pair_of
from tunewheel_eval.settings import Settings
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.log import lease
from tunewheel_testing.teachers import Teacher

RIGHT = "24 months"
ROOT = Path(__file__).resolve().parents[4]
EXAMPLE = ReviewRequested.model_validate_json(
    (ROOT / "contracts/examples/review.requested/valid/first.json").read_text("utf-8")
)


def prefers(asked: str) -> str:
    """Prefer the answer that is the expert's."""
    first, second = (
        asked.partition(f"<<{name} answer")[2].partition("<<end")[0] for name in ("first", "second")
    )
    better = ("first" if RIGHT in first else "second") if (RIGHT in first) != (RIGHT in second) else "same"
    return json.dumps({"better": better})


@pytest.fixture
def judge() -> Iterator[Teacher]:
    teacher = Teacher()
    teacher.replies = [prefers]
    yield teacher
    teacher.close()


def spec(judge: Teacher, **changes: Any) -> JudgeSpec:
    return JudgeSpec.model_validate({"base_url": judge.url, "model": "m", "min_reviewed": 4} | changes)


def row(number: int, candidate: str, other: str) -> Generation:
    answers = {Role.CANDIDATE: candidate, Role.CHAMPION: other}
    return Generation.model_validate(
        {
            "example_id": f"ex-{number}",
            "prompt": [{"role": "user", "content": f"How long is warranty {number}?"}],
            "expected": RIGHT,
            "answers": {role: {"output": said, "complete": True} for role, said in answers.items()},
        }
    )


ROWS = [row(1, RIGHT, "60"), row(2, RIGHT, "12"), row(3, "60", RIGHT), row(4, RIGHT, RIGHT), row(5, "1", "2")]


async def judged(
    store: ObjectStore,
    spec: JudgeSpec,
    *,
    rows: list[Generation] = ROWS,
    project: str = "desk",
    clock: Callable[[], float] = time.monotonic,
) -> Judgement:
    judges = Judges(store, AllowedSources(hosts="127.0.0.1"), clock)
    return await judgement(
        judges, ReviewedPairs(store), spec, project, rows, np.arange(len(rows)), check=lambda: None
    )


async def review(store: ObjectStore, rows: list[Generation], preferences: list[str], **changes: Any) -> None:
    """Store a review that ada submitted."""
    named = {"project": "desk", "run_id": "run-0"} | changes
    review_id = review_id_of(named["project"], named["run_id"])
    items = [pair for one in rows if (pair := pair_of(one)) is not None]
    names = {"review_id": review_id, "evaluation_id": None, "candidate_id": "c", "other_id": "o"}
    drawn = ReviewSet.model_validate({**named, **names, "items": items})
    await Cases(store).open(drawn)
    said = {**named, "review_id": review_id, "reviewer": "ada"}
    requested = EXAMPLE.model_copy(update={**named, "review_id": review_id})
    ids = tuple(one.item_id for one in items)
    await Cases(store).keep(ReviewCase(requested=requested, rule=ReviewSpec(), drawn=ids))
    answers = [
        ReviewAnswered.model_validate({**said, "item_id": one.item_id, "preference": preference})
        for one, preference in zip(items, preferences, strict=True)
    ]
    submission = Submission(
        review=ReviewSubmitted.model_validate({**said, "verdict": "approved"}), answers=tuple(answers)
    )
    await Cases(store).submit(review_id, submission)


TOLD = [row(n, RIGHT, "60") for n in range(10, 13)] + [row(n, "60", RIGHT) for n in range(13, 16)]
SAID = ["better"] * 3 + ["worse"] * 3


async def test_reviews_of_other_projects_are_read_once_and_an_erasure_is_seen(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads, read = list[str](), store.read

    async def counted(path: str) -> bytes | None:
        reads.append(path)
        return await read(path)

    for number in range(3):
        await review(store, TOLD, SAID, project="other", run_id=f"run-{number}")
    await review(store, TOLD, SAID)
    people = ReviewedPairs(store)
    assert len(await people.of("desk")) == 6
    await review(store, [row(20, RIGHT, "x")], ["better"], run_id="run-1")
    monkeypatch.setattr(store, "read", counted)
    assert len(await people.of("desk")) == 7
    assert await people.of("nobody") == []
    others = {review_id_of("other", f"run-{number}") for number in range(3)}
    assert not any(name in path for name in others for path in reads)
    assert sum(path.endswith("case.json") for path in reads) == 1
    await store.delete([f"reviews/{review_id_of('desk', 'run-0')}.json"])
    assert len(await people.of("desk")) == 1


async def test_without_reviewed_pairs_the_judge_decides_nothing(judge: Teacher, store: ObjectStore) -> None:
    found = await judged(store, spec(judge))
    assert found.metrics == {}
    assert "review" in found.not_yet[JUDGED]
    assert found.report is not None
    assert (found.report.rows, found.report.equal, found.report.against) == (5, 1, "champion")
    assert found.report.preference == pytest.approx((2 * 1 + 0 + 2 * 0.5) / 5)
    assert (found.report.reviewed, found.report.agreement) == (0, None)
    assert len(judge.asked) == 2 * 4  # equal answers are not asked about


async def test_reviewed_pairs_of_the_project_say_how_far_the_judge_is_right(
    judge: Teacher, store: ObjectStore
) -> None:
    await review(store, TOLD, SAID)
    await review(store, TOLD, ["worse"] * 6, project="other", run_id="run-9")
    found = await judged(store, spec(judge))
    assert found.not_yet == {}
    assert found.report is not None
    assert (found.report.reviewed, found.report.agreement) == (6, 1.0)
    figure = found.metrics[JUDGED].figure(alpha=0.05)
    assert 0.0 <= figure.low < 0.5 < figure.figure < figure.high

    contrary = Teacher()
    contrary.replies = ['{"better": "first"}']
    always_first = await judged(store, spec(contrary, model="other"))
    contrary.close()
    assert always_first.report is not None
    assert (always_first.report.preference, always_first.report.agreement) == (0.5, 0.0)


async def test_what_was_told_is_not_asked_again_unless_the_judge_changed(
    judge: Teacher, store: ObjectStore
) -> None:
    await review(store, TOLD, SAID)
    first = await judged(store, spec(judge))
    judge.asked.clear()
    again = await judged(store, spec(judge), rows=[*ROWS, row(6, RIGHT, "x")])
    assert again.report is not None
    assert (again.report.changed, len(judge.asked)) == (None, 2 * (10 + 1))

    judge.replies = ['{"better": "same"}']
    changed = await judged(store, spec(judge))
    assert first.report is not None
    assert changed.report is not None
    assert (changed.report.changed, changed.report.preference) == (9, 0.5)
    assert changed.report.agreement == 0.0
    assert changed.report.judge == first.report.judge


async def test_replies_that_cannot_be_read_are_ties_and_many_of_them_decide_nothing(
    judge: Teacher, store: ObjectStore
) -> None:
    await review(store, TOLD, SAID)
    judge.replies = [lambda asked: "no" if "warranty 1?" in asked else prefers(asked)]
    found = await judged(store, spec(judge))
    assert found.report is not None
    assert (found.report.unread, found.report.preference) == (1, pytest.approx((1 + 3 * 0.5) / 5))
    assert JUDGED in found.metrics
    judge.replies = [lambda asked: 413 if "warranty 2?" in asked else "Both are fine."]
    found = await judged(store, spec(judge, prompt="another"))
    assert found.metrics == {}
    assert "form" in found.not_yet[JUDGED]


@pytest.mark.parametrize("another", [False, True])
async def test_a_judge_that_answers_just_in_time_lets_others_go_on_and_is_asked_for_the_rest(
    judge: Teacher, store: ObjectStore, another: bool
) -> None:
    many = [row(n, RIGHT, "x") for n in range(60)]
    before = await judged(store, spec(judge), rows=many[:8])
    if another:
        judge.replies = ['{"better": "same"}']
    judge.asked.clear()
    lasts = 59.0 / CONCURRENT

    waits, asked = 0, 0
    found: Judgement | None = None
    while found is None:
        asked = len(judge.asked)
        try:
            found = await judged(store, spec(judge), rows=many, clock=lambda: lasts * len(judge.asked))
        except PassagesAway as slow:
            await slow.ask_again()
            waits += "pairs are left" in str(slow)
        assert lasts * (len(judge.asked) - asked) <= LONGEST_SECONDS + 2 * 59
    assert waits > 1
    assert before.report is not None
    assert found.report is not None
    assert (found.report.preference, found.report.changed) == ((0.5, 8) if another else (1.0, None))
    assert len(judge.asked) <= 2 * (len(many) + 20), "each pair once, and at most twenty to see who answers"


@pytest.mark.parametrize("known", [1, 4, 9])
async def test_one_answer_that_differs_does_not_make_another_judge(
    judge: Teacher, store: ObjectStore, known: int
) -> None:
    rows = [row(n, RIGHT, "x") for n in range(known)]
    await judged(store, spec(judge), rows=rows)
    judge.replies = [lambda asked: '{"better": "same"}' if "warranty 0?" in asked else prefers(asked)]
    again = await judged(store, spec(judge), rows=rows)
    assert again.report is not None
    assert (again.report.changed, again.report.preference) == (None, 1.0)


@pytest.mark.parametrize("known", [2, 4])
async def test_two_answers_of_a_few_that_differ_make_another_judge(
    judge: Teacher, store: ObjectStore, known: int
) -> None:
    rows = [row(n, RIGHT, "x") for n in range(known)]
    await judged(store, spec(judge), rows=rows)
    judge.replies = [lambda asked: prefers(asked) if "warranty 3?" in asked else '{"better": "same"}']
    again = await judged(store, spec(judge), rows=rows)
    assert again.report is not None
    assert again.report.changed == min(known, 3)


@pytest.mark.parametrize("status", [500, 401])
async def test_while_the_judge_is_away_the_evaluation_waits_and_keeps_what_was_told(
    judge: Teacher, store: ObjectStore, status: int
) -> None:
    few = [row(n, RIGHT, "x") for n in range(8)]
    judge.replies = [lambda asked: status if "warranty 7?" in asked else prefers(asked)]
    with pytest.raises(PassagesAway, match="m does not answer") as away:
        await judged(store, spec(judge), rows=few)
    assert away.value.field == "dataset.spec.evaluation.judge"
    judge.replies = [status]
    with pytest.raises(TransientError):
        await away.value.ask_again()
    judge.replies = [prefers]
    await away.value.ask_again()
    judge.asked.clear()
    await judged(store, spec(judge), rows=few)
    assert (
        len(judge.asked) == 2 * 8
    )  # four were told before, and asked again to see that it is the same judge


async def test_a_host_that_the_operator_does_not_list_is_not_asked(
    judge: Teacher, store: ObjectStore
) -> None:
    with pytest.raises(InvalidEvent, match="TUNEWHEEL_SPEC_HOSTS"):
        await judged(store, spec(judge, base_url="http://elsewhere.example/v1"))
    assert judge.asked == []


def asked_of(judge: Teacher, metric: str, **bounds: float) -> ProjectSpec:
    told = {
        "project": "desk",
        "base_model": "tiny",
        "task": {"system_prompt": "s", "max_output_tokens": 12},
        "evaluation": {"judge": spec(judge).model_dump(mode="json")},
        "criteria": [{"metric": metric, **bounds}],
    }
    return ProjectSpec.model_validate(told)


async def evaluator_in(folder: Path, store: ObjectStore, regression_set: Path) -> Evaluator:
    settings = Settings(cache_dir=folder / "cache", eval_regression_set=regression_set, eval_threads=1)
    evaluator = Evaluator(store, settings.model_copy(update={"spec_hosts": "127.0.0.1"}), Erased())
    await evaluator.prepare()
    return evaluator


@pytest.mark.usefixtures("measured_here")
async def test_a_verdict_that_does_not_rest_on_the_judge_does_not_wait_for_it(
    judge: Teacher, store: ObjectStore, real_run: Any, tmp_path: Path, regression_set: Path
) -> None:
    judge.replies = [503]
    run = await real_run(asked_of(judge, "answer_length", maximum=1e6))
    verdict = await (await evaluator_in(tmp_path, store, regression_set)).evaluate(run, None, lease())
    assert isinstance(verdict, EvalPassed)
    card = Scorecard.model_validate_json(await store.get(verdict.scorecard))
    assert card.judge is None
    assert "does not answer" in (card.not_judged or "")
    assert b"does not answer" in (await store.read(f"scorecards/{card.scorecard_id}.html") or b"")


@pytest.mark.usefixtures("measured_here")
async def test_a_criterion_on_the_judge_is_undecided_until_people_compared(
    judge: Teacher, store: ObjectStore, real_run: Any, tmp_path: Path, regression_set: Path
) -> None:
    run = await real_run(asked_of(judge, JUDGED, minimum=0.01))
    evaluator = await evaluator_in(tmp_path, store, regression_set)

    judge.replies = [503]
    for _ in range(Settings().eval_attempts + 1):
        with pytest.raises(PassagesAway):  # an outage uses up no attempt
            await evaluator.evaluate(run, None, lease())
    judge.replies = ['{"better": "same"}']
    verdict = await evaluator.evaluate(run, None, lease())
    assert isinstance(verdict, EvalUndecided)
    assert "people compared 0 pairs" in verdict.reasons[0]
    card = Scorecard.model_validate_json(await store.get(verdict.scorecard))
    assert card.judge is not None
    assert (card.judge.against, card.judge.rows, card.judge.preference) == ("base", 6, 0.5)
    assert b"<h2>Judge</h2>" in (await store.read(f"scorecards/{card.scorecard_id}.html") or b"")

    await review(store, TOLD, ["same"] * 6)
    again = EvalRequested(project="desk", run_id=run.run_id, request="people compared")

    async def anybody(_: EvalRequested) -> None: ...

    _, passed = await evaluator.evaluate_again(Asked(again, None, anybody), lease())
    assert isinstance(passed, EvalPassed)
    assert passed.checks[0].observed == 0.5
