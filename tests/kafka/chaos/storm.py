"""One storm: a cluster, a stub model server, a crew of workers, a load, and what came of it."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from stream_judge.embedded.triton import EmbeddedTriton
from stream_judge.errors import EnvironmentProblem
from stream_judge.settings import KafkaSettings
from stream_judge.testing import kafka_environment
from stream_judge.testing_triton import StubTriton
from stream_judge.topics import create_topics
from tests.kafka.chaos.checker import (
    Findings,
    Outcome,
    SourceEntry,
    Terms,
    behind_last,
    check,
)
from tests.kafka.chaos.cluster import StormCluster
from tests.kafka.chaos.crew import Crew
from tests.kafka.chaos.endings import Codes, unexplained
from tests.kafka.chaos.load import TITLE, LoadGenerator, LoadPlan
from tests.kafka.chaos.logs import read_committed, read_outcomes, read_source
from tests.kafka.chaos.topics import delete_source, open_transaction_log
from tests.kafka.chaos.watch import Looks, Watch
from tests.name_server import NameServer

_HERE = Path(__file__).parent
# A shop whose own name server never answers: whoever asks for it gets no answer either.
_NAMELESS = frozenset({"dead-dns.shop.test."})
_ROOT = _HERE.parents[2]
_PROGRAMS = {"faust": _ROOT / "bench/plain_faust.py"}
_WORKER = _HERE / "worker_process.py"
_MOST_EXITS = 30
#: How long a storm may go on after its load and faults are over, seconds.
PATIENCE_S = 120.0
#: So long after a fault's end a commit has to come, seconds.
RECOVERY_S = 30.0
# The coordinator may be moving when all is over.
_OFFSETS_S = 15.0


@dataclass(frozen=True, slots=True)
class StormOptions:
    """What a storm is.

    Attributes:
        records: Source records.
        seed: Of every choice.
        partitions: Of the source topic.
        publisher: "transactional", "plain", or "faust" for `bench/plain_faust.py`.
        workers: Kept running by the supervisor.
        session_timeout_s: Of the group.
    """

    records: int = 600
    seed: int = 0
    partitions: int = 4
    publisher: str = "transactional"
    workers: int = 2
    session_timeout_s: float = 6.0


@dataclass(slots=True)
class Result:
    """A storm's verdict.

    Attributes:
        fault: What went wrong.
        options: Size and seed.
        found: What the checker says.
        hang: 1 if not all was done in time, or the fault has not happened.
        recovery_s: See `Watch.recovery_s`.
        held_back_s: See `Watch.held_back_s`.
        seconds: How long it took.
        exits: How many workers ended with each exit code, before they were stopped in the end.
        problems: What was not as promised beside what the checker says, in words: that it hangs,
            a recovery that took too long or could not be measured, and exit codes that the fault
            does not explain.
    """

    fault: str
    options: StormOptions
    found: Findings
    hang: int
    recovery_s: float | None
    held_back_s: float
    seconds: float
    exits: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def sound(self) -> bool:
        """Whether everything that is promised was kept."""
        return self.found.sound and not self.problems

    def as_dict(self) -> dict[str, Any]:
        """For JSON, all in one level."""
        flat: dict[str, Any] = asdict(self)
        options, found = flat.pop("options"), flat.pop("found")
        kept = {name: options[name] for name in ("seed", "records", "publisher", "partitions")}
        return {"fault": flat.pop("fault"), **kept, "sound": self.sound, **found, **flat}


class HoldingTriton(StubTriton):
    """A stub that can keep listings waiting, and answers workers' own rows meanwhile.

    Attributes:
        holds: While it is set, no listing is answered.
    """

    holds = False

    async def infer(self, request: Any) -> Any:
        """The answer to one request."""
        while self.holds and any(TITLE in content for content in request.raw_input_contents):
            await asyncio.sleep(0.05)
        return await super().infer(request)


class Storm:
    """What a fault works with.

    Args:
        cluster: Where it happens.
        options: Size and seed.
        plan: The load.
        env: Environment of the workers, beside what the storm sets.
        kafka: Their Kafka settings, beside those.
        exits: See `Fault`.
        static: Whether the workers are static members of their group.
        real: A real model server to use instead of the stub.
        log: Folder for the workers' logs.

    Attributes:
        crew: The workers.
        load: What is sent.
        triton: The stub of a model server; `latency` says how long it takes.
        real: The real one.
        name: What stands in the names of its topics, group and transactional ids.
        names: The name server that the workers ask: shops are on loopback.
    """

    def __init__(
        self,
        cluster: StormCluster,
        options: StormOptions,
        plan: LoadPlan,
        *,
        env: Mapping[str, str] | None = None,
        kafka: Mapping[str, Any] | None = None,
        exits: Codes | None = None,
        static: bool = False,
        real: EmbeddedTriton | None = None,
        log: Path | None = None,
    ) -> None:
        self.cluster = cluster
        self.options = options
        self.rng = random.Random(f"storm/{options.seed}")
        self.name = uuid.uuid4().hex[:8]
        self.settings = _settings(self.name, cluster, options, kafka or {})
        # Heavy-tailed, as a busy server is: 15 ms in the middle, some answers after a second.
        tail = random.Random(f"latency/{options.seed}")
        self.usual_latency: Callable[[], float]
        self.usual_latency = lambda: min(1.5, 0.015 * tail.paretovariate(1.6))
        self.latency = self.usual_latency
        self.triton = HoldingTriton(latency_s=lambda: self.latency())
        self.real = real
        self.crew = Crew(
            [sys.executable, str(_PROGRAMS.get(options.publisher, _WORKER))],
            dict(env or {}),
            options.workers,
            self.rng,
            log=log and log / self.settings.application,
            says_it_works=options.publisher not in _PROGRAMS,
            static=static,
        )
        self.load = LoadGenerator(self.settings, plan, options.partitions, options.seed)
        self._watch = Watch(cluster, self.settings)
        self._looks = Looks(cluster, self.settings)
        self._loading: asyncio.Task[None] | None = None
        # Source records that were judged before the source lost them.
        self._gone: list[SourceEntry] = []
        # Other workers write other verdicts.
        self._ours = options.publisher not in _PROGRAMS
        self._terms = Terms(self.settings.max_record_bytes) if self._ours else None
        self._exits = exits or {}
        self.names = NameServer("shop.test.", ["127.0.0.1"], silent=_NAMELESS)

    @property
    def done(self) -> int:
        """The sum of all committed offsets."""
        return self._watch.done

    @asynccontextmanager
    async def fault(self, logged: str = "") -> AsyncIterator[None]:
        """A fault that begins and ends; recovery is counted from its end.

        Args:
            logged: What a worker has to log meanwhile, or none has met the fault.
        """
        before = self._said(logged)
        yield
        self._watch.fault_is_over()
        if logged and self._ours and self._said(logged) == before:
            raise AssertionError(f"no worker has met the fault: none has logged {logged}")

    def _said(self, words: str) -> int:
        return sum(worker.said(words) for worker in self.crew.workers)

    async def until(self, share: float, seconds: float = 90.0) -> None:
        """Wait until this share of all records is committed."""
        least = share * self.options.records
        end = time.monotonic() + seconds
        while (done := self.done) < least:
            if self._loading is not None and self._loading.done():
                # A load that failed is no hang of the workers.
                self._loading.result()
            if sum(self.crew.exits.values()) > _MOST_EXITS:
                raise TimeoutError(f"workers end again and again: exit codes {self.crew.exits}")
            if time.monotonic() > end:
                raise TimeoutError(f"{done} of {least:.0f} committed after {seconds:.0f} s")
            await asyncio.sleep(0.05)

    async def verdicts(self) -> list[Outcome]:
        """What is on the verdict topic by now."""
        return await read_outcomes(self.settings, self.settings.verdict_topic)

    async def letters(self) -> list[Outcome]:
        """What is on the dead-letter topic by now."""
        return await read_outcomes(self.settings, self.settings.dead_letter_topic)

    async def forget_source(self) -> None:
        """Delete what is on the source now; what of it was judged stays to be accounted for."""
        committed = await read_committed(self.settings)
        source = await read_source(self.settings)
        self._gone = [e for e in source if e.place[1] < committed.get(e.place[0], 0)]
        await delete_source(self.settings, self.options.partitions)

    async def create_topics(self) -> None:
        """Make the topics that are not there yet."""
        copies = min(3, self.cluster.nodes)
        await create_topics(self.settings, self.options.partitions, copies)

    async def run(
        self,
        name: str,
        act: Callable[[Storm], Awaitable[None]],
        *,
        create: Callable[[Storm], Awaitable[None]] | None = None,
    ) -> Result:
        """The whole storm.

        Args:
            name: Of the fault.
            act: What goes wrong, while the load is sent.
            create: Makes the topics; by default all of them.
        """
        started = time.monotonic()
        await open_transaction_log(self.settings)
        await (create(self) if create else self.create_topics())
        server = self.real or self.triton
        await server.start()
        await self.names.start()
        self.crew.env = self._environment() | self.crew.env
        try:
            problem = await self._blow(act)
        finally:
            exits = dict(sorted(self.crew.exits.items()))
            for worker in self.crew.workers:
                if worker.alive:
                    worker.signals.add(signal.SIGTERM)
            await self.crew.stop()
            await server.stop()
            self.names.stop()
        found = await self._check(done=not problem)
        return Result(
            fault=name,
            options=self.options,
            found=found,
            hang=1 if problem else 0,
            recovery_s=self._watch.recovery_s(),
            held_back_s=round(self._watch.held_back_s, 2),
            seconds=round(time.monotonic() - started, 1),
            exits=exits,
            problems=self._problems(problem),
        )

    def _problems(self, problem: str) -> list[str]:
        found = [problem]
        if self._ours:
            found += [self._watch.lateness(RECOVERY_S)]
            found += unexplained(self.crew.workers, self._exits)
        return [words for words in found if words]

    async def _blow(self, act: Callable[[Storm], Awaitable[None]]) -> str:
        """Load and fault, to the end; says why not, if there is none."""
        for _ in range(self.crew.wanted):
            await self.crew.start()
        self._loading = asyncio.create_task(self.load.run())
        works = (self._watch.run, self._looks.run, self.crew.supervise)
        helpers = [asyncio.create_task(work()) for work in works]
        try:
            await self.crew.until_working(self.crew.workers[0])
            await act(self)
            await self._loading
            await self._until_all()
        except (TimeoutError, AssertionError, EnvironmentProblem) as exc:
            # Either no progress, or the fault itself did not happen: both are no success.
            return f"{type(exc).__name__}: {exc}"
        finally:
            await _end(*helpers, self._loading)
            results = await asyncio.gather(*helpers, self._loading, return_exceptions=True)
        broken = [r for r in results if isinstance(r, Exception)]
        if broken:
            raise broken[0]
        return ""

    async def _until_all(self) -> None:
        """Wait until the committed offsets stand at the source's end."""
        last = behind_last(await read_source(self.settings))
        end = time.monotonic() + PATIENCE_S
        while True:
            committed = await read_committed(self.settings)
            if all(committed.get(number, 0) >= offset for number, offset in last.items()):
                return
            if time.monotonic() > end:
                raise TimeoutError(f"committed {committed}, the source ends at {last}")
            await asyncio.sleep(0.2)

    async def _check(self, *, done: bool) -> Findings:
        source = self._gone + await read_source(self.settings)
        committed = await self._last_offsets(source)
        ends = await self.cluster.ends(self.settings.topic) if done else {}
        found = check(
            source,
            await self.verdicts(),
            await self.letters(),
            committed,
            ends={number: end for number, (_, end) in ends.items()} if done else None,
            passed=self._looks.passed_over(source),
            terms=self._terms,
        )
        self._watch.note(committed)
        found.turned_back = self._watch.turned_back
        return found

    async def _last_offsets(self, source: Sequence[SourceEntry]) -> dict[int, int]:
        """What is committed when all is over."""
        end = time.monotonic() + _OFFSETS_S
        while True:
            committed = await read_committed(self.settings)
            # The client takes a coordinator that is still loading for one that has nothing.
            if committed.keys() >= behind_last(source).keys() or time.monotonic() > end:
                return committed
            await asyncio.sleep(0.5)

    def _environment(self) -> dict[str, str]:
        given = {name: getattr(self.settings, name) for name in self.settings.model_fields_set}
        through_proxy = {"bootstrap_servers": self.cluster.workers_bootstrap}
        account = self.cluster.worker_account
        return kafka_environment(KafkaSettings(**given | through_proxy | account)) | {
            "PYTHONPATH": str(_ROOT),
            "STREAM_JUDGE_TRITON__URL": self.real.grpc_url if self.real else self.triton.url,
            "STREAM_JUDGE_TRITON__TIMEOUT_S": "5",
            "STREAM_JUDGE_POLICIES": str(_HERE / "policies"),
            "STREAM_JUDGE_WEB__PORT": "0",
            "STREAM_JUDGE_WINDOW__DRAIN_TIMEOUT_S": "2",
            "STREAM_JUDGE_WINDOW__RETRY_LAST_S": "2",
            "STREAM_JUDGE_IMAGES__NAME_SERVERS": f'["127.0.0.1:{self.names.port}"]',
        }


async def _end(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks until they have ended: a client of aiokafka that closes swallows a cancel."""
    pending: set[asyncio.Task[None]] = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=1.0)


def _settings(
    name: str, cluster: StormCluster, options: StormOptions, more: Mapping[str, Any]
) -> KafkaSettings:
    """Topics and a group of the storm's own."""
    given: dict[str, Any] = {
        "bootstrap_servers": cluster.bootstrap,
        "application": f"storm-{name}",
        "topic": f"updates-{name}",
        "verdict_topic": f"verdicts-{name}",
        "dead_letter_topic": f"letters-{name}",
        "publisher": "transactional" if options.publisher == "transactional" else "plain",
        "session_timeout_s": options.session_timeout_s,
        "transaction_deadline_s": 4.0,
        "transaction_timeout_s": 8.0,
        "request_timeout_s": 8.0,
    }
    return KafkaSettings(**given | dict(more))
