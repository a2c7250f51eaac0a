"""A real ComfyUI with this pack in it, for the tests and for tools/make_thumbnails.py. Standard library only.

COMFYUI_PATH names a ComfyUI checkout, COMFYUI_PYTHON the Python it runs with (default: this one).
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Run:
    """What happened to one queued prompt."""

    prompt_id: str
    node_errors: dict
    events: list[dict] = field(default_factory=list)  # websocket messages in order, each with "at" (s since queueing)
    previews: int = 0  # binary messages: preview pictures
    seconds: float = 0.0
    outputs: dict = field(default_factory=dict)  # node id -> ui outputs
    status: str = ""  # "success" | "error" | "interrupted"
    error: dict | None = None

    def of(self, kind: str) -> list[dict]:
        return [event for event in self.events if event["type"] == kind]

    def files(self) -> list[dict]:
        """Files the page was told about: {"filename", "subfolder", "type"}."""
        return [
            item
            for output in self.outputs.values()
            for items in output.values()
            for item in items
            if isinstance(item, dict) and "filename" in item
        ]


class RealHost:
    """Starts ComfyUI with its own folders; the pack is linked in under `pack_name`."""

    def __init__(self, folder: Path, *, pack_name: str = "ComfyUI-MGGTalk", comfyui: Path | None = None, extra=()):
        self.comfyui = Path(comfyui or os.environ["COMFYUI_PATH"]).resolve()
        self.python = os.environ.get("COMFYUI_PYTHON", sys.executable)
        self.folder = Path(folder)
        self.pack_name = pack_name
        self.extra = list(extra)
        for name in ("custom_nodes", "input", "output", "models"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.custom_nodes = self.folder / "custom_nodes"
        link = self.custom_nodes / pack_name
        if not link.exists():
            link.symlink_to(ROOT, target_is_directory=True)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.client_id = uuid.uuid4().hex

    def __enter__(self) -> RealHost:
        self.log_path = self.folder / "comfyui.log"
        self.log = open(self.log_path, "w")
        command = [
            *(self.python, "main.py", "--cpu", "--disable-api-nodes", "--disable-auto-launch"),
            *("--base-directory", str(self.folder), "--port", str(self.port)),
            *("--database-url", f"sqlite:///{self.folder / 'comfyui.db'}", *self.extra),
        ]
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": "1"}
        began = time.monotonic()
        self.process = subprocess.Popen(
            command, cwd=self.comfyui, env=environment, stdout=self.log, stderr=subprocess.STDOUT
        )
        while True:
            try:
                self.get("/system_stats")
                break
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                if self.process.poll() is not None or time.monotonic() - began > 300:
                    self.__exit__()
                    raise RuntimeError(f"ComfyUI did not start:\n{self.log_path.read_text()[-4000:]}") from None
                time.sleep(0.5)
        self.start_seconds = time.monotonic() - began
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()

    def get(self, path: str):
        with urllib.request.urlopen(self.url + path, timeout=30) as answer:
            data = answer.read()
            return json.loads(data) if "json" in answer.headers.get("Content-Type", "") else data

    def post(self, path: str, body=None, headers=None):
        request = urllib.request.Request(
            self.url + path,
            data=json.dumps(body if body is not None else {}).encode(),
            headers={"Content-Type": "application/json", **(headers or {})},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            data = answer.read()
            return json.loads(data) if "json" in answer.headers.get("Content-Type", "") and data else data

    def add_input(self, path: Path, name: str | None = None) -> str:
        """Copies a file to ComfyUI's input folder and returns its name there."""
        name = name or Path(path).name
        target = self.folder / "input" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
        return name

    def run(self, prompt: dict, *, timeout: float = 600, interrupt_when=None) -> Run:
        """Queues an API prompt and follows it to its end.

        `interrupt_when(run)` is asked after each message; the first True presses Cancel, its time is in
        `run.interrupted_at`.
        """
        with WebSocket("127.0.0.1", self.port, f"/ws?clientId={self.client_id}") as messages:
            began = time.monotonic()
            try:
                answer = self.post("/prompt", {"prompt": prompt, "client_id": self.client_id})
            except urllib.error.HTTPError as error:
                answer = json.loads(error.read())
                return Run("", answer.get("node_errors", {}), status="refused", error=answer.get("error"))
            run = Run(answer["prompt_id"], answer["node_errors"])
            run.interrupted_at = None
            while True:
                message = messages.receive(timeout - (time.monotonic() - began))
                at = time.monotonic() - began
                if isinstance(message, bytes):
                    run.previews += 1
                    continue
                event = json.loads(message)
                if event["data"].get("prompt_id", run.prompt_id) != run.prompt_id:
                    continue
                run.events.append({**event, "at": at})
                kind = event["type"]
                if kind == "executed" and event["data"].get("output"):
                    run.outputs[event["data"]["node"]] = event["data"]["output"]
                if kind in ("execution_success", "execution_error", "execution_interrupted"):
                    run.status = kind.removeprefix("execution_")
                    run.error = event["data"] if kind == "execution_error" else None
                    run.seconds = at
                    return run
                if interrupt_when and run.interrupted_at is None and interrupt_when(run):
                    run.interrupted_at = time.monotonic() - began
                    self.post("/interrupt")

    def memory_mb(self) -> tuple[float, float]:
        """Resident memory of the server now and at its peak (Linux)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        field = lambda name: int(status.split(name + ":")[1].split()[0]) / 1024  # noqa: E731
        return field("VmRSS"), field("VmHWM")


class WebSocket:
    """Just enough of RFC 6455 to listen to ComfyUI."""

    def __init__(self, host: str, port: int, path: str):
        self.socket = socket.create_connection((host, port), timeout=30)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall(
            f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        self.buffer = b""
        while b"\r\n\r\n" not in self.buffer:
            self.buffer += self.socket.recv(65536)
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        if b" 101 " not in head.splitlines()[0]:
            raise ConnectionError(head.decode())

    def __enter__(self) -> WebSocket:
        return self

    def __exit__(self, *_) -> None:
        self.socket.close()

    def receive(self, timeout: float) -> str | bytes:
        """The next message; pings are answered."""
        data, kind = b"", None
        while True:
            final, opcode, payload = self._frame(timeout)
            if opcode == 9:
                mask = os.urandom(4)
                masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))
                self.socket.sendall(bytes([0x8A, 0x80 | len(payload)]) + mask + masked)
                continue
            if opcode == 8:
                raise ConnectionError("ComfyUI closed the connection")
            kind = kind or opcode
            data += payload
            if final:
                return data.decode() if kind == 1 else data

    def _frame(self, timeout: float) -> tuple[bool, int, bytes]:
        first, second = self._read(2, timeout)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack(">H", self._read(2, timeout))
        elif length == 127:
            (length,) = struct.unpack(">Q", self._read(8, timeout))
        return bool(first & 0x80), first & 0x0F, self._read(length, timeout)

    def _read(self, count: int, timeout: float) -> bytes:
        self.socket.settimeout(max(timeout, 0.1))
        while len(self.buffer) < count:
            chunk = self.socket.recv(1 << 20)
            if not chunk:
                raise ConnectionError("ComfyUI went away")
            self.buffer += chunk
        data, self.buffer = self.buffer[:count], self.buffer[count:]
        return data
