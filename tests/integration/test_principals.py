"""Who may review, and who may command, on a real broker: by a file of keys that changes in between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tunewheel_contracts import topics
from tunewheel_contracts.event import Envelope, new_event
from tunewheel_contracts.events.evaluation import EvalPassed, ReviewSubmitted
from tunewheel_contracts.events.training import TrainAction, TrainControl
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.principal import Principal
from tunewheel_eval.main import make_app as make_eval
from tunewheel_eval.settings import Settings as EvalSettings
from tunewheel_registry.main import make_app as make_registry
from tunewheel_registry.settings import Settings as RegistrySettings
from tunewheel_runtime.service import Service
from tunewheel_testing.command_keys import CommandKeys
from tunewheel_testing.specs import declared
from tunewheel_train.main import make_app as make_train
from tunewheel_train.runs.controls import Controls
from tunewheel_train.settings import Settings as TrainSettings

from .bus import Bus, running, until
from .verdicts import adapter_of, passed

pytestmark = pytest.mark.integration


class House:
    """Settings of services that ask who, and the file of keys that they read."""

    def __init__(self, kafka: str, folder: Path) -> None:
        self._keys = folder / "keys.yaml"
        self._settings: dict[str, Any] = {
            "bootstrap_servers": kafka, "store_url": (folder / "store").as_uri(),
            "cache_dir": folder / "cache", "identity": "required", "api_keys_file": self._keys,
        }  # fmt: skip
        self.signing = CommandKeys(folder)

    def settings(self, service: str) -> dict[str, Any]:
        return self._settings | self.signing.settings(service)

    def allow(self, **roles: str) -> None:
        keys = {
            name: {"sha256": content_sha256(name.encode()), "roles": [role]} for name, role in roles.items()
        }
        self._keys.write_text(yaml.safe_dump({"keys": keys}))


@pytest.fixture
def house(kafka: str, tmp_path: Path) -> House:
    return House(kafka, tmp_path)


def reviewed(project: str, n: int, by: str) -> Envelope[EvalPassed]:
    data = passed(project, n).data
    changes = {"reviewed_by": "Ada", "principal": Principal(name=by)}
    return new_event(data.model_copy(update=changes), source="/test")


def control(project: str, run: str, by: str | None) -> Envelope[TrainControl]:
    principal = None if by is None else Principal(name=by)
    data = TrainControl(
        project=project, run_id=run, action=TrainAction.PAUSE, request="one", principal=principal
    )
    return new_event(data, source="/test")


async def test_a_model_is_promoted_on_the_review_of_a_reviewer_alone(
    kafka: str, house: House, project: str
) -> None:
    house.allow(ada="reviewer", eve="viewer")

    def ours(event: Envelope[Any]) -> bool:
        return event.project == project

    async with Bus(kafka) as bus:
        async with running(make_registry(RegistrySettings(**house.settings("registry")))):
            await bus.publish(declared(project), reviewed(project, 1, "eve"), reviewed(project, 2, "ada"))
            steps = await bus.collect(topics.MODEL_PROMOTED, 2, where=ours)
            assert {step.data.model_id for step in steps} == {adapter_of(project, 2).model_id}
            (letter,) = await bus.dead_letters("eval.passed", 1, about=project)
            assert letter.field == "principal"
            assert letter.reason.startswith(f"eve lacks the role reviewer in project '{project}'")
        house.allow(eve="viewer")  # before the accepted verdict is delivered again
        async with running(make_registry(RegistrySettings(**house.settings("registry")))):
            await bus.publish(reviewed(project, 2, "ada"), reviewed(project, 3, "ada"))
            letters = await bus.dead_letters("eval.passed", 2, about=project)
            steps = await bus.collect(topics.MODEL_PROMOTED, 2, where=ours)
    assert b"run-3" in letters[1].value, "the one of run 2 had been accepted"
    assert "lacks the role reviewer" in letters[1].reason
    assert steps[-1].data.to_stage.value == "production"


async def test_a_review_is_a_dead_letter_once_its_reviewer_lost_the_key(
    kafka: str, house: House, project: str
) -> None:
    house.allow(ada="reviewer")
    review = ReviewSubmitted(
        project=project, run_id=f"run-{project}", reviewer="Ada", verdict="approved",
        principal=Principal(name="ada"),
    )  # fmt: skip
    async with Bus(kafka) as bus:
        await bus.publish(house.signing.sign(new_event(review, source="/test")))
        house.allow(eve="viewer")
        async with running(make_eval(EvalSettings(**house.settings("eval")))):
            (letter,) = await bus.dead_letters("review.submitted", 1, about=project)
    assert letter.field == "principal"
    assert "ada lacks the role reviewer" in letter.reason


async def test_commands_to_runs_count_or_not_as_they_did_when_they_were_read_first(
    kafka: str, house: House, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    obeyed: list[str] = []
    apply = Controls.apply

    def told(controls: Controls, event: Envelope[TrainControl]) -> None:
        obeyed.extend([event.data.run_id] if event.project == project else [])
        apply(controls, event)

    def sent(run: str, by: str | None) -> Envelope[TrainControl]:
        return house.signing.sign(control(project, run, by))

    def train() -> Service:
        return make_train(TrainSettings(**house.settings("train")))

    monkeypatch.setattr(Controls, "apply", told)
    house.allow(olga="operator", eve="viewer")
    async with Bus(kafka) as bus:
        async with running(train()):
            await bus.publish(sent("by-eve", "eve"), sent("by-nobody", None))
            await bus.publish(sent("by-olga", "olga"))
            letters = await bus.dead_letters("train.control", 2, about=project)
            await until(lambda: obeyed == ["by-olga"])
        assert {letter.field for letter in letters} == {"principal"}
        obeyed.clear()
        house.allow(eve="operator")
        async with running(train()):  # whose replay is complete
            assert obeyed == ["by-olga"]
            copy = replace(sent("by-olga", "olga"), source="/delivered-again")
            await bus.publish(copy, sent("by-eve-since", "eve"))
            await until(lambda: obeyed == ["by-olga", "by-olga", "by-eve-since"])
