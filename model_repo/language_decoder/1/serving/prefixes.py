"""Key/value caches of policy prefixes: computed once, resident in the host's memory, bounded."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Prefix:
    """A policy that is ready to judge with.

    Attributes:
        digest: The bundle's name.
        length: Tokens of the prefix.
        keys_values: Graph input name -> float32 [1, heads, length, head size].
        max_text_tokens: Tokens of a listing's text that are read under it.
    """

    digest: str
    length: int
    keys_values: dict[str, Array]
    max_text_tokens: int

    @property
    def nbytes(self) -> int:
        """Memory that the cache holds."""
        return sum(array.nbytes for array in self.keys_values.values())


class PrefixCache:
    """Prefixes by digest; the least recently used leaves when a bound is reached.

    Args:
        max_bytes: Bound on the memory of all prefixes; the newest always stays.
        max_entries: Bound on their number.
    """

    def __init__(self, *, max_bytes: int, max_entries: int) -> None:
        self._max_bytes = max_bytes
        self._max_entries = max_entries
        self._entries: OrderedDict[str, Prefix] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, digest: str) -> Prefix | None:
        """The prefix of that name, marked as used now."""
        prefix = self._entries.get(digest)
        if prefix is not None:
            self._entries.move_to_end(digest)
        return prefix

    def put(self, prefix: Prefix) -> None:
        """Keep a prefix, and let others go until the bounds hold."""
        former = self._entries.pop(prefix.digest, None)
        self._bytes += prefix.nbytes - (former.nbytes if former else 0)
        self._entries[prefix.digest] = prefix
        while len(self._entries) > 1 and (
            self._bytes > self._max_bytes or len(self._entries) > self._max_entries
        ):
            _, gone = self._entries.popitem(last=False)
            self._bytes -= gone.nbytes
