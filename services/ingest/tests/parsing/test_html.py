from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_ingest.parsing.document import Unreadable
from tunewheel_ingest.parsing.formats.html import parse_html

PAGE = """<!DOCTYPE html>
<html><head><title>Shop | Battery</title><style>p { color: red }</style>
<script>steal(document.cookie)</script></head>
<body onload="steal()">
<header>Logo</header><nav><a href="/">Home</a></nav>
<!-- a note -->
<h1>Battery_2 *guide*</h1>
<p>Charge <b>one</b> night, see <a href="javascript:steal()">here</a> or <a href="/more">there</a>.
<img src="data:image/png;base64,AAAA" alt="a light"></p>
<ul><li>Plug in<ul><li>firmly</li></ul></li><li>Wait</li></ul>
<table><tr><th>light</th><th>means</th></tr><tr><td>red</td><td>empty</td></tr></table>
<pre><code class="language-python">charge()
# done</code></pre>
<script>more()</script><noscript>enable it</noscript><p hidden>unseen</p><p aria-hidden="true">unseen</p>
<iframe src="http://evil"></iframe><form><input value="x"><button>Send</button></form>
<p>\u05e9\u05dc\u05d5\u05dd &amp; \U0001f469\u200d\U0001f527 &lt;b&gt;</p>
<footer>Imprint</footer>
</body></html>"""


def test_the_readable_part_is_kept_with_its_structure() -> None:
    parsed = parse_html(PAGE)
    assert parsed.markdown == (
        "# Battery_2 *guide*\n\n"
        "Charge **one** night, see here or [there](/more).\na light\n\n"
        "- Plug in\n  - firmly\n- Wait\n\n"
        "| light | means |\n| --- | --- |\n| red | empty |\n\n"
        "```python\ncharge()\n# done\n```\n\n"
        "\u05e9\u05dc\u05d5\u05dd & \U0001f469\u200d\U0001f527 <b>"
    )
    assert parsed.title == "Battery_2 *guide*"
    assert [s.kind for s in parsed.sections] == ["prose", "table", "code", "prose"]
    assert {s.path for s in parsed.sections} == {("Battery_2 *guide*",)}


def test_nothing_that_runs_is_left() -> None:
    text = parse_html(PAGE).markdown.lower()
    for word in ("steal", "more()", "color", "evil", "unseen", "logo", "home", "imprint", "enable", "a note"):
        assert word not in text, word


def test_links_within_the_page_are_text_and_permalinks_go() -> None:
    heading = '<h2 id="a"><a href="#a">The <code>#[doc]</code> part</a><a href="#a">\u00b6</a></h2>'
    page = f'{heading}<p>x <a href="#b">y</a>'
    parsed = parse_html(page)
    assert parsed.markdown == "## The `#[doc]` part\n\nx y"
    assert parsed.title == "The #[doc] part"


def test_the_title_stands_in_for_a_missing_heading() -> None:
    assert parse_html("<title> A \n b </title><p>x</p>").title == "A b"


@pytest.mark.parametrize("wrap", ["<main>{}</main>", "<article>{}</article>", '<div role="main">{}</div>'])
def test_the_main_part_is_taken_where_the_page_names_it(wrap: str) -> None:
    assert parse_html(f"<div>menu</div>{wrap.format('<p>text</p>')}").markdown == "text"


def test_an_empty_main_part_and_a_form_around_the_page_hide_nothing() -> None:
    assert parse_html("<main> </main><h1>Real</h1><p>text").markdown == "# Real\n\ntext"
    page = "<form id=aspnetForm><h1>Policy</h1><p>Read it.</p><form><label>Search</label></form></form>"
    assert parse_html(page).markdown.startswith("# Policy\n\nRead it.")
    assert "Search" not in parse_html(page.replace("</p><form>", "</p></form><form>")).markdown


def test_a_summary_stands_apart_from_its_details_and_a_power_from_its_base() -> None:
    page = "<details><summary>More</summary>at 10<sup>6</sup> K, on the 1<sup>st</sup> day</details>"
    assert parse_html(page).markdown == "More\n\nat 10^6 K, on the 1st day"


def test_the_declared_encoding_is_used() -> None:
    page = '<meta charset="windows-1251"><p>\u043f\u0440\u0438\u0432\u0435\u0442</p>'
    assert parse_html(page.encode("cp1251")).markdown == "\u043f\u0440\u0438\u0432\u0435\u0442"


def test_a_nest_without_end_is_refused_not_followed() -> None:
    with pytest.raises(Unreadable, match="is nested too deeply"):
        parse_html("<div>" * 5_000 + "x")


@given(st.text(alphabet=st.sampled_from("<>/!-&;=\"' abpreulitdscript\n")))
def test_any_tag_soup_is_read_or_refused(soup: str) -> None:
    with contextlib.suppress(Unreadable):
        assert "<script" not in parse_html(f"<p>{soup}").markdown.replace("&lt;", "")
