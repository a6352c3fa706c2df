"""What a gate keeps of the verdict topic: the newest word on every product."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import orjson

from stream_judge.errors import DecodeError

Decision = Literal["publish", "review", "block"]
Revision = int | str | None
#: Topic, partition and offset of a record.
Place = tuple[str, int, int]


@dataclass(frozen=True, slots=True)
class Kept:
    """The newest word on one product.

    Attributes:
        revision: Of the update that was judged; None where updates have none.
        partition: Source partition of that update.
        offset: Its offset there.
        verdict: The verdict; None for a product that is gone.
        highest: The highest revision that was judged so far: a verdict that names none, as
            that of an update which could not be read, does not let an earlier one return.
    """

    revision: Revision
    partition: int
    offset: int
    verdict: Mapping[str, Any] | None
    highest: Revision = None


class GateState:
    """The newest verdict of every product; pure bookkeeping.

    Args:
        replays: Whether verdicts of replays count, too.
    """

    def __init__(self, *, replays: bool = False) -> None:
        self._replays = replays
        self._kept: dict[str, Kept] = {}
        # By product, then by partition of the verdict topic: what is wrong there.
        self._unreadable: dict[str, dict[tuple[str, int], str]] = {}

    def __len__(self) -> int:
        return sum(kept.verdict is not None for kept in self._kept.values())

    @property
    def unreadable(self) -> int:
        """How many products have a record that is no verdict."""
        return len(self._unreadable)

    def problem(self, product: str) -> str | None:
        """Where a record of a product's lies that is no verdict; None where there is none."""
        return next(iter(self._unreadable.get(product, {}).values()), None)

    def apply(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Mapping[str, bytes | None],
        place: Place = ("", 0, 0),
    ) -> str | None:
        """Take in a record of the verdict topic.

        Args:
            key: The product's id, UTF-8.
            value: The verdict, or None: the product is gone.
            headers: By name.
            place: Of the record; records of one partition come in its order.

        Returns:
            The product whose answer may have changed; None if none did.

        Raises:
            DecodeError: It is no verdict of stream_judge's. Its product gets no `publish` any
                more, until a later record of its key in its partition can be read, which is all
                that compaction leaves of the two.
        """
        if key is None or ("sj-replay" in headers and not self._replays):
            return None
        product = key.decode("utf-8", "replace")
        try:
            new = _read(value, headers)
        except DecodeError as exc:
            topic, partition, offset = place
            says = f"{topic}/{partition}/{offset}: the record of product {product} is no verdict"
            says = f"{says}: {exc.message}"
            self._unreadable.setdefault(product, {})[topic, partition] = says
            raise DecodeError(says) from exc
        released = self._release(product, place)
        old = self._kept.get(product)
        if old is not None:
            if not _is_newer(new, old):
                return product if released else None
            if new.verdict is not None and new.revision is None:
                new = replace(new, highest=old.highest)
        self._kept[product] = new
        return product

    def find(self, product: str, revision: Revision = None) -> Mapping[str, Any] | None:
        """The verdict that holds for a revision of a product; None if there is none yet.

        A verdict of a later revision holds for an earlier one: that one is history. One of
        an earlier revision says nothing about a later one. Where the two cannot be compared,
        as with the verdict on an update that could not be read, it may hold a product back
        and never let it through: nobody knows whether that revision was judged. A record that
        is no verdict lets no other let its product through, see `apply`.
        """
        kept = self._kept.get(product)
        if kept is None or kept.verdict is None:
            return None
        if product in self._unreadable and kept.verdict["decision"] == "publish":
            return None
        if revision is None:
            return kept.verdict
        if not _comparable(kept.revision, revision):
            return kept.verdict if kept.verdict["decision"] != "publish" else None
        return kept.verdict if kept.revision >= revision else None  # type: ignore[operator]  # comparable

    def _release(self, product: str, place: Place) -> bool:
        """Whether a record that could not be read gives way to this one."""
        found = self._unreadable.get(product, {})
        if found.pop(place[:2], None) is None:
            return False
        if not found:
            del self._unreadable[product]
        return True


def _read(value: bytes | None, headers: Mapping[str, bytes | None]) -> Kept:
    """A record of the verdict topic."""
    try:
        verdict = orjson.loads(value) if value is not None else None
        revision = verdict["revision"] if verdict is not None else None
        if not isinstance(revision, Revision):
            raise TypeError(f"revision {revision!r:.80}")
        if verdict is not None and verdict["decision"] not in get_args(Decision):
            raise ValueError(f"decision {verdict['decision']!r:.80}")
        partition = int(headers.get("sj-source-partition") or -1)
        offset = int(headers.get("sj-source-offset") or -1)
    except (ValueError, KeyError, TypeError) as exc:
        raise DecodeError(repr(exc)) from exc
    return Kept(revision, partition, offset, verdict, highest=revision)


def _comparable(one: Revision, other: Revision) -> bool:
    return one is not None and type(one) is type(other)


def _is_newer(new: Kept, old: Kept) -> bool:
    """Whether a record is the later word on its product.

    Revisions decide where both have one; an equal one judged again replaces the first. Else
    the source's order does, which is the product's own as long as it stays in one partition.
    """
    if _comparable(new.revision, old.highest) and new.revision != old.highest:
        return new.revision > old.highest  # type: ignore[operator]  # comparable
    return new.partition != old.partition or new.offset >= old.offset
