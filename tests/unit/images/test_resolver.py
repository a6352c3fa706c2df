from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from stream_judge.images import resolver as module
from stream_judge.images.guard import AddressGuard
from stream_judge.images.lookup import make_lookup
from stream_judge.images.resolver import GuardedResolver, domain_of
from stream_judge.images.turns import Slots, Turn


class NameServer:
    """Answers names of `.test`; those under a dead domain when the test says so."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.dead: set[str] = set()
        self.gate = threading.Event()

    def getaddrinfo(self, host: str, port: int, **more: Any) -> Any:
        self.asked.append(host)
        if domain_of(host) in self.dead:
            self.gate.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("1.1.1.1", port))]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> NameServer:
    found = NameServer()
    monkeypatch.setattr(socket, "getaddrinfo", found.getaddrinfo)
    return found


@pytest.fixture
async def resolver(server: NameServer) -> AsyncIterator[GuardedResolver]:
    found = GuardedResolver(AddressGuard((), (), (80,)), make_lookup(()))
    yield found
    server.gate.set()
    await found.close()


def ask(resolver: GuardedResolver, *domains: str, each: int = 40) -> list[asyncio.Task[Any]]:
    names = [f"{i}.{domain}" for domain in domains for i in range(each)]
    return [asyncio.create_task(resolver.resolve(name, 80)) for name in names]


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0.001)


async def end(server: NameServer, tasks: list[asyncio.Task[Any]]) -> None:
    server.gate.set()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("a.b.seller.example", "seller.example"),
        ("Seller.Example.", "seller.example"),
        ("store", "store"),
        ("img.seller.co.uk", "seller.co.uk"),
        ("img.other.com.br", "other.com.br"),
        ("co.uk", "co.uk"),
        ("a.b.io", "b.io"),
    ],
)
def test_a_domain_is_what_one_seller_has(host: str, domain: str) -> None:
    assert domain_of(host) == domain


async def test_a_domain_of_dead_names_leaves_threads_to_the_others(
    server: NameServer, resolver: GuardedResolver
) -> None:
    server.dead = {"dead.test"}
    dead = ask(resolver, "dead.test")
    await settle()
    assert len(server.asked) == module._THREADS_OF_DOMAIN
    async with asyncio.timeout(5):
        found = await resolver.resolve("img.seller.test", 80)
    assert found[0]["host"] == "1.1.1.1"
    await end(server, dead)


async def test_who_waits_for_a_thread_is_not_late(
    server: NameServer, resolver: GuardedResolver
) -> None:
    server.dead = {f"dead{i}.test" for i in range(4)}
    dead = ask(resolver, *server.dead, each=8)
    await settle()
    slots = Slots(1, 1)
    turn = Turn(slots, time_s=0.1, spare_s=10.0)

    async def attempt() -> Any:
        async with turn.attempt(), turn.slot("img.seller.test", own=False):
            return await resolver.resolve("img.seller.test", 80)

    waiting = asyncio.create_task(attempt())
    await asyncio.sleep(0.3)
    assert not waiting.done()
    assert "img.seller.test" not in server.asked
    # Nor does it keep its slot from those who need no lookup.
    async with asyncio.timeout(1), slots.one("another"):
        pass
    server.gate.set()
    assert (await waiting)[0]["host"] == "1.1.1.1"
    await end(server, dead)


async def test_a_dead_name_server_takes_the_time_of_an_attempt(
    server: NameServer, resolver: GuardedResolver
) -> None:
    server.dead = {"dead.test"}
    turn = Turn(Slots(1, 1), time_s=0.1, spare_s=10.0)
    with pytest.raises(TimeoutError):
        async with turn.attempt(), turn.slot("a.dead.test", own=False):
            await resolver.resolve("a.dead.test", 80)


async def test_a_lookup_that_nobody_waits_for_any_more_takes_no_thread(
    server: NameServer, resolver: GuardedResolver
) -> None:
    server.dead = {"dead.test"}
    dead = ask(resolver, "dead.test")
    await settle()
    begun = list(server.asked)
    for task in dead:
        task.cancel()
    await asyncio.wait(dead)
    again = asyncio.create_task(resolver.resolve("39.dead.test", 80))
    await end(server, [again])
    assert isinstance(again.exception(), socket.gaierror)
    assert server.asked == [*begun, "39.dead.test"]
    await settle()
    assert not resolver._pending
    assert not resolver._slots._lines


async def test_closing_ends_lookups_that_wait_for_a_thread(
    server: NameServer, resolver: GuardedResolver
) -> None:
    server.dead = {"dead.test"}
    dead = ask(resolver, "dead.test")
    await settle()
    async with asyncio.timeout(5):
        await resolver.close()
        await asyncio.wait(dead)
    assert not resolver._pending


@pytest.mark.parametrize("files", [0, 1])
async def test_a_machine_without_files_says_nothing_of_a_name(
    server: NameServer, resolver: GuardedResolver, monkeypatch: pytest.MonkeyPatch, files: int
) -> None:
    real = socket.socket

    def opened(*args: Any) -> socket.socket:
        if not files:
            raise OSError(errno.EMFILE, "Too many open files")
        return real(*args)

    # With no file left the system calls every name an unknown one.
    server.dead = {"seller.test"}
    server.gate.set()
    monkeypatch.setattr(socket, "socket", opened)
    with pytest.raises(OSError) as caught:
        await resolver.resolve("a.seller.test", 80)
    assert caught.value.errno == (socket.EAI_AGAIN if files else errno.EMFILE)
