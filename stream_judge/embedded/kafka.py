"""A real Apache Kafka (KRaft) on loopback: child processes, data kept in a folder.

Unlike the mock of `broker.py` it knows transactions, keeps what it was given over a
restart, and can be killed, frozen and brought back node by node.
"""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import socket
import tempfile
import uuid
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from stream_judge.embedded.kafka_jars import fetch_kafka_jars, find_java, kafka_jars
from stream_judge.errors import EnvironmentProblem
from stream_judge.processes import ChildProcess, OnLine, free_port, port_in_use

_START_S = 60.0
_GRACE_S = 20.0
_LOG4J = """\
Configuration:
  Appenders:
    Console: {name: STDOUT, PatternLayout: {pattern: "%d{ISO8601} %p %m (%c)%n"}}
  Loggers:
    Root: {level: WARN, AppenderRef: {ref: STDOUT}}
"""
# Small internal topics and no wait for latecomers: groups form in a fifth of a second.
_COMMON = {
    "process.roles": "broker,controller",
    "controller.listener.names": "CONTROLLER",
    "num.partitions": "4",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.num.partitions": "4",
    "group.initial.rebalance.delay.ms": "0",
    "group.min.session.timeout.ms": "1000",
    # A node that was killed may come back at once, before its old session is over.
    "broker.session.timeout.ms": "3000",
    "broker.heartbeat.interval.ms": "500",
    "auto.create.topics.enable": "false",
    "log.cleaner.dedupe.buffer.size": "8388608",
    "controlled.shutdown.enable": "true",
}


@dataclass(frozen=True, slots=True)
class KafkaOptions:
    """How a cluster is made.

    Attributes:
        nodes: Brokers, each of them a controller too; three survive the loss of one.
        port: Client port of the first node; the others take the next ones. 0: free ports.
        folder: Where data and configuration lie; None for one that goes with the cluster.
        heap_mb: Java heap of a node.
        listeners: Further listeners by name: (security protocol, port or 0).
        config: Further broker configuration.
        format_args: Further arguments of the storage tool, such as `--add-scram`.
    """

    nodes: int = 1
    port: int = 0
    folder: Path | None = None
    heap_mb: int = 384
    listeners: Mapping[str, tuple[str, int]] = field(default_factory=dict)
    config: Mapping[str, str] = field(default_factory=dict)
    format_args: tuple[str, ...] = ()


class KafkaNode:
    """One node; made by `EmbeddedKafka`.

    Args:
        number: From 1 on.
        ports: Port of each listener, "PLAINTEXT" and "CONTROLLER" among them.
        folder: Its data, configuration and log.
        heap_mb: Java heap.
        on_line: Receives its log lines.
    """

    def __init__(
        self, number: int, ports: Mapping[str, int], folder: Path, heap_mb: int, on_line: OnLine
    ) -> None:
        self.number = number
        self.ports = dict(ports)
        self.folder = folder
        self._heap_mb = heap_mb
        self._on_line = on_line
        self._process: ChildProcess | None = None
        self._last: deque[str] = deque(maxlen=30)

    @property
    def running(self) -> bool:
        """Whether its process is there, frozen or not."""
        return self._process is not None and self._process.exit_code is None

    @property
    def pid(self) -> int:
        """Its process id, once it was started."""
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it on the data it has, and wait until its clients' ports are open.

        Raises:
            EnvironmentProblem: It ended, or did not open the ports in time.
        """
        self._process = ChildProcess(self._command(), env=None, on_line=self._line)
        await self._process.start()
        end = asyncio.get_running_loop().time() + _START_S
        # One listener after the other opens: the first says nothing of the last.
        for name in self.ports.keys() - {"CONTROLLER"}:
            await self._wait_open(name, self._process, end)

    async def stop(self) -> None:
        """SIGTERM: a clean stop, with its leaderships handed over first."""
        if self._process is not None:
            self.thaw()
            await self._process.stop(_GRACE_S)

    async def kill(self) -> None:
        """SIGKILL: as a lost machine."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            await self._process.stop(0.0)

    def freeze(self) -> None:
        """SIGSTOP: as a machine that hangs."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT: end of `freeze`."""
        self._signal(signal.SIGCONT)

    async def wait(self) -> int:
        """Its exit code, once it ends."""
        assert self._process is not None
        return await self._process.wait()

    async def _wait_open(self, listener: str, process: ChildProcess, end: float) -> None:
        while not await asyncio.to_thread(_open, self.ports[listener]):
            if process.exit_code is not None:
                raise EnvironmentProblem(f"Kafka did not start: {self._reason()}")
            if asyncio.get_running_loop().time() > end:
                raise EnvironmentProblem(
                    f"Kafka did not open its port for {listener} within {_START_S:.0f} s"
                )
            await asyncio.sleep(0.05)

    def _signal(self, number: int) -> None:
        if self.running:
            os.kill(self.pid, number)

    def _command(self) -> list[str]:
        return [
            str(find_java()),
            f"-Xmx{self._heap_mb}m",
            "-XX:+UseSerialGC",
            # It lives for minutes: the second compiler would only take the cores.
            "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={self.folder / 'log4j2.yaml'}",
            "-cp",
            f"{kafka_jars()}/*",
            "kafka.Kafka",
            str(self.folder / "server.properties"),
        ]

    def _line(self, line: str) -> None:
        self._last.append(line)
        self._on_line(line)

    def _reason(self) -> str:
        telling = [x for x in self._last if " ERROR " in x or " FATAL " in x or "Exception" in x]
        return " | ".join(telling[-3:] or list(self._last)[-3:]) or "it said nothing"


class EmbeddedKafka:
    """A cluster of our own on loopback.

    Args:
        options: How it is made.
        on_line: Receives the nodes' log lines.
    """

    def __init__(
        self, options: KafkaOptions | None = None, *, on_line: OnLine = lambda _: None
    ) -> None:
        self._options = options or KafkaOptions()
        self._on_line = on_line
        self._scratch: tempfile.TemporaryDirectory[str] | None = None
        self.nodes: list[KafkaNode] = []

    @property
    def bootstrap(self) -> str:
        """The plain listeners, for `bootstrap_servers`."""
        return self.listener("PLAINTEXT")

    def listener(self, name: str) -> str:
        """The addresses of one listener, separated by commas."""
        return ",".join(f"127.0.0.1:{node.ports[name]}" for node in self.nodes)

    async def start(self) -> None:
        """Format what is new and start every node.

        Raises:
            EnvironmentProblem: No Java, no jars, a port in use, or a node does not start;
                nothing is left running.
        """
        await fetch_kafka_jars()
        folder = self._options.folder
        if folder is None:
            self._scratch = tempfile.TemporaryDirectory(prefix="stream-judge-kafka-")
            folder = Path(self._scratch.name)
        try:
            self._make_nodes(folder)
            await asyncio.gather(*(self._format(node) for node in self.nodes))
            await asyncio.gather(*(node.start() for node in self.nodes))
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stop every node; a folder of its own goes too."""
        await asyncio.gather(*(node.stop() for node in self.nodes))
        if self._scratch is not None:
            self._scratch.cleanup()
            self._scratch = None

    async def wait(self) -> int:
        """The exit code of the first node that ends."""
        tasks = [asyncio.create_task(node.wait()) for node in self.nodes]
        done, rest = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in rest:
            task.cancel()
        return done.pop().result()

    def _make_nodes(self, folder: Path) -> None:
        options = self._options
        for number in range(1, options.nodes + 1):
            port = options.port + number - 1 if options.port else free_port()
            if options.port and port_in_use(port):
                raise EnvironmentProblem(f"port {port} is in use; choose another --port")
            ports = {"PLAINTEXT": port, "CONTROLLER": free_port()}
            ports |= {name: given or free_port() for name, (_, given) in options.listeners.items()}
            home = folder / f"node-{number}"
            home.mkdir(parents=True, exist_ok=True)
            self.nodes.append(KafkaNode(number, ports, home, options.heap_mb, self._on_line))
        for node in self.nodes:
            lines = [f"{name}={value}" for name, value in self._properties(node).items()]
            (node.folder / "server.properties").write_text("\n".join(lines) + "\n")
            (node.folder / "log4j2.yaml").write_text(_LOG4J)

    def _properties(self, node: KafkaNode) -> dict[str, str]:
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
        protocols |= {name: protocol for name, (protocol, _) in self._options.listeners.items()}
        addresses = {name: f"{name}://127.0.0.1:{port}" for name, port in node.ports.items()}
        clients = [address for name, address in addresses.items() if name != "CONTROLLER"]
        copies = str(min(3, len(self.nodes)))
        return {
            **_COMMON,
            "node.id": str(node.number),
            "controller.quorum.voters": ",".join(
                f"{n.number}@127.0.0.1:{n.ports['CONTROLLER']}" for n in self.nodes
            ),
            "listeners": ",".join(addresses.values()),
            "advertised.listeners": ",".join(clients),
            "listener.security.protocol.map": ",".join(f"{k}:{v}" for k, v in protocols.items()),
            "log.dirs": str(node.folder / "data"),
            "offsets.topic.replication.factor": copies,
            "transaction.state.log.replication.factor": copies,
            "transaction.state.log.min.isr": "2" if len(self.nodes) > 2 else "1",
            "share.coordinator.state.topic.replication.factor": copies,
            "share.coordinator.state.topic.min.isr": "1",
            **self._options.config,
        }

    async def _format(self, node: KafkaNode) -> None:
        if (node.folder / "data/meta.properties").exists():
            return
        said: list[str] = []
        command = [str(find_java()), "-XX:TieredStopAtLevel=1", "-cp", f"{kafka_jars()}/*"]
        command += ["kafka.tools.StorageTool", "format", f"--cluster-id={self._cluster_id()}"]
        command += ["-c", str(node.folder / "server.properties"), *self._options.format_args]
        tool = ChildProcess(command, env=None, on_line=said.append)
        await tool.start()
        if await tool.wait() != 0:
            raise EnvironmentProblem(f"Kafka could not format its folder: {' | '.join(said[-3:])}")

    def _cluster_id(self) -> str:
        # 22 characters of URL-safe base64 are what Kafka takes for an id.
        name = uuid.uuid5(uuid.NAMESPACE_OID, str(self.nodes[0].folder))
        return base64.urlsafe_b64encode(name.bytes).decode().rstrip("=")


def _open(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
