from __future__ import annotations

from tunewheel_curate.cleaning.languages import keep_languages, language_of

ENGLISH = "The bell of my bicycle does not ring any more, and I would like to have a new one."
GERMAN = "Die Klingel an meinem Fahrrad läutet nicht mehr, ich hätte gern eine neue."
ARABIC = "جرس دراجتي لا يعمل منذ يوم الأحد وأود الحصول على جرس جديد من فضلكم"


def test_languages_are_told_apart() -> None:
    assert [language_of(text) for text in (ENGLISH, GERMAN, ARABIC)] == ["en", "de", "ar"]
    assert language_of("ok 🚲 4711") is None


def test_only_what_is_certainly_another_language_goes(records) -> None:
    frame = records({"input": ENGLISH}, {"input": GERMAN}, {"input": ARABIC}, {"input": "bell?"})
    stage = keep_languages(frame, ("en", "ar"))
    assert stage.funnel.reasons == {"language: de": 1}
    assert stage.kept["input"].to_list() == [ENGLISH, ARABIC, "bell?"]
    assert stage.counts == {"unsure": 1}
