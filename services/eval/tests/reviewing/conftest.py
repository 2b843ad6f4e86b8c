"""A judged run whose project asks for a review, and people who give it."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import Event, new_event
from tunewheel_contracts.events.evaluation import ReviewAnswered, ReviewRequested, ReviewSubmitted
from tunewheel_contracts.events.training import TrainCompleted
from tunewheel_contracts.fields import ArtifactRef
from tunewheel_contracts.formats.dataset import ChatExample
from tunewheel_contracts.formats.generations import generations_path
from tunewheel_contracts.formats.review import ReviewSet
from tunewheel_contracts.formats.scorecard import CriterionCheck, Scorecard
from tunewheel_eval.plan import make_plan, pin, read_manifest
from tunewheel_eval.reviewing.answers import Answers
from tunewheel_eval.reviewing.asking import Verdict, ask
from tunewheel_eval.reviewing.cases import Cases
from tunewheel_eval.reviewing.deciding import Reviews
from tunewheel_eval.scorecards import verdict_of
from tunewheel_runtime.store import ObjectStore
from tunewheel_testing.specs import spec_of

Judge = Callable[..., Awaitable[Verdict]]
Open = Callable[..., Awaitable["Desk"]]


@dataclass
class Desk:
    """A review under way, and who may take part."""

    store: ObjectStore
    requested: ReviewRequested
    reviewed: ReviewSet
    reviewers: set[str] = field(default_factory=lambda: {"ada", "bob", "eve"})
    answers: Answers = field(default_factory=Answers)

    @property
    def reviews(self) -> Reviews:
        async def may_review(said: ReviewSubmitted | ReviewAnswered) -> None:
            if said.principal is None or said.principal.name not in self.reviewers:
                raise InvalidEvent(field="principal", reason="lacks the role reviewer")

        return Reviews(self.store, self.answers, may_review)

    def answer(self, name: str, item: int = 0, preference: str = "better", **changes: Any) -> ReviewAnswered:
        """Put one answer on the log."""
        plain = {
            "project": self.requested.project, "run_id": self.requested.run_id,
            "review_id": self.reviewed.review_id, "item_id": self.reviewed.items[item].item_id,
            "reviewer": name, "preference": preference, "principal": {"name": name},
        }  # fmt: skip
        answer = ReviewAnswered.model_validate({**plain, **changes})
        self.answers.apply(new_event(answer, source="/test"))
        return answer

    def answer_all(self, name: str, preference: str = "better", **changes: Any) -> None:
        for number in range(len(self.reviewed.items)):
            self.answer(name, number, preference, **changes)

    def answer_each(self, name: str, letters: str) -> None:
        """Answer with one letter per item: ``b``, ``s`` or ``w``."""
        for number, letter in enumerate(letters):
            self.answer(name, number, {"b": "better", "s": "same", "w": "worse"}[letter])

    def review(self, name: str, verdict: str = "approved", **changes: Any) -> ReviewSubmitted:
        plain = {
            "project": self.requested.project, "run_id": self.requested.run_id, "reviewer": name,
            "verdict": verdict, "principal": {"name": name}, "review_id": self.reviewed.review_id,
        }  # fmt: skip
        return ReviewSubmitted.model_validate({**plain, **changes})

    async def submit(self, name: str, verdict: str = "approved", **changes: Any) -> Sequence[Event]:
        return await self.reviews.settle(self.review(name, verdict, **changes))


@pytest.fixture
def judge(
    make_run: Callable[..., Awaitable[TrainCompleted]], store: ObjectStore, examples: tuple[ChatExample, ...]
) -> Judge:
    """Judge a run as eval does, leaving what eval leaves; return what the figures say."""

    async def judged(
        *, passed: bool = True, run_id: str = "run-1", evaluation: str = "one", **review: Any
    ) -> Verdict:
        event = await make_run(
            spec_of(review={"required": True, **review}),
            run_id=run_id,
            dataset_id=run_id.replace("run", "ds"),
        )
        manifest = await read_manifest(store, event.dataset)
        ref = ArtifactRef(path="regression/r.jsonl", sha256="0" * 64, size_bytes=0)
        plan = make_plan(event, manifest, None, regression=ref)
        plan = plan.model_copy(update={"scorecard_id": f"card-{run_id}-{evaluation}"})
        plan = await pin(store, plan) if evaluation == "one" else plan
        lines = "".join(f"{json.dumps(line)}\n" for one in examples for line in rows(one)).encode()
        await store.put(generations_path(plan.scorecard_id, lines), lines)
        check = CriterionCheck(
            criterion=manifest.spec.criteria[0], observed=0.5, passed=passed, reason="is .5"
        )
        card = Scorecard(
            scorecard_id=plan.scorecard_id, project=plan.project, run_id=plan.run_id,
            model_id=plan.adapter.model_id, dataset_id=plan.dataset_id, criteria_sha256=plan.criteria_sha256,
            contestants=(), comparisons=(), checks=(check,), passed=passed,
        )  # fmt: skip
        return verdict_of(plan, card, await store.put(plan.scorecard_path, card.model_dump_json().encode()))

    return judged


def rows(example: ChatExample) -> list[dict[str, Any]]:
    asked = [message.model_dump(mode="json") for message in example.messages[:-1]]
    plain = {"example_id": example.example_id, "prompt": asked, "expected": example.messages[-1].content}
    return [{**plain, "role": role, "output": f"{role}'s"} for role in ("candidate", "base")]


@pytest.fixture
def open_review(judge: Judge, store: ObjectStore) -> Open:
    """Judge a run and ask people about it."""

    async def opened(**changes: Any) -> Desk:
        requested = await ask(store, await judge(**changes))
        assert isinstance(requested, ReviewRequested)
        assert requested.review_id is not None
        reviewed = await Cases(store).read_set(requested.review_id)
        assert reviewed is not None
        return Desk(store, requested, reviewed)

    return opened
