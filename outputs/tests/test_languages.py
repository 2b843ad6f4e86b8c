from __future__ import annotations

import pytest
from tunewheel_contracts.formats.recognised import LANGUAGES
from tunewheel_outputs.languages import ALIKE, _identifier, language_of

ENGLISH = "The bell of my bicycle does not ring any more, and I would like to have a new one."
GERMAN = "Die Klingel an meinem Fahrrad läutet nicht mehr, ich hätte gern eine neue."
ARABIC = "جرس دراجتي لا يعمل منذ يوم الأحد وأود الحصول على جرس جديد من فضلكم"


def test_languages_are_told_apart() -> None:
    assert [language_of(text) for text in (ENGLISH, GERMAN, ARABIC)] == ["en", "de", "ar"]
    assert language_of("ok 🚲 4711") is None


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("المطبعة لا تعمل منذ الأمس وتظهر رسالة خطأ", "ar"),
        ("打印机从昨天开始就不工作了，一直显示错误信息，请帮忙处理一下。", "zh"),  # noqa: RUF001
        ("プリンタが昨日から動きません。", "ja"),
        ("Pisač ne radi od jučer i prikazuje poruku o grešci na ekranu.", "hr"),
        ("Printer saya tidak berfungsi sejak kemarin dan menampilkan pesan kesalahan.", "id"),
        ("ERROR java.lang.NullPointerException at com.acme.Foo.bar(Foo.java:12)", None),
        ("坏了", None),
    ],
)
def test_languages_alike_are_certain_together_and_signs_say_more_than_letters(
    text: str, language: str | None
) -> None:
    assert language_of(text) == language


def test_a_spec_may_name_what_is_told_apart_and_no_more() -> None:
    told = {code for code in _identifier().nb_classes if len(code) == 2}
    assert told | {code for family in ALIKE for code in family if len(code) == 2} == LANGUAGES
