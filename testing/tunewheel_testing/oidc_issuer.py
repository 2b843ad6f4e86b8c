"""A real OIDC issuer on loopback: discovery, its signing keys (JWKS), tokens that it signs, and logins by
device grant (RFC 8628).

It signs with ``cryptography`` alone, so that a test can make what no JOSE library would sign::

    with Issuer() as issuer:
        header = {"Authorization": f"Bearer {issuer.token('ada', ['support-leads'])}"}
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import ssl
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qsl

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

AUDIENCE = "tunewheel"
DISCOVERY = "/.well-known/openid-configuration"
KEYS = "/keys"
DEVICE = "/device"
TOKEN = "/token"
DEVICE_GRANT = "urn:ietf:params:oauth:grant-type:device_code"
ALGORITHMS = ("RS256", "PS256", "ES256", "EdDSA")

Groups = Sequence[str] | Mapping[str, Any]
"""Names, or names in one text; a mapping is what no issuer should send."""
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def encoded(value: bytes | Mapping[str, Any]) -> str:
    """Return base64url without padding, of JSON where ``value`` is no bytes (RFC 7515 §2)."""
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _number(value: int, size: int | None = None) -> str:
    return encoded(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


@dataclass(frozen=True)
class SigningKey:
    """``kid`` None: a key without a name."""

    private: PrivateKey
    algorithm: str
    kid: str | None

    def jwk(self) -> dict[str, Any]:
        """Return the public half (RFC 7517)."""
        told: dict[str, Any] = {"use": "sig", "alg": self.algorithm}
        if self.kid is not None:
            told["kid"] = self.kid
        if isinstance(self.private, rsa.RSAPrivateKey):
            numbers = self.private.public_key().public_numbers()
            return {**told, "kty": "RSA", "n": _number(numbers.n), "e": _number(numbers.e)}
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            point = self.private.public_key().public_numbers()
            return {**told, "kty": "EC", "crv": "P-256", "x": _number(point.x, 32), "y": _number(point.y, 32)}
        raw = self.private.public_key().public_bytes_raw()
        return {**told, "kty": "OKP", "crv": "Ed25519", "x": encoded(raw)}

    def public_pem(self) -> bytes:
        return self.private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )

    def sign(self, content: bytes) -> bytes:
        """Return the signature of ``content`` as JWS has it (RFC 7518 §3)."""
        if isinstance(self.private, ed25519.Ed25519PrivateKey):
            return self.private.sign(content)
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            r, s = decode_dss_signature(self.private.sign(content, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        if self.algorithm.startswith("PS"):
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), hashes.SHA256().digest_size)
            return self.private.sign(content, pss, hashes.SHA256())
        return self.private.sign(content, padding.PKCS1v15(), hashes.SHA256())


def make_key(algorithm: str = "RS256", kid: str | None = None, *, bits: int = 2048) -> SigningKey:
    """Return a new key; ``bits`` is the size of an RSA key."""
    if algorithm == "ES256":
        private: PrivateKey = ec.generate_private_key(ec.SECP256R1())
    elif algorithm == "EdDSA":
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        private = rsa.generate_private_key(65537, bits)
    return SigningKey(private, algorithm, kid)


class Issuer:
    """It listens from ``start`` (or ``with``) to ``stop``, and on the same port after another ``start``.

    ``answers`` replaces what a path answers: status, body and headers.
    """

    def __init__(
        self,
        algorithm: str = "RS256",
        *,
        audience: str = AUDIENCE,
        certificate: tuple[Path, Path] | None = None,
    ) -> None:
        """``certificate``: the PEM files by which it speaks HTTPS, the second with the key."""
        self._certificate = certificate
        self.audience = audience
        self.answers: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.asked: list[str] = []
        """The paths that were asked for, in order."""
        self.answering = threading.Event()
        """Cleared, it lets whoever asks wait."""
        self.answering.set()
        self.lasting = 300
        """Seconds for which a token of a login is valid."""
        self.answers_to_polls: list[str] = []
        """Errors that the next polls get, before a login is looked for."""
        self.logins: dict[str, tuple[str, Groups]] = {}
        """By user code, who logged in with it."""
        self.refreshes: dict[str, tuple[str, Groups]] = {}
        """By refresh token, whose it is. Each is accepted once."""
        self._devices: dict[str, str] = {}
        self._made = 0
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self.keys: list[SigningKey] = []
        """The keys that it tells; the last one signs."""
        self.rotate(algorithm)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), self._handler())
        self._server.daemon_threads = True
        if self._certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*self._certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self._port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def stop(self) -> None:
        self.answering.set()
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    @property
    def url(self) -> str:
        """The issuer's name, ``iss``, where its discovery document lies too."""
        scheme = "http" if self._certificate is None else "https"
        return f"{scheme}://127.0.0.1:{self._port}"

    @property
    def key(self) -> SigningKey:
        return self.keys[-1]

    def settings(self) -> dict[str, str]:
        """Return the environment variables by which a service trusts this issuer."""
        return {"TUNEWHEEL_OIDC_ISSUER": self.url, "TUNEWHEEL_OIDC_AUDIENCE": self.audience}

    def rotate(self, algorithm: str | None = None, *, keep: int = 0) -> None:
        """Sign with a new key from now on, and tell the ``keep`` latest of the old ones still."""
        self._made += 1
        new = make_key(algorithm or self.key.algorithm, f"key-{self._made}")
        self.keys = [*self.keys[len(self.keys) - keep :], new]

    def claims(self, subject: str, groups: Groups = (), **claims: Any) -> dict[str, Any]:
        """Return the claims of a token; a claim that is None is left out."""
        now = int(time.time())
        usual = {
            "iss": self.url, "aud": self.audience, "sub": subject, "iat": now, "exp": now + 300,
            "groups": groups,
        }  # fmt: skip
        return {name: value for name, value in {**usual, **claims}.items() if value is not None}

    def token(
        self,
        subject: str,
        groups: Groups = (),
        *,
        header: Mapping[str, Any] | None = None,
        key: SigningKey | None = None,
        **claims: Any,
    ) -> str:
        """Return a signed token; ``claims`` and ``header`` replace the usual ones, None leaves one out."""
        key = key or self.key
        usual = {"alg": key.algorithm, "typ": "JWT", "kid": key.kid}
        told = {name: value for name, value in {**usual, **(header or {})}.items() if value is not None}
        content = f"{encoded(told)}.{encoded(self.claims(subject, groups, **claims))}"
        return f"{content}.{encoded(key.sign(content.encode()))}"

    def forged(self, subject: str, groups: Sequence[str] = (), *, algorithm: str) -> str:
        """Return a token of somebody who has only the public key, which HS256 is tricked to take for a secret
        (RFC 8725 §2.1); or, with ``none``, one without a signature."""
        header = {"alg": algorithm, "typ": "JWT", "kid": self.key.kid}
        content = f"{encoded(header)}.{encoded(self.claims(subject, groups))}"
        if algorithm.lower() == "none":
            return f"{content}."
        digest = getattr(hashlib, f"sha{algorithm[2:]}")
        return f"{content}.{encoded(hmac.new(self.key.public_pem(), content.encode(), digest).digest())}"

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked.append(self.path)
                issuer.answering.wait(60)
                status, body, headers = issuer._answer(self.path)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                issuer.asked.append(self.path)
                raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
                status, told = issuer._grant(self.path, dict(parse_qsl(raw.decode())))
                body = json.dumps(told).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Nothing: a test's output is the service's."""

        return Handler

    def _answer(self, path: str) -> tuple[int, bytes, dict[str, str]]:
        if path in self.answers:
            return self.answers[path]
        told: dict[str, Any]
        if path == DISCOVERY:
            told = {
                "issuer": self.url, "jwks_uri": self.url + KEYS, "token_endpoint": self.url + TOKEN,
                "device_authorization_endpoint": self.url + DEVICE,
            }  # fmt: skip
        elif path == KEYS:
            told = {"keys": [key.jwk() for key in self.keys]}
        else:
            return 404, b"", {}
        return 200, json.dumps(told).encode(), {"Content-Type": "application/json"}

    def _grant(self, path: str, form: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        if path == DEVICE:
            code, device = secrets.token_hex(4).upper(), secrets.token_hex(8)
            self._devices[device] = code
            return 200, {
                "device_code": device, "user_code": code, "verification_uri": f"{self.url}/enter",
                "expires_in": 60, "interval": 0,
            }  # fmt: skip
        if form.get("grant_type") == DEVICE_GRANT:
            if self.answers_to_polls:
                return 400, {"error": self.answers_to_polls.pop(0)}
            who = self.logins.get(self._devices.get(form["device_code"], ""))
            return self._granted(*who) if who else (400, {"error": "authorization_pending"})
        who = self.refreshes.pop(form.get("refresh_token", ""), None)
        return self._granted(*who) if who else (400, {"error": "invalid_grant"})

    def _granted(self, subject: str, groups: Groups) -> tuple[int, dict[str, Any]]:
        self._made += 1
        refresh = f"refresh-{self._made}"
        self.refreshes[refresh] = (subject, groups)
        token = self.token(subject, groups, exp=int(time.time()) + self.lasting, jti=str(self._made))
        return 200, {
            "access_token": token, "token_type": "Bearer", "refresh_token": refresh,
            "expires_in": self.lasting,
        }  # fmt: skip
