from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tunewheel_curate.cleaning.quotation import without_quotation

OWN = "The bell is silent again.\nWhat now?"


@pytest.mark.parametrize(
    "tail",
    [
        "On Mon, 5 Jan 2026 at 10:02, Help Desk <help@example.com> wrote:\n> Please oil it.\n> Regards",
        "On Mon, 5 Jan 2026 at 10:02, Help Desk\n<help@example.com> wrote:\n\nPlease oil it.",
        "Am 05.01.2026 um 10:02 schrieb Help Desk:\n> Bitte ölen.",
        "Le lun. 5 janv. 2026 à 10:02, Help Desk a écrit :\n> Huilez-la.",
        "-----Original Message-----\nFrom: Help\nPlease oil it.",
        "From: Help Desk\nSent: Monday\nTo: Me\nSubject: Bell\n\nPlease oil it.",
        "Von: Help Desk\nGesendet: Montag\nAn: Mich\nBetreff: Klingel\n\nBitte ölen.",
        "> Please oil it.\n> Regards",
        f"{'_' * 32}\nFrom: Help Desk\nSent: Monday\nTo: Me\nSubject: Bell\n\nPlease oil it.",
        "*From:* Help Desk\n*Sent:* Monday\n*To:* Me\n*Subject:* Bell\n\nPlease oil it.",
        "De : Help Desk\nEnvoyé : lundi\nÀ : Moi\nObjet : Sonnette\n\nHuilez-la.",
        "发件人: Help Desk\n发送时间: 2026年1月5日\n收件人: Me\n主题: Bell\n\nPlease oil it.",
        "On Mon, 5 Jan 2026 at 10:02, The Help Desk of Larkspur Mobility\n"
        "<help-desk-of-the-north@larkspur-mobility.example.com>\nwrote:\n\nPlease oil it.",
        "2026年1月5日(月) 10:02 Help Desk <help@example.com>:\n\n> Please oil it.",
        "##- Please type your reply above this line -##\n\nPlease oil it.",
        "Help Desk <help@example.com> 于2026年1月5日周一 10:02写道:\n\nPlease oil it.",
        "Op 5 jan. 2026 om 10:02 heeft Help <help@example.com> het volgende geschreven:\n> Olie hem.",
        "Od: Help Desk\nWysłano: 5 stycznia 2026\nDo: Me\nTemat: Bell\n\nPlease oil it.",
        "On Mon, 5 Jan 2026 at 10:02, Help <help@example.com> wrote:\n> Please oil it, and then\nring\n> it.",
    ],
)
def test_what_was_quoted_is_cut(tail: str) -> None:
    assert without_quotation(f"{OWN}\n\n{tail}") == OWN


@pytest.mark.parametrize(
    "head",
    [
        "On Monday, the help desk wrote:\n> Please oil it.",
        "##- Please type your reply above this line -##",
        "Hi,\nOn Mon, 5 Jan 2026 at 10:02, Help Desk <help@example.com> wrote:\n> Please oil it.",
        f"{'_' * 32}\nFrom: Me\nSent: Monday\nTo: Help Desk\nSubject: Bell",
    ],
)
def test_an_answer_below_its_quotation_is_kept(head: str) -> None:
    assert without_quotation(f"{head}\n\n{OWN}").removeprefix("Hi,\n\n") == OWN


@pytest.mark.parametrize(
    "text",
    [
        OWN,
        "From: where do I order?\nTo be honest I forgot.",
        "On the bell it says:\nring me",
        "On Monday I called you.\nYou were nice, and somebody\nwrote:\noil it",
        "Write to help <help@example.com>:\nthat is what the bell says",
        "The log says\n__________\nwhat now?",
        "It reads > 5 volts\n> is what I see",
        "> all of it is quoted\n> and nothing else",
        "",
        "The server logs this:\n\nFrom: a\nTo: b\nDate: 5 Jan 10:02\nSubject: c\ndenied. How do I allow it?",
        "Mails like this are denied.\nFrom: a\nTo: b\nDate: 5 Jan\nSubject: c\nHow do I allow it?",
        "Mails like this are denied.\n\nFrom: a\nTo: b\nSubject: c\nHow do I allow it?",
        "When I run\n> pip install foo\n> error: no module\nit stops. Why?",
        "It stops. My console shows\n\n> npm ci\n> npm ERR! code 1",
        "It works, but see below\n\n-----Original Message-----\nOil it.\n\nMy question: why does it beep?",
        "Meine Antworten stehen unten.\n\n-----Ursprüngliche Nachricht-----\nÖlen?\nJa, und nun?",
        "On 3 May the technician wrote:\noil it\n\nWhat is next?",
        "The bell rang.\n\nOn Monday your colleague wrote:\noil it\n\nWhat is next?",
        "Can you help him?\n\n---------- Forwarded message ---------\nFrom: B <b@b.example>\n"
        "Date: Mon, 5 Jan 2026\nTo: a\nSubject: c\n\nWhy does it beep?",
        "FYI\n\nFrom: B\nSent: Monday\nTo: a\nSubject: c\n\nWhy does it beep?",
        "On Mon, 5 Jan 2026 at 10:02, Help <h@b.example> wrote:\n> Oil it?\nTwice.\n> Which bell?\nThe left.",
        "Hi,\nOn Mon, 5 Jan 2026 at 10:02, Help <h@b.example> wrote:\n> Oil?\n\nTwice. It is dry.\n\n> Help",
    ],
)
def test_what_is_no_quotation_stays(text: str) -> None:
    assert without_quotation(text) == text


@given(st.text(max_size=2_000))
def test_nothing_is_ever_added_and_nothing_becomes_empty(text: str) -> None:
    cut = without_quotation(text)
    assert set(cut.split("\n")) <= {line.strip() for line in text.split("\n")} | set(text.split("\n"))
    assert bool(cut.strip()) == bool(text.strip())


@pytest.mark.parametrize(
    "hostile",
    [
        "On " * 300_000,
        ">" * 1_000_000,
        "on a\n" * 200_000,
        "From:\n" * 200_000,
        "On " + "wrote" * 200_000 + ":",
        "On 5 Jan 2026 at 10:02, x <a@b.example> wrote:\n" + "> a\nb\n" * 100_000,
        "<a@b.c> " * 50 + ":\n" * 100_000,
    ],
)
def test_hostile_text_is_read_in_one_pass(hostile: str) -> None:
    assert len(without_quotation(hostile)) <= len(hostile)
