"""HTTP/2 on both sides of nginx: a client with many streams on one connection, and an upstream for gRPC.

h2 is not safe for several threads, so each connection has one lock around it; waiting happens outside of that lock."""
import itertools
import os
import socket
import ssl
import struct
import threading

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from .checks import LIMIT, Failed
from .client import Response
from .upstream import Exchange, Request, Upstream, reset

_numbers = itertools.count(1)


class Stream:
    """One request of an H2Client, and what came of it."""

    def __init__(self, mark):
        self.mark, self.headers, self.body, self.trailers = mark, [], b"", []
        self.ended, self.error = False, None


class H2Client:
    """A connection with prior knowledge, or by TLS and ALPN."""

    def __init__(self, port, tls=False):
        self.sock = socket.create_connection(("127.0.0.1", port), LIMIT)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            self.sock = context.wrap_socket(self.sock)
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="latin-1"))
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(1 << 24)
        self.streams, self.closed = {}, False
        self._flush()

    def request(self, method, target, headers=(), body=b"", pieces=16384):
        mark = f"{os.getpid()}-h2-{next(_numbers)}"
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", method), (":path", target), (":scheme", "http"), (":authority", "shop.example"), ("x-mark", mark)]
        self.h2.send_headers(stream, fields + [(k.lower(), v) for k, v in headers], end_stream=not body)
        for begin in range(0, len(body), pieces):  # at most what the flow-control window has room for at the beginning
            self.h2.send_data(stream, body[begin:begin + pieces], end_stream=begin + pieces >= len(body))
        self.streams[stream] = Stream(mark)
        self._flush()
        return stream

    def response(self, stream):
        """Waits until the stream has ended."""
        self._until(lambda: self.streams[stream].ended or self.closed)
        return self._answer(stream)

    def body_bytes(self, stream, count):
        self._until(lambda: len(self.streams[stream].body) >= count or self.streams[stream].ended)

    def cancel(self, stream):
        """RST_STREAM, as a client that doesn't want the answer any more sends it."""
        self.h2.reset_stream(stream, 8)
        self._flush()

    def close(self):
        self.sock.close()

    def reset(self):
        reset(self.sock)

    def _answer(self, number):
        stream = self.streams[number]
        fields = dict(stream.headers)
        if ":status" not in fields:
            raise Failed(f"stream {number} ended without an answer (error {stream.error})")
        lines = [f"HTTP/2 {fields[':status']} -"] + [f"{k}: {v}" for k, v in stream.headers if not k.startswith(":")]
        answer = Response("\r\n".join(lines).encode("latin-1"), stream.body, stream.error is None, "h2", stream.mark)
        answer.trailers = stream.trailers
        return answer

    def _until(self, look):
        while not look():
            try:
                data = self.sock.recv(1 << 18)
            except TimeoutError as error:
                raise Failed(f"nothing on the HTTP/2 connection for {LIMIT:g} s") from error
            except OSError:
                data = b""
            if not data:
                self.closed = True
                return
            for event in self.h2.receive_data(data):
                self._take(event)
            self._flush()

    def _take(self, event):
        stream = self.streams.get(getattr(event, "stream_id", None))
        if isinstance(event, h2.events.ResponseReceived):
            stream.headers = list(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            stream.body += event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = list(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            stream.ended = True
        elif isinstance(event, h2.events.StreamReset):
            stream.ended, stream.error = True, event.error_code
        elif isinstance(event, h2.events.ConnectionTerminated):
            self.closed = True

    def _flush(self):
        self.sock.sendall(self.h2.data_to_send())


def grpc_message(data):
    """A gRPC frame: not compressed, length, bytes."""
    return struct.pack(">BI", 0, len(data)) + data


class H2Exchange(Exchange):
    """A stream. answer() of a gRPC script: start(), body(grpc_message(...)), end([("grpc-status", "0")])."""

    def __init__(self, wire, stream, request, route, number):
        super().__init__(wire.sock, request, route, number)
        self.wire, self.stream = wire, stream

    def start(self, status=200, headers=(), length=None, framing="length", version="2"):
        fields = [(":status", str(status))] + [(k.lower(), v) for k, v in headers]
        if length is not None and framing == "length":
            fields.append(("content-length", str(length)))
        self.wire.send(lambda h2: h2.send_headers(self.stream, fields))

    def body(self, data):
        for begin in range(0, len(data), 16384):
            self.wire.send(lambda h2: h2.send_data(self.stream, data[begin:begin + 16384]))

    def end(self, trailers=()):
        if trailers:
            self.wire.send(lambda h2: h2.send_headers(self.stream, trailers, end_stream=True))
        else:
            self.wire.send(lambda h2: h2.end_stream(self.stream))
        self.closed = True

    def close(self):
        try:
            self.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads, too; it closes the socket
        except OSError:
            pass


class Wire:
    """An upstream's connection: scripts in several threads write to it."""

    def __init__(self, sock):
        self.sock, self.lock = sock, threading.RLock()
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="latin-1"))

    def send(self, act):
        with self.lock:
            try:
                act(self.h2)
                self.sock.sendall(self.h2.data_to_send())
            except (OSError, h2.exceptions.ProtocolError):  # nginx has gone, or gave the stream up
                pass


class H2Upstream(Upstream):
    def serve(self, connection):
        wire = Wire(connection)
        wire.send(lambda h2: h2.initiate_connection())
        requests, bodies, done = {}, {}, {}
        while True:
            data = connection.recv(1 << 18)
            if not data:
                return
            with wire.lock:
                events = wire.h2.receive_data(data)
                wire.send(lambda h2: None)
            for event in events:
                if isinstance(event, h2.events.RequestReceived):
                    fields = dict(event.headers)
                    requests[event.stream_id] = Request(fields[":method"], fields[":path"], list(event.headers))
                    bodies[event.stream_id], done[event.stream_id] = b"", threading.Event()
                    self._begin(wire, event.stream_id, requests, bodies, done)
                elif isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] += event.data
                    wire.send(lambda h2: h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id))
                elif isinstance(event, h2.events.StreamEnded):
                    done[event.stream_id].set()

    def _begin(self, wire, stream, requests, bodies, done):
        def read():
            if not done[stream].wait(LIMIT):
                raise Failed("a request's body didn't end")
            return bodies[stream]

        def run():
            try:
                self.execute(requests[stream], read, lambda *known: H2Exchange(wire, stream, *known))
            except (OSError, Failed):
                pass  # told by the route

        threading.Thread(target=run, daemon=True).start()
