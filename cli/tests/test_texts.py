"""What others wrote, on the terminal."""

from __future__ import annotations

import pytest
from tunewheel_cli.exits import MOST_FAULTS, leave
from tunewheel_cli.texts import printable
from tunewheel_contracts.errors import InvalidSpec


@pytest.mark.parametrize("control", ["\x1b]0;title\x07", "\r", "\x9b2J", "\b", "\u202egnp.exe", "\x7f"])
def test_what_would_control_the_terminal_is_not_printed(
    control: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        leave(InvalidSpec.of([("name", f"is {control}"), ("other", control)]))
    assert "\ufffd" in printable(control)
    assert not {*control} & {*capsys.readouterr().err} & {*"\x1b\x07\r\x9b\b\u202e\x7f"}


@pytest.mark.parametrize("text", ["a\u00a0€\n\tb", "👩\u200d💻", "\u0632\u200c\u0647", "日本"])
def test_what_people_write_is_printed_as_it_is(text: str) -> None:
    assert printable(text) == text


def test_of_very_many_faults_the_first_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        leave(InvalidSpec.of([(f"f{n}", "is wrong") for n in range(5_000)]))
    told = capsys.readouterr().err.splitlines()
    assert (len(told), told[-1].strip()) == (MOST_FAULTS + 2, f"and {4_999 - MOST_FAULTS:,} more")
