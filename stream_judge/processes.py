"""Child processes that never outlive their parent."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence

from stream_judge import launch

OnLine = Callable[[str], None]


def free_port() -> int:
    """A TCP port of loopback that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def port_in_use(port: int) -> bool:
    """Whether somebody listens on a TCP port of loopback."""
    with socket.socket() as probe:
        # A port whose last connections only linger may be listened on.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def owned(command: Sequence[str]) -> list[str]:
    """The command, started so that it is killed when this process's main thread ends.

    Linux only; elsewhere a killed parent leaves the child running.
    """
    return [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), *command]


class ChildProcess:
    """A process in a group of its own, whose output goes to a callback line by line.

    Args:
        command: Program and arguments.
        env: Environment; None for this process's.
        on_line: Receives each line of stdout and stderr.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str] | None, on_line: OnLine
    ) -> None:
        self._command = list(command)
        self._env = dict(env) if env is not None else None
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int:
        """The process id; 0 before `start`."""
        return self._process.pid if self._process else 0

    @property
    def exit_code(self) -> int | None:
        """None while it runs or before `start`."""
        return self._process.returncode if self._process else None

    async def start(self) -> None:
        """Start it; a program that is not there ends with 127 and a line that says so."""
        self._process = await asyncio.create_subprocess_exec(
            *owned(self._command),
            env=self._env,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            limit=1 << 20,
        )
        self._reader = asyncio.create_task(self._read())

    async def wait(self) -> int:
        """Its exit code, once it ends and all its lines were passed on."""
        assert self._process is not None
        code = await self._process.wait()
        if self._reader:
            # Whoever waits may be cancelled; the lines are passed on all the same.
            await asyncio.shield(self._reader)
        return code

    async def stop(self, grace_s: float) -> None:
        """SIGTERM, then after `grace_s` seconds SIGKILL for its whole group."""
        if self._process is None:
            return
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace_s)
        # Also when it ended by itself: its children may not have.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        await self._process.wait()
        if self._reader:
            await self._reader

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self._on_line(line.decode("utf-8", "replace").rstrip())
