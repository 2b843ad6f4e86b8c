"""Who is told of a review that waits, and what."""

from __future__ import annotations

import json
from typing import Any

from aiokafka import TopicPartition
from tunewheel_contracts.event import new_event
from tunewheel_eval.reviewing.notices import Notices, notice_of
from tunewheel_eval.settings import Settings
from tunewheel_runtime.jobs import Lease
from tunewheel_runtime.webhooks import Notice, Webhook


class Telling(Webhook):
    """Notes whom it told."""

    def __init__(self) -> None:
        super().__init__(hosts=(), secret="")
        self.told: list[str] = []

    async def tell(self, notice: Notice, url: str) -> bool:
        self.told.append(url)
        return True


async def test_only_a_review_that_waits_is_told_and_only_to_whom_its_spec_names(open_review: Any) -> None:
    url, lease = "https://hooks.example.com/", Lease(TopicPartition("review.requested", 0))
    desk = await open_review(webhook=url)
    quiet = await open_review(run_id="run-2")
    telling = Telling()
    notices = Notices(desk.store, telling, Settings())
    for requested in (quiet.requested, desk.requested, desk.requested.model_copy(update={"review_id": None})):
        await notices.tell(new_event(requested, source="/test"), lease)
    assert telling.told == [url]
    await desk.submit("ada", "rejected")
    await notices.tell(new_event(desk.requested, source="/test"), lease)
    assert telling.told == [url]


async def test_ids_and_counts_are_told_and_no_customer_s_word(open_review: Any) -> None:
    desk = await open_review()
    event = new_event(desk.requested, source="/tunewheel/eval")
    body = notice_of(event, page=Settings(console_url="https://console/").page("reviews/desk/r")).body()
    told = json.loads(body)
    assert (told["type"], told["subject"]) == ("review.waiting", "run-1")
    assert told["data"] == {
        "project": "desk", "run_id": "run-1", "review_id": event.data.review_id, "items": 6, "reviewers": 1,
        "url": "https://console/reviews/desk/r",
    }  # fmt: skip
    assert b"parcel" not in body
