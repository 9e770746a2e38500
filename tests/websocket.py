"""A websocket client of the standard library, as small as an agent's connection needs. Text frames only."""

import base64
import hashlib
import os
import socket
import struct
from urllib.parse import urlsplit

GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Refused(Exception):
    """The server answered the handshake with something else than 101."""

    def __init__(self, status, body):
        super().__init__(f"{status}: {body}")
        self.status, self.body = status, body


class Closed(Exception):
    """The connection is over."""


def frame(data, opcode=1):
    """A whole message as a client sends it."""
    size = len(data)
    head = bytes([0x80 | opcode]) + (
        bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + struct.pack(">H", size) if size < 65536 else bytes([0xFF]) + struct.pack(">Q", size)
    )
    mask = os.urandom(4)
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


class WebSocket:
    """`early`: frames that go out with the handshake, before it is answered."""

    def __init__(self, url, headers=(), timeout=30, early=b""):
        parts = urlsplit(url)
        self.socket = socket.create_connection((parts.hostname, parts.port), timeout)
        self.held = b""
        key = base64.b64encode(os.urandom(16)).decode()
        lines = [
            f"GET {parts.path or '/'}?{parts.query} HTTP/1.1",
            "Upgrade: websocket",
            "Connection: Upgrade",
            f"Sec-WebSocket-Key: {key}",
            "Sec-WebSocket-Version: 13",
            *(f"{name}: {value}" for name, value in dict(headers).items()),
        ]
        self.socket.sendall(("\r\n".join(lines) + "\r\n\r\n").encode() + early)
        while b"\r\n\r\n" not in self.held:
            self._more()
        head, self.held = self.held.split(b"\r\n\r\n", 1)
        first, *rest = head.decode().split("\r\n")
        answer = {name.strip().lower(): value.strip() for name, value in (line.split(":", 1) for line in rest)}
        status = int(first.split()[1])
        if status != 101:
            length = int(answer.get("content-length", 0))
            while len(self.held) < length:
                self._more()
            self.socket.close()
            raise Refused(status, self.held[:length].decode())
        wanted = base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()
        assert answer["sec-websocket-accept"] == wanted
        # From here on silence is normal; whoever closes wakes the reader.
        self.socket.settimeout(None)

    def _more(self):
        try:
            data = self.socket.recv(65536)
        except OSError as error:
            raise Closed(str(error)) from None
        if not data:
            raise Closed("end of stream")
        self.held += data

    def _take(self, count):
        while len(self.held) < count:
            self._more()
        taken, self.held = self.held[:count], self.held[count:]
        return taken

    def send(self, text, opcode=1):
        data = text.encode() if isinstance(text, str) else text
        try:
            self.socket.sendall(frame(data, opcode))
        except OSError as error:
            raise Closed(str(error)) from None

    def receive(self, control=None):
        """The next text message; or what the next control frame of an opcode holds, whatever comes before it."""
        whole = b""
        while True:
            first, second = self._take(2)
            size = second & 0x7F
            if size == 126:
                (size,) = struct.unpack(">H", self._take(2))
            elif size == 127:
                (size,) = struct.unpack(">Q", self._take(8))
            data = self._take(size)
            opcode = first & 0x0F
            if opcode == control:
                return data
            if opcode == 8:
                raise Closed(f"close frame {data!r}")
            if opcode == 9:
                self.send(data, opcode=10)
            elif opcode in (0, 1, 2):
                whole += data
                if first & 0x80 and control is None:
                    return whole.decode()

    def drop(self):
        """Ends the TCP connection without a close frame, as the official agent does."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()
