from __future__ import annotations

import pytest
from yarl import URL

from stream_judge.errors import (
    ImageAnswerError,
    ImageBlockedError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageUrlError,
    StoreOutError,
)
from stream_judge.images.probe import StoreProbe, origin_of, tells
from stream_judge.outage import Tells

HOSTS = frozenset({"store.test", "other.test"})


class Servers:
    """Answer what they are told to, by origin; the others are out."""

    def __init__(self, **statuses: int) -> None:
        self.statuses = {f"http://{name}.test:80": status for name, status in statuses.items()}
        self.asked: list[str] = []

    async def ask(self, url: URL) -> int | None:
        self.asked.append(str(url))
        return self.statuses.get(origin_of(url))


def make(servers: Servers, *, ports: frozenset[int] = frozenset({80, 443})) -> StoreProbe:
    return StoreProbe(servers.ask, HOSTS, ports)


@pytest.mark.parametrize(
    ("url", "owned"),
    [
        ("http://store.test/a", True),
        ("https://STORE.test:443/a", True),
        ("http://store.test:9000/a", True),
        ("https://store.test:9000/a", True),
        ("https://store.test:80/a", False),
        ("http://store.test:443/a", False),
        ("http://store.test:1/a", False),
        ("http://seller.test/a", False),
    ],
)
def test_the_store_is_at_default_ports_and_at_those_that_are_allowed(url: str, owned: bool) -> None:
    probe = make(Servers(), ports=frozenset({443, 9000}))
    assert probe.owns(URL(url)) is owned


def test_the_store_is_also_where_a_picture_came_from() -> None:
    probe = make(Servers())
    probe.came(URL("http://store.test:1/a"))
    probe.came(URL("http://seller.test/a"))
    assert probe.owns(URL("http://store.test:1/b"))
    assert not probe.owns(URL("https://store.test:1/b"))
    assert not probe.owns(URL("http://other.test:1/b"))
    assert not probe.owns(URL("http://seller.test/b"))


async def test_for_an_origin_that_gave_no_picture_one_of_its_host_that_did_answers() -> None:
    servers = Servers(store=404)
    probe = make(servers)
    probe.came(URL("http://store.test/a"))
    probe.came(URL("http://other.test/a"))
    assert await probe.answers(URL("https://store.test/x/b"))
    assert sorted(servers.asked) == [
        "http://store.test/a",
        "https://store.test/x/stream_judge_probe",
    ]


async def test_for_an_origin_that_gave_pictures_no_other_answers() -> None:
    servers = Servers(store=200)
    probe = make(servers)
    probe.came(URL("http://store.test/a"))
    probe.came(URL("https://store.test/a"))
    assert not await probe.answers(URL("https://store.test/b"))
    assert servers.asked == ["https://store.test/a"]


async def test_before_any_picture_the_store_is_asked_wherever_it_may_be() -> None:
    servers = Servers(store=404)
    probe = make(servers, ports=frozenset({80, 443, 9000}))
    assert await probe.answers(URL("https://store.test/x/b"))
    assert sorted(origin_of(URL(asked)) for asked in servers.asked) == [
        "http://store.test:80",
        "http://store.test:9000",
        "https://store.test:443",
        "https://store.test:9000",
    ]
    assert {URL(asked).path for asked in servers.asked} == {"/x/stream_judge_probe"}


async def test_another_store_says_nothing_of_one_that_is_out_since_the_start() -> None:
    servers = Servers(other=200)
    probe = make(servers)
    probe.came(URL("http://other.test/a"))
    assert not await probe.answers(URL("http://store.test/b"))


STORE, SELLER = URL("http://store.test/a"), URL("http://seller.test/a")
NOT_FOUND, GONE = ImageNotFoundError("", status=404), ImageNotFoundError("", status=410)
REFUSED, USELESS = ImageNotFoundError("", status=403), ImageAnswerError("")
LARGE, BLOCKED, BAD = ImageTooLargeError(""), ImageBlockedError(""), ImageUrlError("")


@pytest.mark.parametrize(
    ("hops", "end", "told"),
    [
        ([STORE], None, Tells.ANSWERS),
        ([SELLER, STORE], None, Tells.ANSWERS),
        ([STORE], NOT_FOUND, Tells.ANSWERS),
        ([SELLER, STORE], GONE, Tells.ANSWERS),
        ([STORE], LARGE, Tells.ANSWERS),
        ([STORE], REFUSED, Tells.REACHED),
        ([STORE], USELESS, Tells.REACHED),
        ([STORE, SELLER], None, Tells.REACHED),
        ([STORE, SELLER], NOT_FOUND, Tells.REACHED),
        ([STORE, STORE], StoreOutError("", origin="http://other.test:80"), Tells.REACHED),
        ([STORE], BLOCKED, Tells.NOTHING),
        ([STORE], BAD, Tells.NOTHING),
        ([SELLER], None, Tells.NOTHING),
        ([SELLER], NOT_FOUND, Tells.NOTHING),
        ([URL("https://store.test/a")], None, Tells.NOTHING),
        ([URL("http://store.test:1/a")], NOT_FOUND, Tells.NOTHING),
    ],
)
def test_the_end_of_an_attempt_tells_of_a_store_only_if_it_was_there(
    hops: list[URL], end: Exception | None, told: Tells
) -> None:
    assert tells(hops, origin_of(STORE), end) is told
