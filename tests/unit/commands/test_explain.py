from __future__ import annotations

import sys
from typing import Any

import pytest

from stream_judge import cli
from stream_judge.commands import explain as module
from stream_judge.errors import BrokerError
from stream_judge.explain import Explanation

STATES = {
    "judged": 0,
    "dead_letter": 0,
    "superseded": 0,
    "in_lag": 0,
    "gone": 0,
    "not_there": 0,
    "unsettled": 0,
    "lost": 1,
}


def code_of(monkeypatch: pytest.MonkeyPatch, answer: Explanation | Exception) -> object:
    async def explain(*_: Any, **__: Any) -> Explanation:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(module, "explain", explain)
    monkeypatch.setattr(sys, "argv", ["stream-judge", "explain", "product-updates/0/1"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return stopped.value.code or 0


@pytest.mark.parametrize(("state", "code"), STATES.items())
def test_only_a_record_that_is_lost_is_a_bad_answer(
    state: str,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert code_of(monkeypatch, Explanation(state, "said")) == code
    assert capsys.readouterr().out == f"product-updates/0/1: {state}: said\n"


def test_a_question_that_the_broker_did_not_answer_has_an_exit_code_of_its_own(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert code_of(monkeypatch, BrokerError("no broker lets us in")) == 69
    said, aside = capsys.readouterr()
    assert (said, aside) == ("", "stream-judge: broker_unavailable: no broker lets us in\n")


def test_every_state_is_explained_where_the_command_is() -> None:
    said = module.explain_record.__doc__ or ""
    for state in STATES:
        assert f"{state}: " in said
