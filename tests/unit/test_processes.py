from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time

from stream_judge.processes import ChildProcess

PARENT = """
import asyncio, sys
from stream_judge.processes import ChildProcess

async def main():
    child = ChildProcess([sys.executable, "-c", "import time; time.sleep(60)"], env=None,
                         on_line=print)
    await child.start()
    print(child.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def run(*command: str) -> tuple[int, list[str]]:
    lines: list[str] = []
    child = ChildProcess(command, env=None, on_line=lines.append)
    await child.start()
    async with asyncio.timeout(30):
        return await child.wait(), lines


def test_a_child_is_killed_with_its_parent() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_running(pid)


async def test_lines_and_exit_code_are_passed_on() -> None:
    said = (
        "import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr); sys.exit(3)"
    )
    assert await run(sys.executable, "-c", said) == (3, ["out", "err"])


async def test_a_program_that_is_not_there_is_said() -> None:
    code, lines = await run("/nowhere/tritonserver")
    assert code == 127
    assert lines == ["/nowhere/tritonserver: No such file or directory"]
