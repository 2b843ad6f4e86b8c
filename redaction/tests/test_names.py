from __future__ import annotations

import pytest
from tunewheel_redaction.addresses import find_addresses
from tunewheel_redaction.names import find_names, given_names
from tunewheel_redaction.redaction import find_entities


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("Call Anna Berg or Jürgen von der Heide today", ["Anna Berg", "Jürgen von der Heide"]),
        ("Dr. Xylander wrote, Mrs. O'Hara answered", ["Xylander", "O'Hara"]),
        ("my name is jonas müller and it fails", ["jonas müller"]),
        ("Best regards,\nXimena Quark", ["Ximena Quark"]),
        ("Hi Bob, the export fails", ["Bob"]),
        ("It was Anna. I saw Carla Weiss.", ["Anna", "Carla Weiss"]),
        ("for Vide A. Persson's team", ["Vide A. Persson"]),
        ("Мария Иванова не может войти", ["Мария Иванова"]),
        ("Hi Xenzo, the export fails", ["Xenzo"]),
        ("they asked Kastner.", ["Kastner"]),
        ("Kastner, Vasquez and Quarkel agree", ["Kastner", "Vasquez", "Quarkel"]),
        ("we met anna, olga, pavel and quirx", ["anna", "olga", "pavel", "quirx"]),
        ("written by naomi kastner yesterday", ["naomi kastner"]),
        ("Xurka: hello\nAnna: hi", ["Xurka", "Anna"]),
        ("Xurka Qimbel\nAcme Works\n12 Long Lane", ["Xurka Qimbel"]),
        ("Ms. Anna Berg Apt. 12 9 Long Lane", ["Anna Berg"]),
        ("my partner Xurka Qimbel lives there", ["Xurka Qimbel"]),
        ("Ravil G Yefimov and Samoylova", ["Ravil G Yefimov", "Samoylova"]),
    ],
)
def test_names_are_found(text: str, names: list[str]) -> None:
    assert [text[one.start : one.end] for one in find_entities([text], ("PERSON",))[0]] == names


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("name: jane miller", ["jane miller"]),
        ("my name is qirxa", ["qirxa"]),
    ],
)
def test_names_in_small_letters_are_found(text: str, names: list[str]) -> None:
    assert [text[found.start : found.end] for found in find_names(text)] == names


@pytest.mark.parametrize(
    "text",
    [
        "Open Settings > Keys > Move and Edit the Sales Agent",
        "The Merchant Agreement PDF fails on Windows Server 2022",
        "Grafana Loki and Jenkins restart in May; see <PERSON> and Anna@example.com",
        "at Anna Bridge and the Olivia Smith Hospital",
        "WILL THE SERVER RESTART IN APRIL? Mark all as done.",
        "The Heron and the Wren need a new battery; the display says Error",
        "Hi Team, my name is wrong on the invoice. FOR A PARTICULAR PURPOSE",
        "Known Issues\nExport\n12 Windows fail",
        "Steps:\nExpected: it opens\nActual: nothing, apples, pears and plums",
    ],
)
def test_products_menus_and_placeholders_are_no_names(text: str) -> None:
    assert find_names(text) == []


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("Send to 12 Baker Street, London NW1 6XE please", "12 Baker Street, London NW1 6XE"),
        ("Hauptstraße 12, 10115 Berlin", "Hauptstraße 12, 10115"),
        ("1317 Kimberly Way\n Apt. 9\n Bend\n OR 21959.", "1317 Kimberly Way\n Apt. 9\n Bend\n OR 21959"),
        ("lives at Rua Igreja 25 now", "Rua Igreja 25"),
        ("write to P.O. Box 242", "P.O. Box 242"),
        ("at 33 avenue de provence now", "33 avenue de provence"),
        ("lives in Piroska u. 97", "Piroska u. 97"),
        ("ved hersnapvej 18 i dag", "hersnapvej 18"),
        ("Via delle Coste 41", "Via delle Coste 41"),
        ("12 Long Lane\n0171 1234567", "12 Long Lane"),
    ],
)
def test_addresses_are_found(text: str, address: str) -> None:
    assert {text[found.start : found.end] for found in find_addresses(text)} == {address}


@pytest.mark.parametrize(
    "text",
    [
        "Error 404 on Page 3, build 20 of Release 7",
        "Step 2: drive the unit 5 times; then Open Orders",
        "Windows 11 Pro 64 bit, 16 GB",
    ],
)
def test_steps_versions_and_sizes_are_no_addresses(text: str) -> None:
    assert find_addresses(text) == []


def test_the_list_of_given_names_holds_names_of_many_scripts() -> None:
    assert len(given_names()) > 20_000
    assert {"Anna", "Jürgen", "Мария", "Ελένη"} <= given_names()
    assert not {"Will", "Mark", "May", "Server", "Edit"} & given_names()


def test_hostile_texts_take_linear_work() -> None:
    for hostile in ("Anna ", "A", "12 A ", "1 1 ", "name is ", "A-", "1, A\n"):
        find_names(hostile * 10_000)
        find_addresses(hostile * 10_000)
