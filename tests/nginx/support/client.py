"""A client that works on the bytes, so that it can also misbehave: half a request, half an answer, FIN, RST, deafness."""
import itertools
import os
import socket
import ssl

from .checks import LIMIT, Failed, same, true
from .upstream import reset

_numbers = itertools.count(1)


class Response:
    """An answer as it came. complete: its framing says that nothing is missing. head: the bytes of the header."""

    def __init__(self, head, body, complete, framing, mark):
        self.head, self.body, self.complete, self.framing, self.mark = head, body, complete, framing, mark
        lines = head.decode("latin-1").split("\r\n")
        self.status_line = lines[0]
        self.status = int(lines[0].split(" ")[1])
        self.headers = [tuple(part.strip() for part in line.split(":", 1)) for line in lines[1:] if line]
        self.trailers = []

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name):
        values = self.all(name)
        return values[0] if values else None

    def __repr__(self):
        return f"<{self.status_line}, {len(self.body)} bytes{'' if self.complete else ', cut off'}: {self.body[:120]!r}>"


class Client:
    """One connection."""

    def __init__(self, port, tls=False, receive_bytes=None):
        self.sock = socket.socket()
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(LIMIT)
        self.sock.connect(("127.0.0.1", port))
        self.mark = None
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            self.sock = context.wrap_socket(self.sock)
        self._data = b""

    def send(self, data):
        self.sock.sendall(data)

    def request(self, method, target, headers=(), body=None):
        """Sends a request. A header given as (name, None) is one that isn't sent though it usually is."""
        self.send(self.head(method, target, headers, body) + (body or b""))

    def head(self, method, target, headers=(), body=None):
        self.mark = f"{os.getpid()}-{next(_numbers)}"  # finds this request in the access log
        given = {name.lower() for name, _ in headers}
        usual = [("Host", "shop.example"), ("X-Mark", self.mark)]
        if body is not None:
            usual.append(("Content-Length", str(len(body))))
        lines = [f"{method} {target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in usual if name.lower() not in given]
        lines += [f"{name}: {value}" for name, value in headers if value is not None]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def response(self, method="POST"):
        """Reads one answer, 100 Continue not counted."""
        while True:
            head = self._until(b"\r\n\r\n")
            if head is None:
                raise Failed("the connection was closed without an answer")
            answer = Response(head, b"", True, "none", self.mark)
            if answer.status // 100 != 1 or answer.status == 101:
                break
        if method == "HEAD" or answer.status in (101, 204, 304):
            return answer
        if (answer.header("transfer-encoding") or "").lower() == "chunked":
            answer.framing = "chunked"
            answer.complete = self._chunks(answer)
        elif answer.header("content-length") is not None:
            answer.framing, wanted = "length", int(answer.header("content-length"))
            answer.complete = self._fill(wanted)
            answer.body, self._data = self._data[:wanted], self._data[wanted:]
        else:
            answer.framing = "eof"
            while self._more():
                pass
            answer.body, self._data = self._data, b""
        return answer

    def bytes_of_body(self, count):
        """Waits for a header and so many bytes after it, as they come. An answer that says it has fewer is not waited for."""
        head = self._until(b"\r\n\r\n")
        true(head is not None, "the connection was closed without an answer")
        answer = Response(head, b"", False, "begun", self.mark)
        length = answer.header("content-length")
        came = self._fill(count if length is None else min(count, int(length)))
        answer.body = self._data
        true(came and len(answer.body) >= count, f"no {count} bytes of a body came: {answer!r}")
        return head

    def ended(self):
        """Waits for the other side's end of the connection; true if nothing came before it."""
        try:
            return self._data == b"" and self.sock.recv(65536) == b""
        except OSError:
            return True

    def response_head(self):
        """The head of an answer and what has come of its body; then closes."""
        head = self._until(b"\r\n\r\n")
        true(head is not None, "the connection was closed without an answer")
        body, self._data = self._data, b""
        self.close()
        return Response(head, body, False, "begun", self.mark)

    def half_close(self):
        self.sock.shutdown(socket.SHUT_WR)

    def close(self):
        self.sock.close()

    def reset(self):
        reset(self.sock)

    def _more(self):
        try:
            data = self.sock.recv(1 << 18)
        except TimeoutError as error:
            raise Failed(f"no answer within {LIMIT:g} s") from error
        except OSError:
            return False
        self._data += data
        return bool(data)

    def _fill(self, count):
        while len(self._data) < count:
            if not self._more():
                return False
        return True

    def _until(self, mark):
        while mark not in self._data:
            if not self._more():
                return None
        part, self._data = self._data.split(mark, 1)
        return part

    def _chunks(self, answer):
        while True:
            line = self._until(b"\r\n")
            if line is None:
                return False
            size = int(line.split(b";")[0], 16)
            if size == 0:
                while True:
                    line = self._until(b"\r\n")
                    if line is None:
                        return False
                    if line == b"":
                        return True
                    name, _, value = line.decode("latin-1").partition(":")
                    answer.trailers.append((name, value.strip()))
            if not self._fill(size + 2):
                answer.body += self._data[:size]
                return False
            answer.body += self._data[:size]
            self._data = self._data[size + 2:]


def ask(port, method, target, headers=(), body=None, tls=False):
    """One request on a connection of its own."""
    client = Client(port, tls)
    try:
        client.request(method, target, (*headers, ("Connection", "close")), body)
        return client.response(method)
    finally:
        client.close()


# What may differ between an answer and its replay: who says it when, how the bytes are framed, whether they
# may be had in pieces (a replay never).
_PASSING = {"date", "connection", "idempotency-replayed", "transfer-encoding", "content-length", "keep-alive",
            "accept-ranges"}


def lasting(headers):
    return [(name.lower(), value) for name, value in headers if name.lower() not in _PASSING]


def replayed(again, first):
    """again is first's stored answer, said to be one."""
    same(first.all("Idempotency-Replayed"), [], "the first answer's Idempotency-Replayed")
    same(again.all("Idempotency-Replayed"), ["true"], f"the replay's Idempotency-Replayed ({again!r})")
    same(again.status_line.split(" ", 1)[1], first.status_line.split(" ", 1)[1], "the replay's status")
    same(again.body, first.body, "the replay's body")
    same(again.complete, True, "the replay is complete")
    same(sorted(lasting(again.headers)), sorted(lasting(first.headers)), "the replay's headers")
    same(again.trailers, first.trailers, "the replay's trailers")
