"""Verifies tokens of an OIDC issuer: JWTs signed for this service (RFC 7519, RFC 8725, RFC 9068)."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, cast

from pydantic import TypeAdapter, ValidationError
from tunewheel_contracts.errors import first_complaint
from tunewheel_contracts.principal import Principal

from tunewheel_runtime.identity.roles import InvalidToken
from tunewheel_runtime.identity.signing_keys import SigningKeys, Warn, url_complaint
from tunewheel_runtime.settings import HttpSettings

if TYPE_CHECKING:
    from joserfc.jwk import Key
    from joserfc.jws import CompactSignature, JWSRegistry

KEY_TYPES = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), "RSA"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "EC"),
    **dict.fromkeys(("EdDSA", "Ed25519"), "OKP"),
}
"""The accepted algorithms, and the type of their keys. Only asymmetric ones: neither ``none`` nor
``HS256``."""
TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})
"""Accepted values of the header ``typ``, in lower case. Other kinds of JWT, such as logout tokens, are no
access tokens (RFC 8725 §3.11)."""
MAX_CHARACTERS = 16 * 1024
MAX_HEADER = 4 * 1024
LEEWAY_SECONDS = 30
"""Tolerated difference between the issuer's clock and this machine's."""
END_OF_TIME = 253_402_300_799
"""The last second of the year 9999. A token's ``exp`` may be any number, so it is limited to this."""


def is_token(secret: str) -> bool:
    """Return whether ``secret`` has the form of a JWT: three parts. An API key has one part."""
    return secret.count(".") == 2


def oidc_complaint(settings: HttpSettings) -> str | None:
    """Return the problem with the OIDC settings, with the setting's name and the fix; None: there is none."""
    if settings.oidc_issuer is None:
        wanting = [name for name in ("audience", "jwks_url", "cafile") if getattr(settings, f"oidc_{name}")]
        if not wanting:
            return None
        return f"TUNEWHEEL_OIDC_{wanting[0].upper()} is set without TUNEWHEEL_OIDC_ISSUER; set both"
    for name, url in (("ISSUER", settings.oidc_issuer), ("JWKS_URL", settings.oidc_jwks_url)):
        if url is not None and (complaint := url_complaint(url)) is not None:
            return f"TUNEWHEEL_OIDC_{name} {complaint}"
    if not settings.oidc_audience:
        return (
            "TUNEWHEEL_OIDC_AUDIENCE is missing: without it a token that the issuer made for another service "
            "would be accepted; set it to the 'aud' of tokens for this service"
        )
    if settings.oidc_cafile is not None and not settings.oidc_cafile.is_file():
        return f"TUNEWHEEL_OIDC_CAFILE {settings.oidc_cafile} is not a file; name a PEM file of authorities"
    if settings.api_keys_file is None:
        return (
            "TUNEWHEEL_OIDC_ISSUER is set, but its tokens' groups have no roles; name a file with 'groups' "
            "in TUNEWHEEL_API_KEYS_FILE"
        )
    return None


class Tokens:
    """Verifies tokens and returns their holders. Errors never quote a token."""

    def __init__(
        self,
        settings: HttpSettings,
        *,
        warn: Warn,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``clock``: monotonic seconds, for the age of signing keys. ``now``: Unix seconds."""
        assert settings.oidc_issuer is not None
        self._settings = settings
        self._issuer = settings.oidc_issuer
        self._now = now
        self.keys = SigningKeys(
            self._issuer, jwks_url=settings.oidc_jwks_url, cafile=settings.oidc_cafile, warn=warn, clock=clock
        )

    async def read(self, token: str, *, groups: Collection[str]) -> tuple[Principal, float]:
        """Verify ``token``; return its holder and its expiry in Unix seconds.

        ``groups``: the groups that are kept of the token's groups, since a directory may list hundreds of
        others.

        Raises:
            InvalidToken
            IssuerAway: the issuer's keys cannot be fetched, so the token cannot be verified.
        """
        signature = _parse(token)
        header, claims = signature.protected, _claims_of(signature)
        if claims.get("iss") != self._issuer:
            raise InvalidToken("this token is from another issuer; get one from the issuer that is set here")
        kid = header.get("kid")
        key = await self.keys.find(kid if isinstance(kid, str) else None, KEY_TYPES[header["alg"]])
        if key is None:
            raise InvalidToken("the issuer does not have the key that this token names; get a new token")
        if not _is_signed(signature, key):
            raise InvalidToken("the signature of this token is wrong; get a new one from the issuer")
        self._check(claims)
        return self._principal(claims, groups), float(min(claims["exp"], END_OF_TIME))

    def _check(self, claims: dict[str, Any]) -> None:
        from joserfc.errors import ClaimError, ExpiredTokenError, MissingClaimError
        from joserfc.jwt import JWTClaimsRegistry

        wanted = JWTClaimsRegistry(
            now=int(self._now()), leeway=LEEWAY_SECONDS, iss={"essential": True, "value": self._issuer},
            aud={"essential": True, "value": self._settings.oidc_audience or ""}, exp={"essential": True},
            sub={"essential": True},
        )  # fmt: skip
        try:
            wanted.validate(claims)
        except ExpiredTokenError:
            raise InvalidToken("this token has expired; get a new one") from None
        except MissingClaimError as error:
            raise InvalidToken(f"this token lacks {error.claim}; its issuer must put it in") from None
        except ClaimError as error:
            reason = _REASONS.get(error.claim, f"has a wrong {error.claim}; its issuer must correct it")
            raise InvalidToken(f"this token {reason}") from None
        if "cnf" in claims:  # RFC 9449 §7.1
            raise InvalidToken(
                "this token is bound to a key, which is not supported here; get a bearer token"
            )
        if "events" in claims:  # RFC 8417 §2.2
            raise InvalidToken("this token reports an event, such as a logout; send an access token")

    def _principal(self, claims: dict[str, Any], mapped: Collection[str]) -> Principal:
        claim = self._settings.oidc_name_claim
        if claim == "email" and claims.get("email_verified") in (False, "false"):
            raise InvalidToken("the issuer has not verified the email of this token; verify it there")
        groups = _names_in(claims.get(self._settings.oidc_groups_claim), self._settings.oidc_groups_claim)
        try:
            return Principal(
                name=claims.get(claim, ""), issuer=self._issuer, groups=tuple(sorted(groups & set(mapped)))
            )
        except ValidationError as error:
            field, reason = first_complaint(error)
            named_claim = claim if field == "name" else self._settings.oidc_groups_claim
            raise InvalidToken(f"the claim {named_claim} of this token cannot be used: {reason}") from None


_OBJECT = TypeAdapter(dict[str, Any])
_REASONS = {
    "aud": "is for another service; get one whose 'aud' is this service's TUNEWHEEL_OIDC_AUDIENCE",
    "nbf": "is not valid yet; wait, or correct the clocks",
    "iat": "is from the future; correct the clocks",
}


def _parse(token: str) -> CompactSignature:
    """Parse a token, and refuse those that no key could make valid. The content is not trusted yet."""
    from joserfc.errors import JoseError
    from joserfc.jws import extract_compact

    if len(token) > MAX_CHARACTERS:
        raise InvalidToken(f"this token is longer than {MAX_CHARACTERS} characters; let it name fewer groups")
    try:
        signature = extract_compact(token.encode("ascii"), registry=_registry())
        header = _OBJECT.validate_python(signature.protected)  # joserfc would also accept a list as header.
    except (JoseError, ValueError, TypeError, RecursionError):
        raise InvalidToken("this is not a readable signed token (JWS, RFC 7515 §7.1)") from None
    algorithm, kind = header.get("alg"), header.get("typ", "JWT")
    if not isinstance(algorithm, str) or algorithm not in KEY_TYPES:
        raise InvalidToken(f"this token is not signed with one of {', '.join(KEY_TYPES)}")
    if not isinstance(kind, str) or kind.lower() not in TYPES:
        raise InvalidToken("this token is not an access token ('typ' of its header); send an access token")
    if "crit" in header or "b64" in header:
        raise InvalidToken("the header of this token needs an extension that is not supported here ('crit')")
    return signature


@functools.cache
def _registry() -> JWSRegistry:
    from joserfc.jws import JWSRegistry

    class Registry(JWSRegistry):
        max_header_length = MAX_HEADER

        def get_alg(self, name: str) -> Any:
            # Avoids joserfc's warning that the name EdDSA is deprecated (RFC 9864); issuers still use it.
            return self.algorithms[name]

    # Issuers add their own header parameters, which RFC 7515 §4 says to ignore.
    return Registry(algorithms=tuple(KEY_TYPES), strict_check_header=False)


def _claims_of(signature: CompactSignature) -> dict[str, Any]:
    try:
        return _OBJECT.validate_json(signature.payload)
    except ValidationError:
        raise InvalidToken("the claims of this token are not a JSON object") from None


def _is_signed(signature: CompactSignature, key: Key) -> bool:
    from joserfc.errors import JoseError
    from joserfc.jws import validate_compact

    try:
        return validate_compact(signature, key, registry=_registry())
    except (JoseError, ValueError, TypeError):
        return False


def _names_in(value: Any, claim: str) -> set[str]:
    """Return the groups in a claim: a list of names, or one text of names separated by spaces."""
    if value is None:
        return set()
    if isinstance(value, str):
        return set(value.split())
    if isinstance(value, list):
        return {name for name in cast(list[Any], value) if isinstance(name, str)}
    raise InvalidToken(f"the claim {claim} of this token is neither a list of names nor a text of names")
