"""The same scripts behind FastCGI and uwsgi, as far as nginx speaks them: requests in, answers in steps."""
import struct

from .upstream import Exchange, Request, Upstream, exactly, reason

_BEGIN, _END, _PARAMS, _STDIN, _STDOUT = 1, 3, 4, 5, 6


def request_of(variables):
    headers = [(name[5:].replace("_", "-"), value) for name, value in variables if name.startswith("HTTP_")]
    given = dict(variables)
    return Request(given["REQUEST_METHOD"], given["REQUEST_URI"], headers)


class CgiExchange(Exchange):
    """A header without a status line ("Status: 201"), and a body that ends with the connection or a record."""

    def start(self, status=201, headers=(), length=None, framing="length", version="1.1"):
        lines = [f"Status: {status} {reason(status)}", *(f"{name}: {value}" for name, value in headers)]
        if length is not None and framing == "length":
            lines.append(f"Content-Length: {length}")
        self.body(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))


class FastCgiExchange(CgiExchange):
    def body(self, data):
        for begin in range(0, len(data), 32768):
            self.record(_STDOUT, data[begin:begin + 32768])

    def end(self, trailers=()):
        self.record(_STDOUT, b"")
        self.record(_END, bytes(8))
        self.close()

    def record(self, kind, data):
        self.raw(struct.pack(">BBHHBx", 1, kind, 1, len(data), 0) + data)


class UwsgiExchange(CgiExchange):
    """uwsgi answers as HTTP does, with a status line, and ends with the connection."""

    def start(self, status=201, headers=(), length=None, framing="length", version="1.1"):
        lines = [f"HTTP/1.1 {status} {reason(status)}", *(f"{name}: {value}" for name, value in headers)]
        if length is not None and framing == "length":
            lines.append(f"Content-Length: {length}")
        self.raw(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def body(self, data):
        self.raw(data)

    def end(self, trailers=()):
        self.close()


class FastCgi(Upstream):
    def serve(self, connection):
        stream = connection.makefile("rb")
        params, body = b"", b""
        while True:
            _, kind, _, length, padding = struct.unpack(">BBHHBx", exactly(stream, 8))
            data = exactly(stream, length)
            exactly(stream, padding)
            if kind == _PARAMS and data:
                params += data
            elif kind == _PARAMS:
                break
        request = request_of(pairs(params))

        def read():
            nonlocal body
            while True:
                _, kind, _, length, padding = struct.unpack(">BBHHBx", exactly(stream, 8))
                data = exactly(stream, length)
                exactly(stream, padding)
                if kind == _STDIN and not data:
                    return body
                body += data

        self.execute(request, read, lambda *known: FastCgiExchange(connection, *known))


def pairs(data):
    """FastCGI's name-value pairs."""
    at, found = 0, []

    def length():
        nonlocal at
        value = data[at]
        if value & 0x80:
            value = struct.unpack(">I", data[at:at + 4])[0] & 0x7FFFFFFF
            at += 3
        at += 1
        return value

    while at < len(data):
        name, value = length(), length()
        found.append((data[at:at + name].decode("latin-1"), data[at + name:at + name + value].decode("latin-1")))
        at += name + value
    return found


class Uwsgi(Upstream):
    def serve(self, connection):
        stream = connection.makefile("rb")
        _, size, _ = struct.unpack("<BHB", exactly(stream, 4))
        data, at, variables = exactly(stream, size), 0, []
        words = []
        while at < len(data):
            (length,) = struct.unpack("<H", data[at:at + 2])
            words.append(data[at + 2:at + 2 + length].decode("latin-1"))
            at += 2 + length
        variables = list(zip(words[::2], words[1::2]))
        request = request_of(variables)
        wanted = int(dict(variables).get("CONTENT_LENGTH") or 0)
        self.execute(request, lambda: exactly(stream, wanted), lambda *known: UwsgiExchange(connection, *known))
