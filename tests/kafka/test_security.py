"""A real broker that asks who is there: SCRAM over TLS, mutual TLS, OAUTHBEARER over TLS."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
from aiohttp import web
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from stream_judge import exits
from stream_judge.embedded.kafka import EmbeddedKafka, KafkaOptions
from stream_judge.errors import BrokerError
from stream_judge.processes import ChildProcess
from stream_judge.publisher import make_producer
from stream_judge.rights import check_rights
from stream_judge.settings import KafkaSettings, read_settings
from stream_judge.testing import kafka_environment
from stream_judge.topic_reader import open_reader
from stream_judge.topics import check_topics, create_topics
from tests.certificates import make_certificates
from tests.kafka.chaos.logs import read_outcomes
from tests.kafka.log import committed, send

pytestmark = pytest.mark.asyncio(loop_scope="module")
STUB = Path(__file__).parents[1] / "integration/stub_worker.py"
_BEARER = "org.apache.kafka.common.security.oauthbearer"
_LISTENERS = {"SCRAM": ("SASL_SSL", 0), "MUTUAL": ("SSL", 0), "BEARER": ("SASL_SSL", 0)}


@dataclass(frozen=True, slots=True)
class Guarded:
    """A broker with three guarded listeners.

    Attributes:
        kafka: The cluster.
        folder: `broker.pem`, `client.pem`, each with its key `NAME-pair.pem`; `token`.
    """

    kafka: EmbeddedKafka
    folder: Path


def unsigned_token() -> str:
    """A token that Kafka's validator for development accepts (RFC 7515, algorithm none)."""
    claims = {"sub": "judge", "iat": int(time.time()) - 60, "exp": int(time.time()) + 3600}
    parts = ({"alg": "none"}, claims)
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode() for part in parts]
    return ".".join(text.rstrip("=") for text in texts) + "."


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guarded(
    needs_kafka: None, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Guarded]:
    folder = tmp_path_factory.mktemp("tls")
    make_certificates(folder, "broker", "client")
    for name in ("broker", "client"):
        pair = [(folder / f"{name}{part}.pem").read_text() for part in ("-key", "")]
        (folder / f"{name}-pair.pem").write_text("".join(pair))
    (folder / "token").write_text(unsigned_token())
    config = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(folder / "broker-pair.pem"),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "client.pem"),
        "sasl.enabled.mechanisms": "SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.scram.sasl.enabled.mechanisms": "SCRAM-SHA-512",
        "listener.name.scram.scram-sha-512.sasl.jaas.config": (
            "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        ),
        "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
        "super.users": "User:ANONYMOUS",
        # Only what has an ACL is guarded, so that each test guards its own.
        "allow.everyone.if.no.acl.found": "true",
        "listener.name.mutual.ssl.client.auth": "required",
        "listener.name.bearer.sasl.enabled.mechanisms": "OAUTHBEARER",
        "listener.name.bearer.oauthbearer.sasl.jaas.config": (
            f'{_BEARER}.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
        ),
        "listener.name.bearer.oauthbearer.sasl.server.callback.handler.class": (
            f"{_BEARER}.internals.unsecured.OAuthBearerUnsecuredValidatorCallbackHandler"
        ),
    }
    account = ("--add-scram", "SCRAM-SHA-512=[name=judge,password=s3cret]")
    kafka = EmbeddedKafka(KafkaOptions(listeners=_LISTENERS, config=config, format_args=account))
    await kafka.start()
    yield Guarded(kafka, folder)
    await kafka.stop()


def ways(guarded: Guarded) -> dict[str, dict[str, str]]:
    """The settings of each listener."""
    ca = {"ssl_ca_file": str(guarded.folder / "broker.pem")}
    return {
        "SCRAM": {
            **ca,
            "security_protocol": "SASL_SSL",
            "sasl_username": "judge",
            "sasl_password": "s3cret",
        },
        "MUTUAL": {
            **ca,
            "security_protocol": "SSL",
            "ssl_cert_file": str(guarded.folder / "client-pair.pem"),
        },
        "BEARER": {
            **ca,
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "OAUTHBEARER",
            "oauth_token_file": str(guarded.folder / "token"),
        },
    }


def names(guarded: Guarded, listener: str) -> dict[str, str]:
    """Addresses, and topics of the test's own."""
    name = uuid.uuid4().hex[:8]
    return {
        "bootstrap_servers": guarded.kafka.listener(listener),
        "application": f"test-{name}",
        "topic": f"updates-{name}",
        "verdict_topic": f"verdicts-{name}",
        "dead_letter_topic": f"letters-{name}",
    }


async def test_a_worker_judges_through_each_guarded_listener(guarded: Guarded) -> None:
    async def judges(listener: str) -> None:
        given = names(guarded, listener) | ways(guarded)[listener]
        settings = read_settings(kafka=given).kafka
        await create_topics(settings, 2, 1)
        await judge_one(guarded, settings)

    await asyncio.gather(*map(judges, sorted(_LISTENERS)))


async def judge_one(guarded: Guarded, settings: KafkaSettings) -> None:
    """Let a worker process judge one update, of the last partition."""
    plain = KafkaSettings(**names(guarded, "PLAINTEXT") | _topics(settings))
    event: dict[str, Any] = {"id": "p-1", "title": "A", "images": [{"url": "http://x.test/a.png"}]}
    last = max(await partitions(plain))
    await send(plain, [(b"p-1", orjson.dumps(event), last)])
    log: list[str] = []
    worker = ChildProcess(
        [sys.executable, str(STUB)],
        env={**os.environ, **kafka_environment(settings), "STREAM_JUDGE_WEB__PORT": "0"},
        on_line=log.append,
    )
    await worker.start()
    try:
        async with asyncio.timeout(60):
            while not (
                (found := (await committed(plain)).get((settings.topic, last))) and found.offset
            ):
                assert worker.exit_code is None, log[-5:]
                await asyncio.sleep(0.2)
    finally:
        await worker.stop(20.0)
    read = await read_outcomes(plain, settings.verdict_topic)
    assert [record.key for record in read] == [b"p-1"]


async def partitions(settings: KafkaSettings) -> set[int]:
    """Of the source topic."""
    async with open_reader(settings) as reader:
        return {place.partition for place in await reader.partitions(settings.topic)}


@pytest.mark.parametrize("command", [("topics", "check"), ("dead-letters", "list")])
async def test_a_wrong_password_is_one_clear_line(
    guarded: Guarded, command: tuple[str, str]
) -> None:
    given = names(guarded, "SCRAM") | ways(guarded)["SCRAM"] | {"sasl_password": "wrong"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stream_judge", *command),
        env={**os.environ, **kafka_environment(read_settings(kafka=given).kafka)},
        stderr=asyncio.subprocess.PIPE,
    )
    _, said = await process.communicate()
    assert process.returncode == exits.UNAVAILABLE
    (line,) = said.decode().splitlines()
    assert "refuses the account judge; check kafka.sasl_username and kafka.sasl_password" in line
    assert "wrong" not in line


@pytest.mark.parametrize(
    ("listener", "change", "words"),
    [
        ("SCRAM", {"ssl_ca_file": "client.pem"}, "kafka.ssl_ca_file"),
        ("SCRAM", {"sasl_mechanism": "PLAIN"}, "kafka.sasl_mechanism"),
        ("MUTUAL", {"ssl_cert_file": None}, "kafka.ssl_cert_file"),
        ("BEARER", {"oauth_token_file": "client.pem"}, "kafka.oauth_ settings"),
        ("PLAINTEXT", {}, "kafka.security_protocol"),
    ],
)
async def test_what_does_not_fit_is_named(
    guarded: Guarded, listener: str, change: dict[str, str | None], words: str
) -> None:
    files = {
        name: str(guarded.folder / value) if value and name.endswith("_file") else value
        for name, value in change.items()
    }
    way = ways(guarded).get(listener) or ways(guarded)["SCRAM"]
    given = names(guarded, listener) | way | files
    with pytest.raises(BrokerError, match=words):
        await check_topics(read_settings(kafka=given).kafka)


async def test_an_account_does_not_fit_a_listener_without_accounts(guarded: Guarded) -> None:
    given = names(guarded, "SCRAM") | {"security_protocol": "PLAINTEXT"}
    with pytest.raises(BrokerError, match="hangs up"):
        await check_topics(read_settings(kafka=given).kafka)


async def test_a_token_by_client_credentials_and_one_that_does_not_come(guarded: Guarded) -> None:
    asked: list[str] = []
    status = 200

    async def give(request: web.Request) -> web.Response:
        asked.append((await request.post())["grant_type"])  # type: ignore[arg-type]  # text
        # Not kept: every connection asks.
        answer = {"access_token": unsigned_token(), "expires_in": 1}
        return web.json_response(answer, status=status)

    endpoint = web.Application()
    endpoint.router.add_post("/token", give)
    runner = web.AppRunner(endpoint)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    way = {name: v for name, v in ways(guarded)["BEARER"].items() if name != "oauth_token_file"}
    way |= {
        "oauth_token_url": f"http://127.0.0.1:{runner.addresses[0][1]}/token",
        "oauth_client_id": "judge",
        "oauth_client_secret": "s3cret",
    }
    settings = read_settings(kafka=names(guarded, "BEARER") | way).kafka
    await create_topics(settings, 1, 1)
    producer = make_producer(settings, metadata_max_age_ms=300)
    await producer.start()
    try:
        await producer.send_and_wait(settings.topic, b"1")
        # The endpoint is out just when a connection has to be made anew.
        status, before = 503, len(asked)
        for connection in list(producer.client._conns.values()):
            connection.close()
        async with asyncio.timeout(30):
            while len(asked) < before + 2:
                await asyncio.sleep(0.05)
        status = 200
        await producer.send_and_wait(settings.topic, b"2")
        # Whoever keeps the metadata has lived through it: it finds another leader.
        assert not producer.client._sync_task.done()
        assert await producer.client.force_metadata_update()
    finally:
        await producer.stop()
        await runner.cleanup()
    assert set(asked) == {"client_credentials"}


async def test_doctor_names_each_right_that_is_missing(guarded: Guarded) -> None:
    given = names(guarded, "SCRAM") | ways(guarded)["SCRAM"]
    settings = read_settings(kafka=given).kafka
    await create_topics(settings, 1, 1)
    assert all(ok for ok, _ in await check_rights(settings))
    guard = Guard(guarded.kafka.bootstrap, settings)
    guard.allow("somebody")
    lines = await check_rights(settings)
    # To read its own outputs is advice.
    assert [ok for ok, _ in lines] == [False] * 5 + [True] * 2, lines
    for word in ("--topic", "--group", "--transactional-id", "User:judge"):
        assert any(word in line for _, line in lines)
    plain = settings.model_copy(update={"publisher": "plain"})
    assert [ok for ok, _ in await check_rights(plain)] == [False] * 4
    for topic in await check_topics(settings):
        assert not topic.ok
        assert "may not see it" in topic.detail
    # To see is not to read, write or join.
    guard.allow("judge", only=AclOperation.DESCRIBE)
    await until(partial(topics_are_seen, settings))
    assert [ok for ok, _ in await check_rights(settings)] == [False] * 5 + [True] * 2
    guard.allow("judge")
    await until(lambda: check_rights(settings))


async def topics_are_seen(settings: KafkaSettings) -> list[tuple[bool, str]]:
    return [(topic.ok, topic.detail) for topic in await check_topics(settings)]


async def until(check: Callable[[], Awaitable[list[tuple[bool, str]]]]) -> None:
    """Rights take a moment to be known to the broker."""
    async with asyncio.timeout(30):
        while not all(ok for ok, _ in await check()):
            await asyncio.sleep(0.2)


async def test_a_worker_needs_no_more_than_what_doctor_asks_for(guarded: Guarded) -> None:
    given = names(guarded, "SCRAM") | ways(guarded)["SCRAM"]
    settings = read_settings(kafka=given).kafka
    await create_topics(settings, 1, 1)
    guard = Guard(guarded.kafka.bootstrap, settings)
    # Whatever else there is on this cluster and these names belongs to somebody else.
    guard.allow("somebody", cluster=True)
    guard.allow("judge")
    await until(lambda: check_rights(settings))
    await judge_one(guarded, settings)


class Guard:
    """Gives all rights that a worker needs to one account, and so takes them from others."""

    def __init__(self, bootstrap: str, settings: KafkaSettings) -> None:
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        self._settings = settings

    def allow(
        self, account: str, *, only: AclOperation | None = None, cluster: bool = False
    ) -> None:
        topic, group = ResourceType.TOPIC, ResourceType.GROUP
        literal, prefixed = ResourcePatternType.LITERAL, ResourcePatternType.PREFIXED
        operation, settings = AclOperation, self._settings
        prefix = f"{settings.application}:"
        wanted = [
            (topic, settings.topic, literal, operation.READ),
            (group, settings.application, literal, operation.READ),
            (ResourceType.TRANSACTIONAL_ID, prefix, prefixed, operation.WRITE),
            (ResourceType.TRANSACTIONAL_ID, prefix, prefixed, operation.DESCRIBE),
            (topic, settings.verdict_topic, literal, operation.WRITE),
            (topic, settings.dead_letter_topic, literal, operation.WRITE),
        ]
        if cluster:
            # The name that Kafka has for the cluster itself.
            whole = (ResourceType.BROKER, "kafka-cluster", literal)
            wanted += [(*whole, operation.DESCRIBE), (*whole, operation.IDEMPOTENT_WRITE)]
        who, allow = f"User:{account}", AclPermissionType.ALLOW
        rights = [
            AclBinding(kind, name, pattern, who, "*", only or done, allow)
            for kind, name, pattern, done in wanted
        ]
        for made in self._admin.create_acls(list(dict.fromkeys(rights))).values():
            made.result(timeout=20)


def _topics(settings: KafkaSettings) -> dict[str, str]:
    fields = ("application", "topic", "verdict_topic", "dead_letter_topic")
    return {name: str(getattr(settings, name)) for name in fields}
