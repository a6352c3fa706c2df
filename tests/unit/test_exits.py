from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from stream_judge import exits
from stream_judge.errors import (
    BrokerError,
    DeadLetterLimitError,
    LaneLostError,
    OffsetError,
    PublishError,
    StalledError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (None, 0),
        (MemoryError(), 70),
        (StalledError("stuck"), 71),
        (LaneLostError("moved"), 72),
        (OffsetError("gone"), 73),
        (DeadLetterLimitError("many"), 74),
        (PublishError("no"), 75),
        # As of a token that a producer of a running worker does not get.
        (BrokerError("no"), 75),
    ],
)
def test_an_error_has_its_exit_code(error: BaseException | None, code: int) -> None:
    assert exits.exit_code(error) == code


def test_every_code_is_in_the_table() -> None:
    page = Path(__file__).parents[2].joinpath("docs/reliability.md").read_text(encoding="utf-8")
    table = {int(code) for code in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)}
    codes = {value for name, value in vars(exits).items() if name.isupper() and name[0] != "_"}
    assert codes <= table


# A command line that never gets further than loading its commands.
LOADING = """
import sys, time
from stream_judge import cli

def full_app():
    print("loading", flush=True)
    time.sleep(3600)

cli.full_app = full_app
sys.argv = ["stream-judge", sys.argv[1]]
cli.main()
"""
# A worker whose event loop has taken the signals over.
STARTED = """
import asyncio, sys
from stream_judge import exits
from stream_judge.settings import Settings
from stream_judge.worker import Worker

async def serve(*_):
    print("serving", flush=True)
    try:
        await asyncio.sleep(3600)
    finally:
        print("stopped in order", flush=True)

worker = Worker(Settings())
worker._serve = serve
with exits.stopping_at_once():
    code = asyncio.run(worker.run())
print("left", flush=True)
sys.exit(code)
"""


def signalled(script: str, number: int, *arguments: str) -> tuple[int, str]:
    """Exit code and last lines of a script that got a signal after its first line."""
    command = [sys.executable, "-c", script, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as child:
        assert child.stdout is not None
        try:
            assert child.stdout.readline()
            child.send_signal(number)
            said, _ = child.communicate(timeout=60)
        finally:
            child.kill()
        return child.returncode, said


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_still_loading_ends_with_0(number: int) -> None:
    assert signalled(LOADING, number, "worker") == (0, "")


def test_another_command_that_is_still_loading_ends_by_the_signal() -> None:
    assert signalled(LOADING, signal.SIGTERM, "demo") == (-signal.SIGTERM, "")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_runs_stops_in_order(number: int) -> None:
    assert signalled(STARTED, number) == (0, "stopped in order\nleft\n")


def test_the_handlers_of_before_are_put_back() -> None:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(KeyError), exits.stopping_at_once():
        assert [signal.getsignal(number) for number in numbers] != before
        raise KeyError
    assert [signal.getsignal(number) for number in numbers] == before
