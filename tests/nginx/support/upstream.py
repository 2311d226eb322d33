"""Upstreams whose behaviour a check scripts, and that count executions.

A Route is one script under one name; requests find it by the last part of their path, whatever location of nginx they came
through and whatever protocol they arrive by. An *execution* is counted as soon as a request's head has been read: a
truncated request counts too, so that nothing that reached the upstream goes uncounted.

A script gets an Exchange and answers in steps: start(), body(), end(); or in one: answer(). close() and reset() end the
connection in the middle. The steps mean the same in each protocol; here is HTTP/1, cgi.py and h2peer.py have the others."""
import itertools
import socket
import struct
import threading
from http import HTTPStatus

from .checks import LIMIT, Failed, Gate, eventually, same


def reset(sock):
    """Closes with a RST: what is still in flight in either direction is lost."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    finally:
        sock.close()


class Request:
    def __init__(self, method, target, headers):
        self.method, self.target, self.headers, self.body = method, target, headers, b""

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def header(self, name):
        values = self.all(name)
        return values[0] if values else None


class Route:
    """A script and what came to it."""

    def __init__(self, name, script):
        self.name, self.script = name, script
        self.gate = Gate()
        self.requests = []
        self.errors = []
        self._lock = threading.Lock()

    @property
    def count(self):
        return len(self.requests)

    def arrived(self, request):
        with self._lock:
            self.requests.append(request)
            return len(self.requests)

    def begun(self):
        """Waits for the first execution: who asks from now on is a duplicate."""
        eventually(lambda: self.requests, f"an execution of {self.name}")

    def executed(self, times):
        """The assertion every check ends with."""
        same(self.count, times, f"executions of {self.name}")


class Routes:
    """All routes of a test, shared by its upstreams."""

    def __init__(self):
        self._routes = {}
        self._numbers = itertools.count(1)
        self.strays = []  # targets that belong to no route

    def add(self, route):
        self._routes[route.name] = route

    def name(self):
        return f"r{next(self._numbers)}"

    def find(self, target):
        route = self._routes.get(target.split("?")[0].rstrip("/").rsplit("/", 1)[-1])
        if route is None:
            self.strays.append(target)
        return route

    def open_gates(self):
        for route in self._routes.values():
            route.gate.open()


def default_script(x):
    """201 and a body that tells the executions apart."""
    x.answer(201, b"execution %d\n" % x.number, [("Content-Type", "text/plain"), ("X-Execution", str(x.number))])


class Exchange:
    """One request and how it is answered, over HTTP/1."""

    def __init__(self, connection, request, route, number):
        self.sock, self.request, self.route, self.number = connection, request, route, number
        self.framing, self.closed = "length", False

    def start(self, status=201, headers=(), length=None, framing="length", version="1.1"):
        """The head. framing: "length" (needs length, unless there is no body), "chunked", or "eof"."""
        self.framing = framing
        lines = [f"HTTP/{version} {status} {reason(status)}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if framing == "chunked":
            lines.append("Transfer-Encoding: chunked")
        elif length is not None:
            lines.append(f"Content-Length: {length}")
        lines.append("Connection: close")
        self.raw(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))

    def body(self, data):
        self.raw(b"%x\r\n%s\r\n" % (len(data), data) if self.framing == "chunked" else data)

    def end(self, trailers=()):
        if self.framing == "chunked":
            self.raw(b"0\r\n" + b"".join(f"{k}: {v}\r\n".encode() for k, v in trailers) + b"\r\n")
        self.close()

    def answer(self, status=201, body=b"", headers=(), framing="length", trailers=()):
        if self.request.method == "HEAD" or status in (204, 304):
            self.start(status, headers)
        else:
            self.start(status, headers, len(body), framing)
            if body:
                self.body(body)
        self.end(trailers)

    def raw(self, data):
        try:
            self.sock.sendall(data)
        except OSError:  # nginx has gone; a script goes on as an application would
            pass

    def close(self):
        """Ends the connection, in order as TCP sees it."""
        if not self.closed:
            self.closed = True
            try:
                self.sock.shutdown(socket.SHUT_WR)
                self.sock.settimeout(LIMIT)
                while self.sock.recv(65536):  # or else a close would become a reset
                    pass
            except OSError:
                pass
            self.sock.close()

    def reset(self):
        self.closed = True
        reset(self.sock)


def reason(status):
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unassigned"


class Upstream:
    """Listens on 127.0.0.1 and gives each connection a thread."""

    def __init__(self, routes):
        self.routes = routes
        self.sock = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port = self.sock.getsockname()[1]
        self._open = set()
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                connection, _ = self.sock.accept()
            except OSError:
                return
            connection.settimeout(LIMIT)
            with self._lock:
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            self.serve(connection)
        except (OSError, EOFError, Failed):
            pass  # a client that went in the middle; what it sent of a head is counted
        finally:
            with self._lock:
                self._open.discard(connection)
            connection.close()

    def serve(self, connection):
        stream = connection.makefile("rb")
        line = stream.readline()
        if not line:
            return
        method, target, _ = line.decode("latin-1").split(" ", 2)
        request = Request(method, target, read_headers(stream))
        self.execute(request, lambda: read_body(request, stream), lambda *known: Exchange(connection, *known))

    def execute(self, request, read, exchange):
        """Counts the request, reads its body, runs the script."""
        route = self.routes.find(request.target)
        if route is None:
            return
        number = route.arrived(request)
        request.body = read()
        try:
            x = exchange(request, route, number)
            route.script(x)
        except Failed as error:
            route.errors.append(str(error))
            raise

    def idle(self):
        """Waits until no connection is open."""
        eventually(lambda: not self._open, lambda: f"{len(self._open)} upstream connections are open")

    def stop(self):
        self.sock.close()


def read_headers(stream):
    headers = []
    while True:
        line = stream.readline()
        if not line:
            raise EOFError
        if line in (b"\r\n", b"\n"):
            return headers
        name, _, value = line.decode("latin-1").partition(":")
        headers.append((name, value.strip()))


def read_body(request, stream):
    if (request.header("transfer-encoding") or "").lower() == "chunked":
        data = b""
        while True:
            size = int(stream.readline().split(b";")[0], 16)
            data += exactly(stream, size)
            stream.readline()
            if size == 0:
                return data
    return exactly(stream, int(request.header("content-length") or 0))


def exactly(stream, count):
    data = stream.read(count)
    if len(data) != count:
        raise EOFError
    return data
