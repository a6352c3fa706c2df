"""What comes in: a record of the source topic, and the product update in it."""

from __future__ import annotations

from dataclasses import dataclass

Headers = tuple[tuple[str, bytes | None], ...]


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One record of the source topic, bytes untouched.

    Attributes:
        topic: Source topic.
        partition: Partition in it.
        offset: Offset in it.
        timestamp_ms: Kafka timestamp, milliseconds since the epoch.
        key: Key bytes, or None.
        value: Value bytes; None is a tombstone.
        headers: All headers in order, repeats included.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    @property
    def size(self) -> int:
        """Bytes of key and value."""
        return len(self.key or b"") + len(self.value or b"")

    @property
    def place(self) -> str:
        """topic/partition/offset, as messages name a record."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class ProductUpdate:
    """A product as an event describes it.

    Attributes:
        product_id: The product's id; key of its verdicts.
        revision: The event's revision, if it has one.
        fields: Text fields by name, in the mapping's order, as lines of text.
        image_urls: Pictures in order; the first is the primary one.
        category: For policies' `applies_to`.
        locale: For policies' `applies_to`.
        seller: For policies' `applies_to`.
    """

    product_id: str
    revision: int | str | None
    fields: tuple[tuple[str, str], ...]
    image_urls: tuple[str, ...]
    category: str | None = None
    locale: str | None = None
    seller: str | None = None

    def text(self, names: tuple[str, ...]) -> str:
        """The named fields, joined by line breaks; those it lacks leave no line."""
        found = dict(self.fields)
        return "\n".join(found[name] for name in names if found.get(name))
