"""Whether the embedded Triton can run on this machine at all.

`make demo` asks before it installs anything, so nothing outside the standard library is
imported here.
"""

from __future__ import annotations

import platform
import sys

from stream_judge.errors import EnvironmentProblem

# The nvidia-pytriton wheel has a stub for each of them, and is built against this glibc.
_PYTHONS = ((3, 11), (3, 12))
_GLIBC = (2, 35)


def check_machine() -> None:
    """Refuse machines on which the server cannot run, whatever is installed.

    Raises:
        EnvironmentProblem: One line that says what is missing.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise EnvironmentProblem(
            f"the embedded Triton runs on Linux x86-64, not on {sys.platform} "
            f"{platform.machine()}; point STREAM_JUDGE_TRITON__URL at a server elsewhere"
        )
    if sys.version_info[:2] not in _PYTHONS:
        raise EnvironmentProblem(
            f"the embedded Triton needs Python 3.11 or 3.12, not {platform.python_version()}"
        )
    libc, version = platform.libc_ver()
    if libc != "glibc" or tuple(map(int, version.split(".")[:2])) < _GLIBC:
        raise EnvironmentProblem(
            f"the embedded Triton needs glibc 2.35 or newer, not {libc or 'another libc'} {version}"
        )


def main() -> None:
    """Say in one line on stderr what is missing, and exit with 2; nothing if all is there."""
    try:
        check_machine()
    except EnvironmentProblem as exc:
        sys.stderr.write(f"stream-judge: {exc.code}: {exc.message}\n")
        sys.exit(2)


if __name__ == "__main__":
    main()
