"""The real Triton server from the nvidia-pytriton wheel, as a child process on loopback.

Started directly, not through pytriton's API: it serves the same model repository as
NVIDIA's container, with our python-based `onnxruntime` backend in the place of the C++ one.
"""

from __future__ import annotations

import asyncio
import importlib.util
import math
import os
import shutil
import sys
import sysconfig
import tempfile
import threading
import urllib.error
import urllib.request
from pathlib import Path

from stream_judge import serving
from stream_judge.embedded.machine import check_machine
from stream_judge.errors import EnvironmentProblem
from stream_judge.extras import need
from stream_judge.model_files import check_files
from stream_judge.processes import ChildProcess, OnLine, free_port, port_in_use

_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - where Triton keeps its regions
_GRACE_S = 15.0


def check_platform() -> None:
    """Refuse machines and installations on which the server cannot run.

    Raises:
        EnvironmentProblem: One line that says what is missing.
    """
    check_machine()
    need("embedded", "onnxruntime", "pytriton", "tokenizers")


def _wheel() -> Path:
    spec = importlib.util.find_spec("pytriton")
    assert spec is not None and spec.origin is not None, "check_platform has seen it"
    return Path(spec.origin).parent / "tritonserver"


def _make_backends(folder: Path) -> None:
    wheel = _wheel()
    python = folder / "python"
    shutil.copytree(wheel / "backends/python", python)
    name = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = wheel / "python_backend_stubs" / name / "triton_python_backend_stub"
    shutil.copy2(stub, python / stub.name)
    onnxruntime = folder / "onnxruntime"
    onnxruntime.mkdir()
    source = Path(serving.__file__).with_name("triton_onnxruntime.py")
    shutil.copyfile(source, onnxruntime / "model.py")


class EmbeddedTriton:
    """A Triton server of our own.

    Args:
        repository: A model repository as `stream-judge export` writes them.
        grpc_port: Port on loopback; 0 for a free one.
        http_port: The same, for health and readiness.
        metrics_port: The same, for Prometheus metrics.
        on_line: Receives the server's log lines.
    """

    def __init__(
        self,
        repository: Path,
        *,
        grpc_port: int = 0,
        http_port: int = 0,
        metrics_port: int = 0,
        on_line: OnLine = lambda _: None,
    ) -> None:
        self._repository = repository.resolve()
        self._grpc = grpc_port or free_port()
        self._http = http_port or free_port()
        self._metrics = metrics_port or free_port()
        self._on_line = on_line
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self._process: ChildProcess | None = None
        self._last_lines: list[str] = []

    @property
    def grpc_url(self) -> str:
        """Host and port for `TritonOptions.url`."""
        return f"127.0.0.1:{self._grpc}"

    @property
    def metrics_url(self) -> str:
        """Where Prometheus metrics are."""
        return f"http://127.0.0.1:{self._metrics}/metrics"

    async def start(self, *, deadline_s: float | None = 60.0) -> None:
        """Start the server and wait until every model is ready.

        Args:
            deadline_s: How long models may load; None for as long as the server lives.

        Raises:
            EnvironmentProblem: Wrong platform, a port in use, a repository that is not as its
                manifest says or does not load, or no readiness in time; nothing is left running.
        """
        check_platform()
        self._check_ports()
        await self._check_repository()
        try:
            await self._launch()
            await self._wait_ready(math.inf if deadline_s is None else deadline_s)
        except BaseException:
            await self.stop()
            raise

    async def wait(self) -> int:
        """The server's exit code, once it ends."""
        assert self._process is not None
        return await self._process.wait()

    async def stop(self) -> None:
        """Stop the server; no process and no shared-memory region is left."""
        if self._process is not None:
            await self._process.stop(_GRACE_S)
            # Without a process of ours they are another server's, on the same port.
            self._remove_regions()
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    async def _launch(self) -> None:
        self._scratch = tempfile.TemporaryDirectory(prefix="stream-judge-triton-")
        backends = Path(self._scratch.name)
        _make_backends(backends)
        process = ChildProcess(self._command(backends), env=self._environment(), on_line=self._line)
        await process.start()
        self._process = process

    async def _check_repository(self) -> None:
        """Refuse files that are not the manifest's: verdicts would name another model."""
        is_stopped = threading.Event()
        try:
            # Of a large model this takes a while, in which a stop must be heard.
            edited = await asyncio.to_thread(
                check_files, self._repository, is_stopped=is_stopped.is_set
            )
        finally:
            is_stopped.set()
        for name in edited:
            self._on_line(f"{name} was edited since the export; the model keeps its digest")

    def _check_ports(self) -> None:
        # Triton itself would say so only after it has loaded every model.
        for name, port in self._ports.items():
            if port_in_use(port):
                raise EnvironmentProblem(f"port {port} is in use; choose another --{name}-port")

    def _remove_regions(self) -> None:
        for region in _SHARED_MEMORY.glob(f"{self._region}*"):
            region.unlink(missing_ok=True)

    @property
    def _ports(self) -> dict[str, int]:
        return {"grpc": self._grpc, "http": self._http, "metrics": self._metrics}

    @property
    def _region(self) -> str:
        # Regions carry the server's ports, so that a stop removes its own and no others.
        return f"sj_triton_{self._grpc}_"

    def _command(self, backends: Path) -> list[str]:
        ports = self._ports
        return [
            str(_wheel() / "bin/tritonserver"),
            f"--model-repository={self._repository}",
            f"--backend-directory={backends}",
            *(f"--{name}-port={port}" for name, port in ports.items()),
            # It binds every interface otherwise.
            *(f"--{name}-address=127.0.0.1" for name in ports),
            "--disable-auto-complete-config",
            "--exit-timeout-secs=10",
            f"--backend-config=python,shm-region-prefix-name={self._region}",
            "--backend-config=python,shm-default-byte-size=1048576",
            "--allow-gpu-metrics=false",
        ]

    def _environment(self) -> dict[str, str]:
        site = _wheel().parent.parent
        paths = [str(site / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR") or ""]
        env = dict(os.environ)
        env["LD_LIBRARY_PATH"] = ":".join(filter(None, [*paths, env.get("LD_LIBRARY_PATH")]))
        # The stub runs whatever `python3` the path has: it must see this environment.
        env["PATH"] = f"{Path(sys.executable).parent}:{env.get('PATH', '')}"
        env["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p.endswith("site-packages"))
        env["PYTHONDONTWRITEBYTECODE"] = "1"
        return env

    def _line(self, line: str) -> None:
        self._last_lines = [*self._last_lines[-40:], line]
        self._on_line(line)

    async def _wait_ready(self, deadline_s: float) -> None:
        assert self._process is not None
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline_s
        url = f"http://127.0.0.1:{self._http}/v2/health/ready"
        while not await asyncio.to_thread(_answers, url):
            if self._process.exit_code is not None:
                raise EnvironmentProblem(f"Triton did not start: {self._reason()}")
            if loop.time() > end:
                raise EnvironmentProblem(f"Triton was not ready within {deadline_s:.0f} s")
            await asyncio.sleep(0.1)

    def _reason(self) -> str:
        telling = [x for x in self._last_lines if x.startswith("E") or "rror" in x]
        return " | ".join(telling[-3:] or self._last_lines[-3:])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310 - loopback, ours
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False
