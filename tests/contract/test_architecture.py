"""The pictures of docs/architecture.md are those that the code gives."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/architecture.py"
_spec = importlib.util.spec_from_file_location("architecture", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
architecture = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(architecture)


def test_the_pictures_on_the_page_are_fresh() -> None:
    assert architecture.main(["--check"]) == 0


@pytest.mark.parametrize("picture", [name for name in architecture.PICTURES if name != "turns"])
def test_a_picture_that_the_page_lost_is_drawn_again(picture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = architecture.PAGE.read_text("utf-8")
    before, mark, after = page.partition(f"<!-- drawn: {picture} -->\n")
    lost = before + mark + "gone\n<!-- end -->" + after.partition("<!-- end -->")[2]
    monkeypatch.setattr(architecture, "PICTURES", {picture: architecture.PICTURES[picture]})
    assert lost != page
    assert architecture.drawn(lost) == page
    with pytest.raises(ValueError, match=picture):
        architecture.drawn(page.replace(mark, ""))
