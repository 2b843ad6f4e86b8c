"""Two turns of the help desk: they fill every page."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
from tunewheel_console.pages.addresses import ADDRESSES
from tunewheel_testing.console import Console
from tunewheel_testing.crawl import HEADERS, one_of_each, some_pages
from tunewheel_testing.helpdesk import tell

NODES = 1_500


@pytest.mark.nightly("matrices")
async def test_links_lead_to_a_page_of_each_kind_and_none_is_large(tmp_path: Path):
    console = Console(tmp_path)
    await tell(console)
    with console.serving() as url:
        pages = await some_pages(url)
        assert {path: status for path, status in pages.items() if status != 200} == {}
        one = one_of_each(pages)
        missing = [address.path for address in ADDRESSES if address.path not in one]
        assert missing == [], "let tunewheel_testing.helpdesk tell of something that a page links to"
        async with httpx.AsyncClient(base_url=url, headers=HEADERS) as client:
            for path in one.values():
                text = (await client.get(path)).text
                assert "None</" not in text, path
                assert len(re.findall(r"<[a-z]", text)) <= NODES, path
