"""A way to an API server that can be shut, or let everything wait, in the middle of an episode."""

import contextlib
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import yaml


class Gateway:
    """Passes connections on to the server of a kubeconfig.

    Args:
        kubeconfig: names the server.
        through: where to write the kubeconfig that goes through here.
    """

    def __init__(self, kubeconfig: Path, through: Path) -> None:
        loaded = yaml.safe_load(kubeconfig.read_text())
        context = next(c["context"] for c in loaded["contexts"] if c["name"] == loaded["current-context"])
        cluster = next(c["cluster"] for c in loaded["clusters"] if c["name"] == context["cluster"])
        server = urlsplit(cluster["server"])
        self._target = (server.hostname, server.port or 443)
        self._passing = threading.Event()
        self._pairs: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.port = 0
        self.open()
        cluster["server"] = f"https://127.0.0.1:{self.port}"
        # The server's certificate is for another address.
        cluster.pop("certificate-authority", None)
        cluster.pop("certificate-authority-data", None)
        cluster["insecure-skip-tls-verify"] = True
        through.write_text(yaml.safe_dump(loaded))
        self.kubeconfig = through

    def __enter__(self) -> "Gateway":
        return self

    def __exit__(self, *exc: object) -> None:
        self.shut()

    def open(self) -> None:
        """Lets everything pass."""
        self._passing.set()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def stall(self) -> None:
        """Takes connections and requests, and passes nothing on."""
        self._passing.clear()

    def shut(self) -> None:
        """Ends all connections and refuses new ones."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
            self._listener.close()
        self._listener = None
        for end in self._pairs:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._pairs = []
        self._passing.set()

    def _serve(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            self._pairs += [near, far]
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._passing.wait()
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_RDWR)
