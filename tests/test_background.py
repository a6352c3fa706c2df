from __future__ import annotations

import sys

from stream_judge.processes import ChildProcess
from tests.background import BackgroundLoop

LINES = 4_000


def test_a_process_that_says_much_is_read_while_nobody_waits_for_it() -> None:
    lines: list[str] = []
    # More than a pipe holds.
    command = [sys.executable, "-S", "-c", f"for n in range({LINES}): print('x' * 60)"]
    process = ChildProcess(command, env=None, on_line=lines.append)
    with BackgroundLoop() as background:
        background.run(process.start())
        assert background.run(process.wait()) == 0
    assert len(lines) == LINES
