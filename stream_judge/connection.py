"""How every Kafka client of the project connects."""

from __future__ import annotations

import ssl
from typing import Any

from stream_judge.errors import ConfigError
from stream_judge.settings import KafkaSettings


def ssl_context(settings: KafkaSettings) -> ssl.SSLContext | None:
    """The TLS context of the settings; None for a plain connection.

    Raises:
        ConfigError: The authority's file cannot be read.
    """
    if not settings.security_protocol.endswith("SSL"):
        return None
    try:
        return ssl.create_default_context(cafile=settings.ssl_ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"kafka.ssl_ca_file {settings.ssl_ca_file}: {exc}") from exc


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Keyword arguments that every aiokafka client takes."""
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "security_protocol": settings.security_protocol,
        "ssl_context": ssl_context(settings),
    }
    if settings.security_protocol.startswith("SASL"):
        if settings.sasl_username is None or settings.sasl_password is None:
            raise ConfigError("kafka.sasl_username and kafka.sasl_password are needed for SASL")
        options |= {
            "sasl_mechanism": settings.sasl_mechanism,
            "sasl_plain_username": settings.sasl_username,
            "sasl_plain_password": settings.sasl_password.get_secret_value(),
        }
    return options
