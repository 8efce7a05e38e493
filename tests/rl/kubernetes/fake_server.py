"""A small HTTP server on loopback that answers what a test tells it to, and remembers what it was asked."""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import yaml


@dataclass(frozen=True)
class Answer:
    """One answer.

    Args:
        body: JSON, or text as it is.
        status: HTTP's.
        waits: answer only when the server is closed.
        breaks: end the connection without an answer.
    """

    body: object = ""
    status: int = 200
    waits: bool = False
    breaks: bool = False


@dataclass(frozen=True)
class Asked:
    """One request."""

    method: str
    path: str
    query: dict[str, str]
    body: object
    headers: Mapping[str, str]


def refusal(status: int, message: str) -> Answer:
    """What an API server says when it does not do something."""
    return Answer({"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message}, status)


class FakeServer:
    """Answers by ``METHOD PATH``, one after another, the last for ever; 404 to everything else."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer | Callable[[Asked], Answer]]] = {}
        self.asked: list[Asked] = []
        self._closed = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "FakeServer":
        threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        ).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._closed.set()
        self._server.shutdown()
        self._server.server_close()

    def kubeconfig(self, folder: Path) -> Path:
        """Writes a kubeconfig that names this server."""
        path = folder / "config"
        path.write_text(
            yaml.safe_dump(
                {
                    "clusters": [{"name": "c", "cluster": {"server": self.url}}],
                    "users": [{"name": "u", "user": {"token": "t"}}],
                    "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                    "current-context": "x",
                }
            )
        )
        return path

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # header and body are sent apart; waiting costs 40 ms an answer

            def answer(self) -> None:
                address = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                asked = Asked(
                    self.command,
                    address.path,
                    dict(parse_qsl(address.query)),
                    json.loads(body) if body else None,
                    dict(self.headers),
                )
                outer.asked.append(asked)
                left = outer.answers.get(f"{asked.method} {asked.path}", [refusal(404, "not here")])
                next_one = left.pop(0) if len(left) > 1 else left[0]
                given = next_one if isinstance(next_one, Answer) else next_one(asked)
                if given.waits:
                    outer._closed.wait(30)
                if given.waits or given.breaks:
                    self.close_connection = True
                    return
                text = given.body if isinstance(given.body, str) else json.dumps(given.body)
                self.send_response(given.status)
                self.send_header(
                    "Content-Type", "text/html" if isinstance(given.body, str) else "application/json"
                )
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 - the library's names

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                """Says nothing."""

        return Handler
