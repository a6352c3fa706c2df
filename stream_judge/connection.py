"""How every Kafka client of the project connects."""

from __future__ import annotations

import ssl
from typing import Any

from aiokafka.abc import AbstractTokenProvider

from stream_judge.errors import ConfigError, PublishError
from stream_judge.kafka_oauth import ClientCredentialsToken, FileToken
from stream_judge.settings import KafkaSettings


def ssl_context(settings: KafkaSettings) -> ssl.SSLContext | None:
    """The TLS context of the settings; None for a plain connection.

    Raises:
        ConfigError: A file cannot be read, or key and certificate do not fit.
    """
    if not settings.security_protocol.endswith("SSL"):
        return None
    try:
        context = ssl.create_default_context(cafile=settings.ssl_ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"kafka.ssl_ca_file {settings.ssl_ca_file}: {exc}") from exc
    context.check_hostname = settings.ssl_check_hostname
    if settings.ssl_cert_file is not None:
        secret = settings.ssl_key_password
        # Without a password OpenSSL would ask for one on the terminal.
        password = secret.get_secret_value() if secret else ""
        try:
            context.load_cert_chain(settings.ssl_cert_file, settings.ssl_key_file, password)
        except (OSError, ssl.SSLError, ValueError) as exc:
            raise ConfigError(
                f"kafka.ssl_cert_file {settings.ssl_cert_file}, kafka.ssl_key_file "
                f"{settings.ssl_key_file}: {exc}"
            ) from exc
    return context


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """Keyword arguments that every aiokafka client takes.

    Raises:
        ConfigError: See `ssl_context`.
    """
    options: dict[str, Any] = {
        "bootstrap_servers": settings.bootstrap_servers,
        "security_protocol": settings.security_protocol,
        "ssl_context": ssl_context(settings),
    }
    if not settings.uses_sasl:
        return options
    options["sasl_mechanism"] = settings.sasl_mechanism
    if settings.sasl_mechanism == "OAUTHBEARER":
        return options | {"sasl_oauth_token_provider": token_provider(settings)}
    assert settings.sasl_password is not None, "checked with the settings"
    return options | {
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value(),
    }


def unreachable(settings: KafkaSettings, exc: BaseException) -> PublishError:
    """The error for a broker that no client gets through to.

    aiokafka says why only in its log: a refused account looks like a broker that is away.
    """
    check = ["kafka.bootstrap_servers"]
    if settings.security_protocol.endswith("SSL"):
        check.append("kafka.ssl_ca_file")
    if settings.uses_sasl and settings.sasl_mechanism == "OAUTHBEARER":
        check.append("the token")
    elif settings.uses_sasl:
        check.append("kafka.sasl_username and its password")
    where = f"{settings.bootstrap_servers} by {settings.security_protocol}"
    return PublishError(f"no broker lets us in at {where}: {exc}; check {', '.join(check)}")


def token_provider(settings: KafkaSettings) -> AbstractTokenProvider:
    """Where OAUTHBEARER gets its tokens."""
    # One for each client: they live in event loops of their own.
    if settings.oauth_token_file is not None:
        return FileToken(settings.oauth_token_file)
    assert settings.oauth_token_url is not None, "checked with the settings"
    assert settings.oauth_client_id is not None, "checked with the settings"
    assert settings.oauth_client_secret is not None, "checked with the settings"
    return ClientCredentialsToken(
        settings.oauth_token_url,
        settings.oauth_client_id,
        settings.oauth_client_secret.get_secret_value(),
        settings.oauth_scope,
    )
