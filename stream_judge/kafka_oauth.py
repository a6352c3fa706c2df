"""Tokens for SASL/OAUTHBEARER: from a mounted file, or by OAuth client credentials."""

from __future__ import annotations

import asyncio
import base64
import time
from pathlib import Path
from typing import Any

import aiohttp
from aiokafka.abc import AbstractTokenProvider

from stream_judge.errors import PublishError

_TIMEOUT_S = 10.0
# A token must still be good when the broker looks at it.
_SPARE_S = 30.0


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
            PublishError: The file cannot be read, or is empty.
        """
        try:
            found = (await asyncio.to_thread(self._path.read_text, "ascii")).strip()
        except (OSError, UnicodeDecodeError) as exc:
            raise PublishError(f"kafka.oauth_token_file {self._path}: {exc}") from exc
        if not found:
            raise PublishError(f"kafka.oauth_token_file {self._path} is empty")
        return found


class ClientCredentialsToken(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka has no types
    """A token by the client-credentials grant (RFC 6749, section 4.4), kept until it is old.

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
        self._token = ""
        self._until = float("-inf")

    async def token(self) -> str:
        """A token that is good for half a minute at least.

        Raises:
            PublishError: The endpoint does not give one.
        """
        if time.monotonic() < self._until:
            return self._token
        answer = await self._ask()
        token, seconds = answer.get("access_token"), answer.get("expires_in", 60)
        if not isinstance(token, str) or not isinstance(seconds, (int, float)):
            raise PublishError(f"kafka.oauth_token_url {self._url} answers without access_token")
        self._token = token
        self._until = time.monotonic() + max(0.0, seconds - _SPARE_S)
        return token

    async def _ask(self) -> dict[str, Any]:
        timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(self._url, data=self._form, headers=self._headers) as answer,
            ):
                if answer.status != 200:
                    raise PublishError(
                        f"kafka.oauth_token_url {self._url} answers {answer.status}; look at "
                        "kafka.oauth_client_id and kafka.oauth_client_secret"
                    )
                found = await answer.json(content_type=None)
        except (aiohttp.ClientError, TimeoutError, ValueError) as exc:
            raise PublishError(f"kafka.oauth_token_url {self._url}: {exc!r}") from exc
        return found if isinstance(found, dict) else {}
