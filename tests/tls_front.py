"""TLS in front of a plain server, as OpenSSL does it: a refused handshake is told to the client by an alert.

asyncio's own server ends such a connection without the alert, and `clickhouse local` does not listen for TLS.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_TIMEOUT = 30.0


@dataclass(slots=True)
class Front:
    """`connections` counts what was accepted, whether the handshake went well or not; `heads` are the requests' heads.

    `without` is a header line to leave out on the way: what a server that speaks TLS itself would have answered.
    """

    upstream: tuple[str, int]
    context: ssl.SSLContext
    without: bytes = b""
    connections: int = 0
    heads: list[bytes] = field(default_factory=list)
    port: int = 0

    def serve(self, listener: socket.socket) -> None:
        while True:
            try:
                plain, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._connection, args=(plain,), daemon=True).start()

    def _connection(self, plain: socket.socket) -> None:
        plain.settimeout(_TIMEOUT)
        try:
            stream = self.context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        except OSError:
            plain.close()
            return
        with stream, contextlib.suppress(OSError):
            try:
                stream.do_handshake()
            except ssl.SSLError:
                _leave_in_peace(stream)
                return
            with socket.create_connection(self.upstream, _TIMEOUT) as up:
                back = threading.Thread(target=_pump, args=(up, stream), daemon=True)
                back.start()
                self._forward(stream, up)
                back.join(_TIMEOUT)

    def _forward(self, stream: ssl.SSLSocket, up: socket.socket) -> None:
        while data := stream.recv(65536):
            if b" HTTP/1.1\r\n" in data:
                self.heads.append(data.partition(b"\r\n\r\n")[0])
                data = data.replace(self.without, b"", 1) if self.without else data
            up.sendall(data)
        up.shutdown(socket.SHUT_WR)


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)


def _leave_in_peace(stream: ssl.SSLSocket) -> None:
    """Read what the client still sends: closing over unread data resets the connection, and the alert is lost."""
    stream.shutdown(socket.SHUT_WR)
    with socket.socket(fileno=stream.detach()) as plain:
        plain.settimeout(_TIMEOUT)
        while plain.recv(65536):
            pass


@contextmanager
def tls_front(upstream: str, context: ssl.SSLContext, *, without: bytes = b"") -> Iterator[Front]:
    """Listen with `context` on 127.0.0.1 (`port`) and pass on to the plain server at the URL `upstream`."""
    parts = urlsplit(upstream)
    front = Front((str(parts.hostname), int(parts.port or 80)), context, without)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        front.port = listener.getsockname()[1]
        thread = threading.Thread(target=front.serve, args=(listener,), daemon=True)
        thread.start()
        yield front
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
