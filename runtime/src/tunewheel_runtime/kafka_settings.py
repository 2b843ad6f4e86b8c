"""Settings of the connection to Kafka, for services and the command line."""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import SecretStr, field_validator, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import SettingsConfigDict

from tunewheel_runtime.secret_files import SecretFiles
from tunewheel_runtime.topic_names import PREFIX

_ADDRESS = re.compile(r"([^\s:\[\]]+|\[[0-9a-fA-F:]+\]|[0-9a-fA-F:]*::[0-9a-fA-F:]*)(:(?P<port>\d{1,5}))?")


class KafkaSettings(SecretFiles):
    """The connection to Kafka. ``kafka.client_options`` turns it into options of a client."""

    # Without this, pydantic's error about several settings would show all values, including passwords.
    model_config = SettingsConfigDict(hide_input_in_errors=True)

    bootstrap_servers: str = "localhost:9092"
    """``host:port``; several are separated by commas."""
    topic_prefix: str = ""
    """Prefix of the names of all topics and consumer groups on the brokers. With different prefixes several
    installations can share one Kafka."""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: Path | None = None
    """PEM file of the authority that signed the brokers' certificates. Default: the system's authorities."""
    ssl_certfile: Path | None = None
    """PEM file of this client's certificate and its intermediate certificates (mTLS)."""
    ssl_keyfile: Path | None = None
    """PEM file of the certificate's private key."""
    ssl_keyfile_password: SecretStr | None = None
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"] = "PLAIN"
    sasl_username: str | None = None
    """User name; for all mechanisms except OAUTHBEARER."""
    sasl_password: SecretStr | None = None
    sasl_oauth_token_file: Path | None = None
    """File with a valid token, which something else, such as Kubernetes, renews. Read for each connection."""
    sasl_oauth_token_url: str | None = None
    """Token endpoint for the client credentials grant (RFC 6749 §4.4), in place of a file."""
    sasl_oauth_client_id: str | None = None
    sasl_oauth_client_secret: SecretStr | None = None
    sasl_oauth_scope: str | None = None
    """Scopes of the token, separated by spaces."""

    @field_validator("bootstrap_servers")
    @classmethod
    def _are_addresses(cls, value: str) -> str:
        for address in value.split(","):
            found = _ADDRESS.fullmatch(address)
            if found is None or not 0 < int(found["port"] or 9092) < 65_536:
                raise ValueError("must be host:port; separate several by commas")
        return value

    @field_validator("topic_prefix")
    @classmethod
    def _begins_a_name(cls, value: str) -> str:
        if not PREFIX.fullmatch(value):
            raise ValueError(
                "must be at most 100 letters, digits, '.', '_' and '-', and end in one of the last three, "
                "such as acme."
            )
        return value

    @field_validator("sasl_oauth_token_url")
    @classmethod
    def _keeps_the_secret(cls, value: str | None) -> str | None:
        url = urlsplit(value or "https://unset")
        schemes = ("https", "http") if _is_loopback(url.hostname or "") else ("https",)
        if not url.hostname or url.scheme not in schemes:
            raise ValueError("must be an https:// URL (http:// on this machine only): a secret is sent there")
        if "@" in url.netloc:
            raise ValueError("must have no user or password in it: messages show the URL")
        return value

    @model_validator(mode="after")
    def _identifies_the_client(self) -> Self:
        if (self.ssl_certfile is None) != (self.ssl_keyfile is None):
            missing, beside = (
                ("ssl_keyfile", "ssl_certfile") if self.ssl_certfile else ("ssl_certfile", "ssl_keyfile")
            )
            raise _wrong(missing, f"is missing beside {beside}; set both of them, or neither")
        if not self.security_protocol.startswith("SASL"):
            return self
        if self.sasl_mechanism != "OAUTHBEARER":
            self._require("sasl_username", "sasl_password", by=f"sasl_mechanism {self.sasl_mechanism}")
        elif (self.sasl_oauth_token_file is None) == (self.sasl_oauth_token_url is None):
            reason = "OAUTHBEARER reads its tokens from it or from sasl_oauth_token_url; set one of the two"
            raise _wrong("sasl_oauth_token_file", reason)
        elif self.sasl_oauth_token_url is not None:
            self._require("sasl_oauth_client_id", "sasl_oauth_client_secret", by="sasl_oauth_token_url")
        return self

    def _require(self, *names: str, by: str) -> None:
        for name in names:
            if getattr(self, name) is None:
                raise _wrong(name, f"is missing; {by} needs it")


def _wrong(field: str, reason: str) -> PydanticCustomError:
    """Return an error about several settings that names the setting to correct."""
    return PydanticCustomError("kafka_settings", "{reason}", {"field": field, "reason": reason})


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
