"""Certificates for tests of TLS."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest


def make_certificates(folder: Path, *names: str) -> None:
    """`NAME.pem` and `NAME-key.pem` for each name, self-signed for 127.0.0.1."""
    if shutil.which("openssl") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("no openssl: the tests of TLS need it; install it")
        pytest.skip("no openssl: the tests of TLS need it; install it")
    for name in names:
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        command += ["-keyout", f"{folder / name}-key.pem", "-out", f"{folder / name}.pem"]
        command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(command, check=True, capture_output=True)


def client_files(folder: Path, name: str, authority: str = "server") -> dict[str, Path]:
    """Settings of a client with a certificate."""
    return {
        "ca_file": folder / f"{authority}.pem",
        "cert_file": folder / f"{name}.pem",
        "key_file": folder / f"{name}-key.pem",
    }
