"""A real HTTP server on this machine that plays the judge's endpoint, faults included."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from plugins.rewards.judge import Judge

KEY_VARIABLE = "JUDGE_TEST_KEY"


@dataclass(frozen=True)
class Raw:
    """An answer that is sent as it is. `promised`: the length in the header, where it is to lie."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    promised: int | None = None


@dataclass(frozen=True)
class Hang:
    """No answer until the test is over."""


@dataclass(frozen=True)
class Drop:
    """The connection is closed without an answer."""


Answer = str | Raw | Hang | Drop


def completion(text: str | None, finish: str = "stop", **more: Any) -> Raw:
    """A chat completion as OpenAI's API sends it."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "message": message, "finish_reason": finish}
    return Raw(body=json.dumps({"id": "x", "object": "chat.completion", "choices": [choice], **more}).encode())


def shown(message: str, name: str) -> str:
    """The text that a message shows under a name (RESPONSE, RESPONSE A, PROMPT, REFERENCE)."""
    found = re.search(rf"<<<{name} (\w+)>>>\n(.*)\n<<<END {name} \1>>>", message, re.DOTALL)
    assert found is not None, message
    return found[2]


def longer(message: str, number: int) -> str:
    """Likes the longer answer, wherever it stands."""
    a, b = len(shown(message, "RESPONSE A")), len(shown(message, "RESPONSE B"))
    return f"Reasons.\n\nVerdict: {'tie' if a == b else 'A' if a > b else 'B'}"


class _Listening(ThreadingHTTPServer):
    request_queue_size = 64  # the usual 5 turn callers away for a second


class Server:
    """The endpoint. `judge` gets the message and the number of the request, from 0, and gives the answer."""

    def __init__(self, judge: Callable[[str, int], Answer]) -> None:
        self.judge = judge
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.most_at_once = 0
        self.over = threading.Event()
        self._at_once, self._lock = 0, threading.Lock()
        self._server = _Listening(("127.0.0.1", 0), _handler(self))
        self.base_url = f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def messages(self) -> list[str]:
        return [body["messages"][0]["content"] for body in self.bodies]

    def take(self, path: str, headers: Mapping[str, str], body: bytes) -> Answer:
        with self._lock:
            number = len(self.bodies)
            self.paths.append(path)
            self.headers.append(dict(headers))
            self.bodies.append(json.loads(body))
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return self.judge(self.bodies[number]["messages"][0]["content"], number)
        finally:
            with self._lock:
                self._at_once -= 1

    @contextmanager
    def serving(self) -> Iterator[Server]:
        thread = threading.Thread(target=self._server.serve_forever, args=(0.005,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.over.set()
            self._server.shutdown()
            self._server.server_close()
            thread.join()


def _handler(server: Server) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            answer = server.take(self.path, self.headers, body)
            if isinstance(answer, str):
                answer = completion(answer)
            if isinstance(answer, Hang):
                server.over.wait(10)
            if not isinstance(answer, Raw):
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            length = len(answer.body) if answer.promised is None else answer.promised
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: Any) -> None:
            """Tests want quiet."""

    return Handler


@dataclass
class Clock:
    """Time that passes only where somebody sleeps; `waits` are the sleeps, in seconds."""

    now: float = 100.0
    waits: list[float] = field(default_factory=list)

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def judge_at(server: Server | str, clock: Clock | None = None, **options: Any) -> Judge:
    """A judge of the server that keeps its replies in memory and never really waits."""
    base_url = server if isinstance(server, str) else server.base_url
    judge = Judge(**{"base_url": base_url, "model": "m", "cache": None, "timeout": 5.0, **options})
    clock = clock or Clock()
    judge.endpoint.sleep, judge.endpoint.clock = clock.sleep, clock
    return judge
