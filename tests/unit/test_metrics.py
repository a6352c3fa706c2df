from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client.metrics import MetricWrapperBase

from stream_judge.metrics import Metrics
from stream_judge.settings import KafkaSettings, Settings
from stream_judge.testing import MemoryPublisher
from stream_judge.worker import Worker

# What dashboards and alerts are built on: it changes only with a major version.
CONTRACT = {
    "stream_judge_outcomes_total": ("counter", ("kind", "code")),
    "stream_judge_decisions_total": ("counter", ("decision",)),
    "stream_judge_stage_seconds": ("histogram", ("stage",)),
    "stream_judge_record_seconds": ("histogram", ()),
    "stream_judge_event_age_seconds": ("histogram", ()),
    "stream_judge_batch_rows": ("histogram", ()),
    "stream_judge_retries_total": ("counter", ("code",)),
    "stream_judge_transaction_failures_total": ("counter", ("code",)),
    "stream_judge_rebalances_total": ("counter", ()),
    "stream_judge_circuit_open": ("gauge", ("dependency",)),
    "stream_judge_in_flight_records": ("gauge", ()),
    "stream_judge_in_flight_bytes": ("gauge", ()),
    "stream_judge_oldest_in_flight_seconds": ("gauge", ()),
    "stream_judge_lag_records": ("gauge", ("partition",)),
}


def test_names_types_and_labels_are_those_of_the_contract() -> None:
    metrics = Metrics()
    found = {}
    for metric in vars(metrics).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            total = "_total" if family.type == "counter" else ""
            found[family.name + total] = (family.type, tuple(metric._labelnames))
    assert found == CONTRACT
    # And on the page is nothing else.
    page = metrics.page().decode().splitlines()
    types = [line.split()[2:] for line in page if line.startswith("# TYPE ")]
    shown = {name: kind for name, kind in types if not name.endswith("_created")}
    assert shown == {name: kind for name, (kind, _) in CONTRACT.items()}


def test_an_events_age_is_told_apart_up_to_an_hour() -> None:
    metrics = Metrics()
    for age_s in (0.3, 59, 3599, 3601):
        metrics.event_age_seconds.observe(age_s)
    name = "stream_judge_event_age_seconds_bucket"
    found = {
        le: metrics.registry.get_sample_value(name, {"le": le})
        for le in ("0.5", "60.0", "1800.0", "3600.0", "+Inf")
    }
    assert found == {"0.5": 1, "60.0": 2, "1800.0": 2, "3600.0": 3, "+Inf": 4}


async def test_every_assignment_is_counted_also_one_that_cannot_be_opened() -> None:
    worker = Worker(Settings(kafka=KafkaSettings(application="test-metrics")))
    publisher = MemoryPublisher()
    pipeline: Any = SimpleNamespace(assign=lambda *_: None)
    hooks = worker._hooks(pipeline, publisher)
    value = worker._metrics.registry.get_sample_value
    assert value("stream_judge_rebalances_total") == 0
    await hooks.assign({0, 1}, 1, 1)
    await hooks.assign(set(), 2, 2)

    async def refuse(*_: Any) -> Any:
        raise OSError

    publisher.open = refuse  # type: ignore[method-assign]  # a broker that is away
    with pytest.raises(OSError):
        await hooks.assign({0}, 3, 3)
    assert value("stream_judge_rebalances_total") == 3
