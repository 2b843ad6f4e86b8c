"""What the monitor takes from whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tunewheel_contracts import topics
from tunewheel_contracts.errors import InvalidEvent
from tunewheel_contracts.event import new_event
from tunewheel_contracts.events.evaluation import AnswersCompared
from tunewheel_contracts.events.turns import CompletionsChosen
from tunewheel_contracts.identity import content_sha256
from tunewheel_contracts.principal import Principal
from tunewheel_monitor.handlers import register
from tunewheel_runtime.identity.access import Access
from tunewheel_runtime.settings import HttpSettings


class Subscribed:
    """The handlers by topic, and callers whom a file of keys names."""

    def __init__(self, keys: Path) -> None:
        settings = HttpSettings(identity="required", api_keys_file=keys)
        self.access = Access(settings, warn=lambda *_: None)
        self.handlers: dict[str, Any] = {}
        self.asks = False
        self.doors = self

    def ask_who(self) -> None:
        self.asks = True

    def on(self, topic: Any, **_: Any) -> Any:
        return lambda handler: self.handlers.setdefault(topic.name, handler)

    on_batch = on

    def new(self, data: Any, *, cause: Any) -> Any:
        return new_event(data, source="/test", cause=cause)


@pytest.fixture
def service(tmp_path: Path) -> Subscribed:
    roles = {"ann": "reviewer", "vic": "viewer"}
    keys = {name: {"sha256": content_sha256(name.encode()), "roles": [role]} for name, role in roles.items()}
    (tmp_path / "keys.yaml").write_text(yaml.safe_dump({"keys": keys}))
    made: Any = Subscribed(tmp_path / "keys.yaml")
    register(made, None, None)  # type: ignore[arg-type]
    return made


def compared(**told: Any) -> Any:
    names = {"project": "desk", "request_id": "compare-1", "model_id": "desk-2", "completion_id": "c-1"}
    return new_event(AnswersCompared(**(names | {"preference": "worse"} | told)), source="/test")


async def test_only_reviewers_ask_for_labels(service: Subscribed) -> None:
    handle = service.handlers[topics.COMPLETIONS_CHOSEN.name]
    place = {"completion_id": "c-1", "partition": 0, "offset": 0}
    for name in ("vic", "nobody"):
        data = CompletionsChosen(
            project="desk", request_id="labels-chosen-1", completions=[place], principal={"name": name}
        )
        with pytest.raises(InvalidEvent) as refused:
            await handle(new_event(data, source="/test"))
        assert refused.value.field.startswith("principal")


async def test_only_reviewers_and_judges_compare_answers(service: Subscribed) -> None:
    assert service.asks
    handle = service.handlers[topics.ANSWERS_COMPARED.name]
    asked = compared(reviewer="ann", principal=Principal(name="ann"))
    score = (await handle(asked)).data
    assert (score.of, score.completion_id, score.preference, score.judge) == (
        "comparison",
        "c-1",
        "worse",
        None,
    )
    assert (score.scored, score.at) == (asked.id, asked.time)
    assert (await handle(compared(judge="a" * 64))).data.judge == "a" * 64
    for nobody in (Principal(name="vic"), Principal(name="eve"), None):
        with pytest.raises(InvalidEvent, match="principal"):
            await handle(compared(reviewer="ann", principal=nobody))
