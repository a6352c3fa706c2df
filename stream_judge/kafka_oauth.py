"""Tokens for SASL/OAUTHBEARER: from a mounted file, or by OAuth client credentials."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import aiohttp
from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError

from stream_judge.errors import BrokerError

_TIMEOUT_S = 10.0
# A token must still be good when the broker looks at it.
_SPARE_S = 30.0
# Where an endpoint does not say how long its token is good.
_UNSAID_S = 60


class TokenError(BrokerError, KafkaConnectionError):  # type: ignore[misc]  # aiokafka has no types
    """There is no token now.

    It is an error of aiokafka's, too: one that aiokafka does not know ends the task that
    keeps its metadata, and the client never finds another leader. So it tries again.
    """


class FileToken(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """A token that something else writes and renews, such as a projected service account.

    Args:
        path: The file; read anew for every connection.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def token(self) -> str:
        """The token.

        Raises:
            TokenError: The file cannot be read, or is empty.
        """
        try:
            found = (await asyncio.to_thread(self._path.read_text, "ascii")).strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise TokenError(f"kafka.oauth_token_file {self._path}: {exc}") from exc
        if not found:
            raise TokenError(f"kafka.oauth_token_file {self._path} is empty")
        return found


class ClientCredentialsToken(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """A token by the client-credentials grant (RFC 6749, section 4.4), kept until it is old.

    Clients in several event loops may share it: each loop asks once at a time.

    Args:
        url: Token endpoint.
        client_id: Name of the client.
        secret: Its secret, sent by HTTP basic authentication.
        scope: What is asked for; None asks for the default.
    """

    def __init__(self, url: str, client_id: str, secret: str, scope: str | None = None) -> None:
        self._url = url
        told = base64.b64encode(f"{client_id}:{secret}".encode()).decode()
        self._headers = {"Authorization": f"Basic {told}"}
        self._form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
        self._kept = ("", float("-inf"))
        # Faust's consumer has an event loop of its own, and a lock belongs to one loop.
        self._asking: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock]
        self._asking = WeakKeyDictionary()

    async def token(self) -> str:
        """A token that is good for half a minute, or for as long as the endpoint's are.

        Raises:
            TokenError: The endpoint does not give one.
        """
        async with self._asking.setdefault(asyncio.get_running_loop(), asyncio.Lock()):
            token, until = self._kept
            if time.monotonic() >= until:
                token, seconds = _read(await self._ask(), self._url)
                self._kept = (token, time.monotonic() + max(0.0, seconds - _SPARE_S))
            return token

    async def _ask(self) -> Any:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                # A redirect would take the secret somewhere else.
                session.post(
                    self._url, data=self._form, headers=self._headers, allow_redirects=False
                ) as answer,
            ):
                if answer.status != 200:
                    raise TokenError(
                        f"kafka.oauth_token_url {self._url} answers {answer.status}; look at "
                        "kafka.oauth_client_id and kafka.oauth_client_secret"
                    )
                return await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            raise TokenError(f"kafka.oauth_token_url {self._url}: {exc!r}") from exc


def _read(answer: Any, url: str) -> tuple[str, float]:
    """Token and seconds of an endpoint's answer."""
    found = answer if isinstance(answer, dict) else {}
    token, seconds = found.get("access_token"), found.get("expires_in", _UNSAID_S)
    if not isinstance(token, str) or not isinstance(seconds, (int, float)):
        raise TokenError(f"kafka.oauth_token_url {url} answers without access_token")
    return token, float(seconds)
