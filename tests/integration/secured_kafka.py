"""A real broker that lets nobody in unknown: mTLS, SCRAM, PLAIN and OAUTHBEARER, and Kafka's own authorizer.

Its listener ``PLAINTEXT`` is the operator's: who comes there is a super user. Everybody else is called
``tunewheel-<name>``, whichever way they come, and may do what ``tunewheel admin acls`` prints.
"""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import resources
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID
from tunewheel_local.kafka.broker import LocalKafka
from tunewheel_local.kafka.ports import free_port

PASSWORD = "correct horse"
AUDIENCE = "kafka"
_OPERATIONS = {"Read": 3, "Write": 4, "Create": 5, "Delete": 6, "Alter": 7, "Describe": 8, "AlterConfigs": 11}
"""Kafka protocol, ``AclOperation``."""
_AUDITED = re.compile(
    r"Principal = User:(\S+) is (Allowed|Denied) operation = (\S+) from host = \S+ on resource = "
    r"(\w+):LITERAL:(\S+) for request"
)


class Authority:
    """A certificate authority, and the PEM files of those whom it knows."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        folder.mkdir(parents=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(self._name, self._key.public_key(), ca=True)
        self.cafile = folder / "ca.pem"
        self.cafile.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, *, password: str | None = None) -> tuple[Path, Path]:
        """Return the files of a certificate for ``name`` on this machine, and of its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._sign(subject, key.public_key())
        closed = serialization.BestAvailableEncryption(password.encode()) if password else None
        certfile, keyfile = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certfile.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        keyfile.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                closed or serialization.NoEncryption(),
            )
        )
        return certfile, keyfile

    def _sign(self, subject: x509.Name, key: Any, *, ca: bool = False) -> x509.Certificate:
        now = datetime.now(UTC)
        addresses = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
            .sign(self._key, hashes.SHA256())
        )


class Issuer:
    """An OAuth 2 token endpoint (RFC 6749 §4.4) and the key set that verifies its tokens (RFC 7517)."""

    def __init__(self, folder: Path) -> None:
        self._key = rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
        self.asked: Counter[str] = Counter()
        """How many tokens each client was given."""
        self.lifetimes: dict[str, int] = {}
        """Seconds, of clients whose tokens do not live for an hour."""
        numbers = self._key.public_key().public_numbers()
        known = {"kty": "RSA", "kid": "one", "alg": "RS256", "use": "sig"}
        key = known | {"n": _number(numbers.n), "e": _number(numbers.e)}
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(json.dumps({"keys": [key]}))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def token(self, subject: str, *, audience: str = AUDIENCE, lifetime: int = 3_600) -> str:
        now = int(time.time())
        claims = {"iss": self.url, "sub": subject, "aud": audience, "iat": now, "exp": now + lifetime}
        signed = f"{_base64(json.dumps({'alg': 'RS256', 'kid': 'one'}))}.{_base64(json.dumps(claims))}"
        signature = self._key.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256())
        return f"{signed}.{_base64(signature)}"

    def answer(self, authorization: str, body: str) -> tuple[int, dict[str, Any]]:
        pair = base64.b64decode(authorization.removeprefix("Basic ")).decode()
        client, _, secret = (unquote_plus(part) for part in pair.partition(":"))
        if secret != PASSWORD or parse_qs(body).get("grant_type") != ["client_credentials"]:
            return 401, {"error": "invalid_client", "error_description": "unknown client or wrong secret"}
        self.asked[client] += 1
        lifetime = self.lifetimes.get(client, 3_600)
        subject = client.removesuffix("-briefly")
        token = self.token(subject, lifetime=lifetime)
        return 200, {"access_token": token, "token_type": "Bearer", "expires_in": lifetime}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                status, answer = issuer.answer(self.headers["Authorization"], body)
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                """The test's output is no place for it."""

        return Handler


class SecuredKafka:
    """The broker, those who issue certificates and tokens for it, and the ways in."""

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.authority = Authority(root / "tls", "the brokers'")
        self.issuer = Issuer(root)
        self.ports = {listener: free_port() for listener in ("MTLS", "SASL", "OAUTH")}
        self._root = root
        told = (f"SCRAM-SHA-512=[name=tunewheel-{name},password={PASSWORD}]" for name in names)
        audit = root / "audit.xml"
        logger = '<Logger name="kafka.authorizer.logger" level="DEBUG"/>'
        audit.write_text(f"<Configuration><Loggers>{logger}</Loggers></Configuration>")
        log4j = resources.files("tunewheel_local.kafka").joinpath("log4j2.xml")
        self.broker = LocalKafka(
            root / "kafka",
            port=None,
            properties=self._properties(),
            java_options=(
                f"-Dlog4j2.configurationFile={log4j},{audit}",
                f"-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={self.issuer.jwks.as_uri()}",
            ),
            formatting=[word for user in told for word in ("--add-scram", user)],
        )

    @property
    def operator(self) -> dict[str, Any]:
        """aiokafka's options of the super user."""
        return {"bootstrap_servers": self.broker.bootstrap_servers}

    def by_certificate(self, name: str) -> dict[str, Any]:
        """Return the settings of a client that has a certificate."""
        certfile, keyfile = self.authority.issue(f"tunewheel-{name}")
        return self._at("MTLS", "SSL") | {"ssl_certfile": certfile, "ssl_keyfile": keyfile}

    def by_password(
        self, name: str, *, mechanism: str = "SCRAM-SHA-512", password: str = PASSWORD
    ) -> dict[str, Any]:
        known = {"sasl_mechanism": mechanism, "sasl_username": f"tunewheel-{name}", "sasl_password": password}
        return self._at("SASL", "SASL_SSL") | known

    def by_token(self, name: str, *, secret: str = PASSWORD) -> dict[str, Any]:
        """Return the settings of a client that asks the issuer for its tokens."""
        return self._at("OAUTH", "SASL_SSL") | {
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_oauth_token_url": f"{self.issuer.url}/token",
            "sasl_oauth_client_id": f"tunewheel-{name}",
            "sasl_oauth_client_secret": secret,
        }

    def by_token_file(self, file: Path) -> dict[str, Any]:
        known = {"sasl_mechanism": "OAUTHBEARER", "sasl_oauth_token_file": file}
        return self._at("OAUTH", "SASL_SSL") | known

    def _at(self, listener: str, protocol: str) -> dict[str, Any]:
        return {
            "bootstrap_servers": f"127.0.0.1:{self.ports[listener]}",
            "security_protocol": protocol,
            "ssl_cafile": self.authority.cafile,
        }

    def audited(self, verdict: str) -> set[tuple[str, str, str, str]]:
        """Return what the authorizer ``Allowed`` or ``Denied``: (name, operation, kind, resource)."""
        return {
            (who.removeprefix("tunewheel-"), operation.title().replace("_", ""), kind.lower(), resource)
            for who, decided, operation, kind, resource in _AUDITED.findall(self.broker.log.read_text())
            if who.startswith("tunewheel-") and decided == verdict
        }

    def _properties(self) -> dict[str, str]:
        certfile, keyfile = self.authority.issue("broker")
        keystore = self._root / "tls" / "keystore.pem"
        keystore.write_bytes(keyfile.read_bytes() + certfile.read_bytes())
        addresses = ",".join(f"{name}://127.0.0.1:{port}" for name, port in self.ports.items())
        oauth = "listener.name.oauth.oauthbearer"
        module = "org.apache.kafka.common.security"
        validator = f"{module}.oauthbearer.OAuthBearerValidatorCallbackHandler"
        return {
            "listeners": addresses,
            "advertised.listeners": addresses,
            "listener.security.protocol.map": "MTLS:SSL,SASL:SASL_SSL,OAUTH:SASL_SSL",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(keystore),
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": str(self.authority.cafile),
            "listener.name.mtls.ssl.client.auth": "required",
            "listener.name.mtls.ssl.principal.mapping.rules": "RULE:^CN=([^,]+).*$/$1/",
            "listener.name.sasl.sasl.enabled.mechanisms": "SCRAM-SHA-512,PLAIN",
            "listener.name.sasl.scram-sha-512.sasl.jaas.config": f"{module}.scram.ScramLoginModule required;",
            "listener.name.sasl.plain.sasl.jaas.config": (
                f'{module}.plain.PlainLoginModule required user_tunewheel-upstream-tickets="{PASSWORD}";'
            ),
            "listener.name.oauth.sasl.enabled.mechanisms": "OAUTHBEARER",
            f"{oauth}.sasl.jaas.config": f"{module}.oauthbearer.OAuthBearerLoginModule required;",
            f"{oauth}.sasl.server.callback.handler.class": validator,
            f"{oauth}.sasl.oauthbearer.jwks.endpoint.url": self.issuer.jwks.as_uri(),
            f"{oauth}.sasl.oauthbearer.expected.audience": AUDIENCE,
            f"{oauth}.sasl.oauthbearer.expected.issuer": self.issuer.url,
            # a connection ends with its token; without it Kafka keeps one for as long as it is used
            f"{oauth}.connections.max.reauth.ms": "3600000",
        }  # fmt: skip


@contextmanager
def secured_kafka(root: Path, names: Iterable[str]) -> Iterator[SecuredKafka]:
    """Run a broker that knows ``names``; nobody may do anything yet."""
    secured = SecuredKafka(root, names)
    try:
        with secured.broker:
            yield secured
    finally:
        secured.issuer.close()


async def allow(options: dict[str, Any], acls: Iterable[dict[str, Any]]) -> None:
    """Make ACLs as the super user; ``acls`` are what ``tunewheel admin acls --json`` prints."""

    class CreateAcls(CreateAclsRequest):
        def __init__(self) -> None:
            """Many at once."""

        def build(self, request_struct_class: Any) -> Any:
            return request_struct_class(_bindings(acls))

    answer = await _ask(options, CreateAcls())
    assert {code for code, _ in answer.creation_responses} == {0}


async def forbid(options: dict[str, Any], acls: Iterable[dict[str, Any]]) -> None:
    """Take ACLs away as the super user."""
    for acl in _bindings(acls):
        answer = await _ask(options, DeleteAclsRequest(*acl))
        assert [code for code, *_ in answer.filter_responses] == [0]


def _bindings(acls: Iterable[dict[str, Any]]) -> list[tuple[Any, ...]]:
    kinds = {"topic": 2, "group": 3, "transactionalId": 5}
    literal, everywhere, allowed = 3, "*", 3
    return [
        (kinds[acl["resource_type"]], acl["resource_name"], literal, acl["principal"], everywhere,
         _OPERATIONS[operation], allowed)
        for acl in acls
        for operation in acl["operations"]
    ]  # fmt: skip


async def _ask(options: dict[str, Any], request: Any) -> Any:
    admin = AIOKafkaAdminClient(**options)
    await admin.start()
    try:
        return await admin._send_request(request)
    finally:
        await admin.close()


def _number(value: int) -> str:
    return _base64(value.to_bytes((value.bit_length() + 7) // 8, "big"))


def _base64(data: str | bytes) -> str:
    raw = data.encode() if isinstance(data, str) else data
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
