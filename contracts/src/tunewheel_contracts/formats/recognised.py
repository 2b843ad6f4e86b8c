"""The languages and kinds of personal data that curation can recognise, and checks of a spec that names
them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from tunewheel_contracts.errors import InvalidSpec
from tunewheel_contracts.fields import linear_complaint

_CODES = """
af am an ar as az ba be bg bn br bs ca cs cy da de dz el en eo es et eu fa fi fo fr fy ga gd gl gu ha he
hi hr ht hu hy id ig is it ja jv ka kk km kn ko ku ky la lb lg ln lo lt lv mg mk ml mn mr ms mt my nb ne
nl nn no oc om or pa pl ps pt qu ro ru rw sa se si sk sl sn so sq sr st sv sw ta te tg th tk tl tr tt ug
uk ur uz vi vo wa xh yo zh zu
"""
LANGUAGES = frozenset(_CODES.split())
"""ISO 639-1 codes."""
_MISTAKEN = {"cz": "cs", "dk": "da", "gr": "el", "jp": "ja", "kr": "ko", "ua": "uk", "cn": "zh", "iw": "he"}
"""Codes that are often mistaken for language codes (country codes and an outdated one), with the right
code."""
_ENTITIES = """
EMAIL_ADDRESS PHONE_NUMBER CREDIT_CARD IBAN_CODE IP_ADDRESS US_SSN
ABA_ROUTING_NUMBER AU_ABN AU_ACN AU_MEDICARE AU_TFN CRYPTO DATE_TIME ES_NIE ES_NIF FI_PERSONAL_IDENTITY_CODE
IN_AADHAAR IN_GSTIN IN_PAN IN_PASSPORT IN_VEHICLE_REGISTRATION IN_VOTER IT_DRIVER_LICENSE IT_FISCAL_CODE
IT_IDENTITY_CARD IT_PASSPORT IT_VAT_CODE KR_BRN KR_DRIVER_LICENSE KR_FRN KR_PASSPORT KR_RRN MAC_ADDRESS
MEDICAL_LICENSE NG_NIN NG_VEHICLE_REGISTRATION PL_PESEL SG_NRIC_FIN SG_UEN TH_TNIN UK_NHS UK_NINO UK_PASSPORT
UK_POSTCODE UK_VEHICLE_REGISTRATION URL US_BANK_NUMBER US_DRIVER_LICENSE US_ITIN US_MBI US_NPI US_PASSPORT
"""
PII_ENTITIES = frozenset(_ENTITIES.split())
"""Kinds of personal data that one of presidio's recognisers by pattern can find."""


def check_recognised(
    *, languages: Iterable[str], pii_entities: Iterable[str], patterns: Mapping[str, str]
) -> None:
    """Refuse a spec with languages, entities or patterns that curation cannot use. Specs that are already on
    the log are not checked, and stay valid.

    Raises:
        InvalidSpec: a language or an entity is unknown, or a pattern in ``patterns`` (by field) is invalid.
            ``field`` is its path in the spec.
    """
    faults = [*_faults(languages, pii_entities, patterns)]
    if faults:
        raise InvalidSpec.of(faults)


def _faults(
    languages: Iterable[str], pii_entities: Iterable[str], patterns: Mapping[str, str]
) -> Iterator[tuple[str, str]]:
    for field, pattern in patterns.items():
        if (cause := linear_complaint(pattern)) is not None:
            yield field, f"is not valid for Rust's regex crate ({cause}); write it in its syntax"
    for number, code in enumerate(languages):
        if code not in LANGUAGES:
            meant = f"; did you mean {_MISTAKEN[code]!r}?" if code in _MISTAKEN else ""
            reason = f"{code!r} is not a recognised language{meant or '; give an ISO 639-1 code'}"
            yield f"dataset.languages.{number}", reason
    for number, entity in enumerate(pii_entities):
        if (complaint := entity_complaint(entity)) is not None:
            yield f"dataset.pii.entities.{number}", complaint


def entity_complaint(entity: str) -> str | None:
    """Return why ``entity`` cannot be found; None: a pattern recogniser finds it."""
    if entity in PII_ENTITIES:
        return None
    return f"{entity!r} has no pattern recogniser; choose from {', '.join(sorted(PII_ENTITIES))}"
