from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    NodeNotReadyError,
    SaslAuthenticationFailed,
    UnknownTopicOrPartitionError,
    UnsupportedSaslMechanismError,
)

from stream_judge import connection
from stream_judge.connection import (
    ask_any,
    client_options,
    close_apart,
    connect,
    open_admin,
    open_consumer,
)
from stream_judge.errors import BrokerError, ConfigError
from stream_judge.kafka_oauth import ClientCredentialsToken, FileToken, TokenError
from stream_judge.settings import read_settings

SASL = {"security_protocol": "SASL_SSL"}
ACCOUNT = {"sasl_username": "judge", "sasl_password": "s3cret"}
BEARER = {**SASL, "sasl_mechanism": "OAUTHBEARER"}


def options(**kafka: Any) -> dict[str, Any]:
    return client_options(read_settings(kafka=kafka).kafka)


def test_scram_and_plain_go_with_name_and_password() -> None:
    found = options(security_protocol="SASL_SSL", sasl_username="judge", sasl_password="s3cret")
    assert found["sasl_mechanism"] == "SCRAM-SHA-512"
    assert (found["sasl_plain_username"], found["sasl_plain_password"]) == ("judge", "s3cret")
    assert found["ssl_context"].check_hostname


@pytest.mark.parametrize(
    ("kafka", "words"),
    [
        ({"security_protocol": "SASL_SSL"}, "sasl_username and sasl_password"),
        ({"security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER"}, "oauth_token_file"),
        (
            {
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "OAUTHBEARER",
                "oauth_token_url": "https://id.test/token",
                "oauth_client_id": "judge",
            },
            "oauth_client_secret",
        ),
        ({"security_protocol": "SSL", "ssl_key_file": "key.pem"}, "ssl_cert_file"),
        ({"ssl_cert_file": "cert.pem"}, "SSL or SASL_SSL"),
        ({"ssl_ca_file": "ca.pem"}, "SSL or SASL_SSL"),
        ({"security_protocol": "SSL", "ssl_key_password": "p"}, "ssl_cert_file"),
        ({**ACCOUNT}, "sasl_password, sasl_username: set security_protocol to SASL_SSL"),
        ({"oauth_token_file": "token"}, "oauth_token_file: set security_protocol"),
        ({**ACCOUNT, **SASL, "oauth_token_file": "token"}, "sasl_mechanism to OAUTHBEARER"),
        ({**ACCOUNT, **BEARER, "oauth_token_file": "token"}, "not for OAUTHBEARER"),
        ({**BEARER, "oauth_token_file": "t", "oauth_token_url": "https://id.test"}, "not both"),
        ({**BEARER, "oauth_token_url": "http://id.test/token"}, "oauth_token_url"),
    ],
)
def test_settings_that_contradict_each_other_say_what_is_missing(
    kafka: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        read_settings(kafka=kafka)


def test_a_certificate_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cert.pem"
    with pytest.raises(ConfigError, match=r"ssl_cert_file .*cert\.pem"):
        options(security_protocol="SSL", ssl_cert_file=str(path))


def test_clients_share_a_context_until_a_file_is_written_anew(tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    (example,) = ssl.create_default_context().get_ca_certs(binary_form=True)[:1]
    path.write_text(ssl.DER_cert_to_PEM_cert(example))
    tls = {"security_protocol": "SSL", "ssl_ca_file": str(path)}
    first, second = (options(**tls)["ssl_context"] for _ in range(2))
    assert first is second
    assert options(**tls, ssl_check_hostname=False)["ssl_context"] is not first
    os.utime(path, ns=(1, 1))
    assert options(**tls)["ssl_context"] is not first


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SaslAuthenticationFailed("no"), "refuses the account judge; check kafka.sasl_username"),
        (UnsupportedSaslMechanismError("no"), "kafka.sasl_mechanism"),
        (IllegalSaslStateError("no"), "wants no SASL"),
        (ssl.SSLCertVerificationError("no"), "kafka.ssl_ca_file"),
        (ssl.SSLError(1, "wrong version number"), "kafka.ssl_cert_file"),
        (KafkaConnectionError("closed"), "hangs up"),
        (ConnectionRefusedError("refused"), "kafka.bootstrap_servers"),
        (UnknownTopicOrPartitionError(), "stream-judge doctor"),
        (TokenError("kafka.oauth_token_file t is empty"), "kafka.oauth_token_file t is empty"),
    ],
)
async def test_why_no_broker_lets_in_is_said_once(
    error: BaseException, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    settings = read_settings(kafka={**SASL, **ACCOUNT}).kafka

    class Client:
        closed = False

        async def start(self) -> None:
            # As aiokafka does it.
            logging.getLogger("aiokafka").error('Unable connect to "%s:%s": %s', "h", 1, error)
            raise KafkaConnectionError("Unable to bootstrap")

        async def stop(self) -> None:
            self.closed = True

    client = Client()
    with pytest.raises(BrokerError) as found:
        await connect(client, settings)
    assert words in found.value.message
    assert "s3cret" not in found.value.message
    assert client.closed
    # asyncio may have something to say of a client that another test has left.
    assert [record for record in caplog.records if record.name != "asyncio"] == []


async def test_a_token_file_is_read_anew(tmp_path: Path) -> None:
    path = tmp_path / "token"
    found = options(
        security_protocol="SASL_SSL", sasl_mechanism="OAUTHBEARER", oauth_token_file=str(path)
    )
    provider = found["sasl_oauth_token_provider"]
    assert isinstance(provider, FileToken)
    with pytest.raises(BrokerError, match="oauth_token_file"):
        await provider.token()
    for text in ("first\n", "second\n"):
        path.write_text(text)
        assert await provider.token() == text.strip()
    path.write_text("\n")
    with pytest.raises(BrokerError, match="is empty"):
        await provider.token()


class Endpoint:
    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.answer: Any = {"access_token": "t-1", "expires_in": 3600}
        self.status = 200

    async def handle(self, request: web.Request) -> web.Response:
        kind, _, told = request.headers["Authorization"].partition(" ")
        assert kind == "Basic"
        self.asked.append((base64.b64decode(told).decode(), dict(await request.post())))
        return web.json_response(self.answer, status=self.status)


@pytest.fixture
async def endpoint() -> AsyncIterator[tuple[Endpoint, str]]:
    found = Endpoint()
    app = web.Application()
    app.router.add_post("/token", found.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield found, f"http://127.0.0.1:{runner.addresses[0][1]}/token"
    await runner.cleanup()


async def test_a_token_is_asked_for_once_while_it_is_good(endpoint: tuple[Endpoint, str]) -> None:
    served, url = endpoint
    provider = ClientCredentialsToken(url, "judge", "s3cret", "kafka")
    assert [await provider.token() for _ in range(3)] == ["t-1"] * 3
    assert served.asked == [
        ("judge:s3cret", {"grant_type": "client_credentials", "scope": "kafka"})
    ]


async def test_clients_of_several_loops_ask_for_a_token_once_each(
    endpoint: tuple[Endpoint, str],
) -> None:
    served, url = endpoint
    bearer = {"oauth_client_id": "judge", "oauth_client_secret": "s3cret", "oauth_token_url": url}
    providers = [
        options(**BEARER, **bearer)["sasl_oauth_token_provider"],
        options(**BEARER, **bearer)["sasl_oauth_token_provider"],
    ]
    assert await asyncio.gather(*(p.token() for p in providers * 8)) == ["t-1"] * 16
    # As Faust's consumer, in a thread with a loop of its own.
    assert await asyncio.to_thread(lambda: asyncio.run(providers[0].token())) == "t-1"
    assert len(served.asked) == 1


async def test_a_redirect_is_not_followed(endpoint: tuple[Endpoint, str]) -> None:
    served, url = endpoint
    served.status = 307
    with pytest.raises(TokenError, match="answers 307"):
        await ClientCredentialsToken(url, "judge", "s3cret").token()


def test_aiokafka_knows_the_error_of_a_missing_token() -> None:
    # Any other would end the task that keeps a client's metadata.
    assert issubclass(TokenError, KafkaError)


async def test_a_token_that_is_nearly_old_is_not_kept(endpoint: tuple[Endpoint, str]) -> None:
    served, url = endpoint
    served.answer = {"access_token": "t", "expires_in": 20}
    provider = ClientCredentialsToken(url, "judge", "s3cret")
    await provider.token()
    await provider.token()
    assert len(served.asked) == 2


async def test_a_refusal_names_the_settings_and_no_secret(endpoint: tuple[Endpoint, str]) -> None:
    served, url = endpoint
    served.status = 401
    with pytest.raises(BrokerError, match="oauth_client_secret") as found:
        await ClientCredentialsToken(url, "judge", "s3cret").token()
    assert "s3cret" not in found.value.message
    served.status, served.answer = 200, ["odd"]
    with pytest.raises(BrokerError, match="without access_token"):
        await ClientCredentialsToken(url, "judge", "s3cret").token()


class Brokers:
    """Three brokers, of which some are away."""

    def __init__(self, *away: int, error: type[KafkaError] = NodeNotReadyError) -> None:
        self.away = away
        self.error = error
        self.asked: list[int] = []
        nodes = [SimpleNamespace(nodeId=number) for number in range(3)]
        self.cluster = SimpleNamespace(brokers=lambda: nodes)

    async def send(self, node: int, request: object) -> str:
        self.asked.append(node)
        if node in self.away:
            raise self.error(node)
        return f"{node}"


@pytest.mark.parametrize("away", [(0, 1), (1, 2), (0, 2)])
async def test_a_question_for_any_broker_finds_the_one_that_is_there(away: tuple[int, ...]) -> None:
    brokers = Brokers(*away)
    for _ in range(8):
        assert await ask_any(brokers, "who") == f"{3 - sum(away)}"


async def test_a_question_that_no_broker_answers_fails_behind_the_last() -> None:
    brokers = Brokers(0, 1, 2)
    with pytest.raises(NodeNotReadyError):
        await ask_any(brokers, "who")
    assert sorted(brokers.asked) == [0, 1, 2]
    refusing = Brokers(0, 1, 2, error=UnsupportedSaslMechanismError)
    with pytest.raises(UnsupportedSaslMechanismError):
        await ask_any(refusing, "who")
    assert len(refusing.asked) == 1


class Client:
    """A consumer, or an administrative client, that starts when it is let."""

    def __init__(self, *topics: str, **options: Any) -> None:
        self.topics, self.options = topics, options
        self.may_start = asyncio.Event()
        self.stopped = 0

    async def start(self) -> None:
        await self.may_start.wait()

    async def stop(self) -> None:
        self.stopped += 1

    close = stop


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    made: list[Client] = []

    def make(*topics: str, **options: Any) -> Client:
        made.append(Client(*topics, **options))
        return made[-1]

    monkeypatch.setattr(connection, "AIOKafkaConsumer", make)
    monkeypatch.setattr(connection, "AIOKafkaAdminClient", make)
    return made


@pytest.mark.parametrize("opens", [open_consumer, open_admin])
async def test_a_client_comes_started_and_one_that_nobody_waits_for_is_closed(
    opens: Any, clients: list[Client]
) -> None:
    settings = read_settings().kafka
    for let in (True, False):
        opening = asyncio.create_task(opens(settings))
        await asyncio.sleep(0)
        (client,) = clients
        if let:
            client.may_start.set()
            assert await opening is client
        else:
            opening.cancel()
            with pytest.raises(asyncio.CancelledError):
                await opening
        assert client.stopped == (not let)
        clients.clear()


async def test_a_consumer_has_no_group_and_what_it_is_given(clients: list[Client]) -> None:
    opening = asyncio.create_task(
        open_consumer(read_settings().kafka, "t", isolation_level="read_committed")
    )
    await asyncio.sleep(0)
    clients[0].may_start.set()
    made = await opening
    assert (made.topics, made.options["group_id"]) == (("t",), None)
    assert made.options["isolation_level"] == "read_committed"
    assert made.options["bootstrap_servers"] == read_settings().kafka.bootstrap_servers


async def test_who_is_cancelled_while_a_client_closes_is_cancelled_and_the_client_closes() -> None:
    closing, go_on, closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def close() -> None:
        closing.set()
        # As aiokafka's do.
        with contextlib.suppress(asyncio.CancelledError):
            await go_on.wait()
        closed.set()

    waiting = asyncio.create_task(close_apart(close()))
    await closing.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not closed.is_set()
    go_on.set()
    await asyncio.wait_for(closed.wait(), 1)


async def test_what_a_client_raises_while_it_closes_is_said_and_ends_nobody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def close() -> None:
        raise KafkaConnectionError

    await close_apart(close())
    assert "client_not_closed" in capsys.readouterr().out


async def test_a_client_that_does_not_close_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_CLOSE_S", 0.01)
    hangs, closed = asyncio.Event(), asyncio.Event()

    async def close() -> None:
        await hangs.wait()
        closed.set()

    await asyncio.wait_for(close_apart(close()), 1)
    assert not closed.is_set()
    hangs.set()
    await asyncio.wait_for(closed.wait(), 1)
