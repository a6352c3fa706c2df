"""What a fault is, and the register of all of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.kafka.chaos.endings import Codes
from tests.kafka.chaos.load import SIMPLE, LoadPlan
from tests.kafka.chaos.storm import Storm

Act = Callable[[Storm], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault of the suite.

    Attributes:
        name: On the command line.
        act: What goes wrong while the load is sent.
        says: One line for `--list`.
        nodes: Brokers; three for what moves between them.
        own: Whether it needs a cluster of its own: it hurts the broker.
        plan: Changes to the load.
        load_s: How long the load lasts, however many records it has, seconds.
        env: Environment of the workers.
        kafka: Kafka settings of the workers.
        create: Makes the topics, where not all of them are there from the start.
        workers: Kept running.
        static: Whether they are static members of their group.
        accounts: Whether they have to log in; needs a cluster of its own.
        real_model: Whether the model server is a real Triton.
        picture: URL of the n-th update's picture on a picture server's port; without it
            pictures are stand-ins.
        exits: Exit codes that workers may end with, beside 0 and the signals that the suite
            sends: the fault explains them. Of each, what the log of such a worker has to say.
        publishers: Which of the two it can say anything about.
    """

    name: str
    act: Act
    says: str
    nodes: int = 1
    own: bool = False
    plan: Mapping[str, Any] = field(default_factory=dict)
    load_s: float = 40.0
    env: Mapping[str, str] = field(default_factory=dict)
    kafka: Mapping[str, Any] = field(default_factory=dict)
    create: Act | None = None
    workers: int = 2
    static: bool = False
    accounts: bool = False
    real_model: bool = False
    picture: Callable[[int, int], str] | None = None
    exits: Codes = field(default_factory=dict)
    publishers: tuple[str, ...] = ("transactional", "plain")

    def load(self, records: int, port: int = 0) -> LoadPlan:
        """The load of a storm with so many records, pictures on a port."""
        # However many there are: the load lasts long enough for every fault to hit it.
        pace = records / self.load_s
        given: dict[str, Any] = {"records": records, "per_second": pace, "poison": SIMPLE}
        if (url := self.picture) is not None:
            given["picture"] = lambda number: url(number, port)
        return LoadPlan(**given | dict(self.plan))


FAULTS: dict[str, Fault] = {}


def fault(**given: Any) -> Callable[[Act], Act]:
    """Register a coroutine under its own name; its docstring is what `--list` says."""

    def register(act: Act) -> Act:
        name = act.__name__
        FAULTS[name] = Fault(name=name, act=act, says=(act.__doc__ or "").strip(), **given)
        return act

    return register
