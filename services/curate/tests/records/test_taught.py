"""A teacher's answers through a whole build: trusted least, never held out."""

from __future__ import annotations

import json

from tunewheel_curate.pipeline import build

BELL, HORN = json.dumps({"category": "bell"}), json.dumps({"category": "horn"})
MARK = json.dumps({"label_request": "alarm-1", "taught_by": "some/teacher"}, separators=(",", ":"))


def test_taught_answers_train_are_never_held_out_and_give_way_to_people(records, varied_rows, spec) -> None:
    rows = varied_rows(30)
    taught = [
        {
            "kind": "example", "source_id": f"cmpl-{number}", "record_id": f"rec-taught-{number:02}",
            "input": " ".join(f"t{number}x{word}" for word in range(12)), "output": BELL,
            "trust": "unverified", "attributes": MARK,
        }
        for number in range(12)
    ]  # fmt: skip
    person = taught[0] | {
        "record_id": "rec-person", "output": HORN, "trust": "expert", "attributes": "{}",
    }  # fmt: skip
    contradicts = taught[1] | {"record_id": "rec-other", "source_id": "T", "input": rows[0]["input"]}
    contradicts |= {"output": HORN}
    # the person answered first: a teacher that comes later takes nobody's place
    made = build(records(*rows, person, *taught, contradicts), spec(holdout_fraction=0.5))
    assert made.split.holdout["trust"].unique().to_list() == ["expert"]
    learnt = made.split.train.filter(made.split.train["trust"] == "taught")
    assert learnt.height == 11
    fate = dict(made.lineage.select("record_id", "reason").iter_rows())
    assert (fate["rec-person"], fate["rec-taught-00"]) == (None, "replaced")
    assert fate["rec-other"] == "conflicting_label", "an expert knows better"
