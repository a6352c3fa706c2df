"""The worker's metrics. Names and labels are a contract, listed in `docs/metrics.md`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase

_SECONDS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
# Events wait out outages and restarts.
_AGES = (0.1, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600)
_ROWS = (1, 2, 4, 8, 16, 32)


class Metrics:
    """All metrics of one worker, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.outcomes = Counter(
            "stream_judge_outcomes",
            "Outcomes published, by kind (judged, unjudgeable, dead_letter, tombstone) and code.",
            ("kind", "code"),
            registry=self.registry,
        )
        self.decisions = Counter(
            "stream_judge_decisions",
            "Verdicts published, by decision (publish, review, block).",
            ("decision",),
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "stream_judge_stage_seconds",
            "Seconds spent in a stage (decode, images, infer, publish).",
            ("stage",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.record_seconds = Histogram(
            "stream_judge_record_seconds",
            "Seconds from a record's entry into the window to its outcome's confirmation; what it "
            "waited for before is not in it.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.event_age_seconds = Histogram(
            "stream_judge_event_age_seconds",
            "Seconds from a source record's timestamp to its outcome's confirmation: how late "
            "verdicts are, by the worker's clock and the timestamp's.",
            buckets=_AGES,
            registry=self.registry,
        )
        self.batch_rows = Histogram(
            "stream_judge_batch_rows",
            "Rows in a request to Triton.",
            buckets=_ROWS,
            registry=self.registry,
        )
        self.retries = Counter(
            "stream_judge_retries",
            "Requests to the model server that were repeated because it was out, by code "
            "(triton_unavailable, triton_timeout, bad_output).",
            ("code",),
            registry=self.registry,
        )
        self.transaction_failures = Counter(
            "stream_judge_transaction_failures",
            "Attempts at a transaction that failed, by code (fenced: the broker has shut the "
            "producer out; outage: the broker is away or late; refused: it said no).",
            ("code",),
            registry=self.registry,
        )
        self.rebalances = Counter(
            "stream_judge_rebalances",
            "Assignments of partitions that the worker was given, its first included.",
            registry=self.registry,
        )
        self.circuit_open = Gauge(
            "stream_judge_circuit_open",
            "1 while something of the operator's is known to be out (triton, kafka, resolver, "
            "object_store, machine, decoder), or one picture of an own store is waited for.",
            ("dependency",),
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "stream_judge_in_flight_records",
            "Records taken in whose outcomes are not confirmed yet.",
            registry=self.registry,
        )
        self.in_flight_bytes = Gauge(
            "stream_judge_in_flight_bytes",
            "Bytes of keys and values of those records.",
            registry=self.registry,
        )
        self.oldest_in_flight = Gauge(
            "stream_judge_oldest_in_flight_seconds",
            "Seconds since the oldest record in flight was taken in; 0 without one.",
            registry=self.registry,
        )
        self.lag = Gauge(
            "stream_judge_lag_records",
            "Offsets from the next outcome to the end of the log, by assigned partition. It counts "
            "offsets, not records: markers of transactions and records compacted away have one.",
            ("partition",),
            registry=self.registry,
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure a block as one stage."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.stage_seconds.labels(name).observe(time.monotonic() - started)

    def page(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)


def metrics_table() -> str:
    """A Markdown table of all metrics, for `docs/metrics.md`."""
    lines = ["| name | type | labels | meaning |", "|---|---|---|---|"]
    for metric in vars(Metrics()).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            labels = ", ".join(metric._labelnames) or "-"
            lines.append(f"| `{name}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join(lines) + "\n"
