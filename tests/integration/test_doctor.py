from __future__ import annotations

from pathlib import Path

from stream_judge.doctor import examine
from stream_judge.embedded.broker import EmbeddedBroker
from stream_judge.embedded.triton import EmbeddedTriton
from stream_judge.resources import resource
from stream_judge.settings import read_settings

TOPICS = {"product-updates": 2, "relevance-verdicts": 3, "relevance-dead-letters": 1}


async def test_all_is_well_and_another_model_is_noticed(
    triton: EmbeddedTriton, tmp_path: Path
) -> None:
    broker = EmbeddedBroker(TOPICS)
    await broker.start()
    settings = read_settings(
        # The mock broker knows no transactions, and doctor would say so.
        kafka={"bootstrap_servers": broker.bootstrap, "publisher": "plain"},
        triton={"url": triton.grpc_url},
    )
    findings = await examine(settings, resource("model_repo"))
    assert [finding for finding in findings if not finding.ok] == []
    assert {"policy exact", "policy any-colour", "policy by-samples"} <= {f.what for f in findings}

    assert "repository" in {finding.what for finding in findings if finding.status == "ok"}

    (tmp_path / "manifest.json").write_text('{"files": {}}')
    other = [finding for finding in await examine(settings, tmp_path) if not finding.ok]
    assert len(other) == 3
    assert "deploy the one" in other[0].detail
    await broker.stop()


async def test_what_is_missing_is_named_with_what_to_do() -> None:
    settings = read_settings(
        kafka={"bootstrap_servers": "127.0.0.1:1"}, triton={"url": "127.0.0.1:1"}
    )
    wrong = {finding.what: finding.detail for finding in await examine(settings) if not finding.ok}
    assert set(wrong) == {"broker", "triton"}
    assert "kafka.bootstrap_servers" in wrong["broker"]
    assert "stream-judge triton" in wrong["triton"]


async def test_a_mapping_that_is_not_there_is_found(tmp_path: Path) -> None:
    settings = read_settings(
        mapping=tmp_path / "none.yaml",
        kafka={"bootstrap_servers": "127.0.0.1:1"},
        triton={"url": "127.0.0.1:1"},
    )
    found = {finding.what: finding for finding in await examine(settings)}
    assert not found["mapping"].ok
