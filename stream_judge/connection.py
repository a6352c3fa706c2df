"""How every Kafka client of the project connects."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Coroutine
from functools import lru_cache
from pathlib import Path
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer
from aiokafka.abc import AbstractTokenProvider
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError, NodeNotReadyError
from pydantic import SecretStr

from stream_judge import refusal
from stream_judge.errors import BrokerError, ConfigError
from stream_judge.kafka_oauth import ClientCredentialsToken, FileToken
from stream_judge.settings import KafkaSettings

_log = structlog.get_logger(__name__)
# Of an administrative request: a broker that is asked in vain is given up before a person is.
_ADMIN_MS = 10_000
_CANCEL_AGAIN_S = 0.1
_CLOSE_S = 1.0
_closing: set[asyncio.Task[None]] = set()


def ssl_context(settings: KafkaSettings) -> ssl.SSLContext | None:
    """The TLS context of the settings; None for a plain connection.

    Clients share it for as long as its files do not change: a worker has a client for every
    partition, and reading the system's authorities takes tens of milliseconds.

    Raises:
        ConfigError: A file cannot be read, or key and certificate do not fit.
    """
    if not settings.security_protocol.endswith("SSL"):
        return None
    files = (settings.ssl_ca_file, settings.ssl_cert_file, settings.ssl_key_file)
    stamps = tuple(_stamp(path) for path in files)
    return _context(*files, settings.ssl_key_password, settings.ssl_check_hostname, stamps)


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


async def connect(client: Any, settings: KafkaSettings) -> None:
    """Start an aiokafka client; one that does not come to that is closed again.

    Args:
        client: Consumer, producer or administrative client, made with `client_options`.
        settings: Those it was made of.

    Raises:
        BrokerError: No broker lets it in; the message says why, and what to look at.
    """
    with refusal.listening() as reasons:
        try:
            await client.start()
        except BaseException as exc:
            # Also one that nobody waits for any more.
            await close_apart(client.close() if hasattr(client, "close") else client.stop())
            if not isinstance(exc, (KafkaError, OSError)):
                raise
            why = refusal.message(settings, reasons[-1] if reasons else exc)
            raise BrokerError(why) from exc


async def open_consumer(settings: KafkaSettings, *topics: str, **options: Any) -> Any:
    """A started consumer without a group; whoever has it stops it.

    Args:
        settings: How it connects.
        topics: What it is subscribed to; none for one whose partitions are assigned by hand.
        options: More of `AIOKafkaConsumer`'s.

    Raises:
        BrokerError: See `connect`.
        ConfigError: See `ssl_context`.
    """
    consumer = AIOKafkaConsumer(*topics, **client_options(settings), group_id=None, **options)
    await connect(consumer, settings)
    # Its inner task must have begun before it can be stopped without an error.
    await asyncio.sleep(0)
    return consumer


async def open_admin(settings: KafkaSettings) -> Any:
    """A started administrative client; whoever has it closes it.

    Raises:
        BrokerError: See `connect`.
        ConfigError: See `ssl_context`.
    """
    admin = AIOKafkaAdminClient(**client_options(settings), request_timeout_ms=_ADMIN_MS)
    await connect(admin, settings)
    return admin


async def ask_any(client: Any, request: Any) -> Any:
    """Send a request that any broker can answer to one after the other, until one does.

    Args:
        client: A started `AIOKafkaClient`.
        request: Of aiokafka's protocol.

    Raises:
        KafkaError: None of them answers; what the last one met.
    """
    nodes = [broker.nodeId for broker in client.cluster.brokers()]
    error: KafkaError = NodeNotReadyError("no broker is known")
    # By chance: no broker is every client's first.
    for node in random.sample(nodes, len(nodes)):
        try:
            return await client.send(node, request)
        except KafkaError as exc:
            if not exc.retriable:
                raise
            error = exc
    raise error


def end_for_certain(fetcher: Any) -> None:
    """Let closing a consumer's fetcher end it.

    While it gives up an assignment it can take its own cancellation for that of a request, and go
    on; and a request that it cancels raises that in whoever closes it, as if that one had been
    cancelled. Either way Faust's thread would never say that it has stopped, and a lane would end.

    Args:
        fetcher: aiokafka's, of a started consumer.
    """
    close = fetcher.close

    async def closing() -> None:
        task = fetcher._fetch_task
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)
        requests, fetcher._pending_tasks = fetcher._pending_tasks, set()
        for request in requests:
            request.cancel()
        await asyncio.gather(*requests, return_exceptions=True)
        await close()

    fetcher.close = closing


async def close_apart(closing: Coroutine[Any, Any, None]) -> None:
    """Let a client close in a task of its own, and wait for that, but not for long.

    aiokafka's clients swallow a cancellation while they close: a lane that is ended meanwhile
    would go on. And they wait for a broker that hangs to take what was written to it, or, with TLS,
    to say goodbye.

    Args:
        closing: The call that closes it.
    """
    task = asyncio.create_task(closing)
    # The event loop alone does not keep a task that nobody waits for any more.
    _closing.add(task)
    task.add_done_callback(_forget)
    await asyncio.wait([task], timeout=_CLOSE_S)


def _forget(closing: asyncio.Task[None]) -> None:
    _closing.discard(closing)
    if not closing.cancelled() and (error := closing.exception()) is not None:
        # Whoever is done with a client can do nothing about it.
        _log.warning("client_not_closed", error=repr(error))


def token_provider(settings: KafkaSettings) -> AbstractTokenProvider:
    """Where OAUTHBEARER gets its tokens; clients of one process share it, and its token."""
    if settings.oauth_token_file is not None:
        return FileToken(settings.oauth_token_file)
    return _client_credentials(
        settings.oauth_token_url,
        settings.oauth_client_id,
        settings.oauth_client_secret,
        settings.oauth_scope,
    )


@lru_cache(maxsize=8)
def _client_credentials(
    url: str | None, client_id: str | None, secret: SecretStr | None, scope: str | None
) -> ClientCredentialsToken:
    assert url is not None, "checked with the settings"
    assert client_id is not None, "checked with the settings"
    assert secret is not None, "checked with the settings"
    return ClientCredentialsToken(url, client_id, secret.get_secret_value(), scope)


@lru_cache(maxsize=8)
def _context(
    ca_file: Path | None,
    cert_file: Path | None,
    key_file: Path | None,
    key_password: SecretStr | None,
    check_hostname: bool,
    stamps: tuple[int, ...],
) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise ConfigError(f"kafka.ssl_ca_file {ca_file}: {exc}") from exc
    context.check_hostname = check_hostname
    if cert_file is not None:
        # Without a password OpenSSL would ask for one on the terminal.
        password = key_password.get_secret_value() if key_password else ""
        try:
            context.load_cert_chain(cert_file, key_file, password)
        except (OSError, ssl.SSLError, ValueError) as exc:
            raise ConfigError(
                f"kafka.ssl_cert_file {cert_file}, kafka.ssl_key_file {key_file}: {exc}"
            ) from exc
    return context


def _stamp(path: Path | None) -> int:
    """When a file was written, nanoseconds; 0 for one that is not there."""
    # Whether it is missed is for those to say who read it.
    return path.stat().st_mtime_ns if path is not None and path.exists() else 0
