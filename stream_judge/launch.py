"""Run as a script: becomes another program, which is killed when its starter ends.

A hook between fork and exec could do the same, but not in a process with threads: the
child has their locks and not them, and waits for ever where one is held (gRPC has threads).
Standard library only, so that it starts quickly.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1
_NOT_FOUND = 127


def main() -> None:
    """Arguments: process id of the starter, then the program with its arguments."""
    starter, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != starter:
            return  # it ended before the call above: nobody would ever end us
    try:
        os.execvp(command[0], command)  # noqa: S606 - no shell is the point
    except OSError as exc:
        sys.stderr.write(f"{command[0]}: {exc.strerror}\n")
        sys.exit(_NOT_FOUND)


if __name__ == "__main__":
    main()
