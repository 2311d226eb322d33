#!/usr/bin/python3
"""Several streams of one HTTP/2 connection whose client reads slowly: one of them is cancelled, or gets no further within
send_timeout, while frames of its answer wait for the connection. Whatever the module does to go on reading that answer, the
frames that the client sees are whole, each holds its own stream's bytes, and the answer is stored."""
import socket
import struct
import time

from support.checks import eventually, same, true
from support.scene import Scene

ANSWER = b"x" * 1_500_000
DATA, HEADERS, RST_STREAM, SETTINGS, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 7, 8
END_STREAM, END_HEADERS, ACK = 1, 4, 1
CANCEL = 8

scene = Scene(workers=1, ports=("port", "port9"), http="""
    idem_zone z path={shm}/z keys=64 response=1m;
    idem_max_body 2m;
    server {
        listen 127.0.0.1:{port9} http2 sndbuf=32k;
        http2_chunk_size 8k;
        proxy_max_temp_file_size 0;
        location /default/ { idem z; proxy_pass http://{up}; }
        location /many/ { idem z; proxy_buffers 128 4k; proxy_busy_buffers_size 256k; proxy_pass http://{up}; }
        location /unbuffered/ { idem z; proxy_buffering off; proxy_buffer_size 16k; proxy_buffers 16 16k; proxy_pass http://{up}; }
        location /stalls/ { idem z; send_timeout 1s; proxy_pass http://{up}; }
        location /stalls-many/ { idem z; send_timeout 1s; proxy_buffers 128 4k; proxy_busy_buffers_size 256k; proxy_pass http://{up}; }
        location = /other { return 200 "of the other stream"; }
    }
""", server="".join(f"location /{name}/ {{ idem z; proxy_pass http://{{up}}; }}" for name in ("default", "many", "unbuffered", "stalls", "stalls-many")))


def frame(kind, flags, stream, payload=b""):
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def fields(method, path, more=()):
    """A header block in which nothing is indexed or packed."""
    lines = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "shop.example"), *more]
    return b"".join(b"\0" + bytes([len(n)]) + n.encode() + bytes([len(v)]) + v.encode() for n, v in lines)


class Slow:
    """A client with windows so large that only TCP holds the server back."""

    def __init__(self):
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        self.sock.settimeout(10)
        self.sock.connect(("127.0.0.1", scene.nginx.port9))
        self.sock.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0x7fffffff)) +
                          frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7fff0000 - 1)))
        self.data = b""

    def send(self, *frames):
        self.sock.sendall(b"".join(frames))

    def next_frame(self):
        """kind, flags, stream, payload; None at the connection's end."""
        while len(self.data) < 9 or len(self.data) < 9 + int.from_bytes(self.data[:3], "big"):
            try:
                more = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not more:
                same(self.data, b"", "what is left at the end is not half a frame")
                return None
            self.data += more
        length, kind, flags = int.from_bytes(self.data[:3], "big"), self.data[3], self.data[4]
        stream = struct.unpack(">I", self.data[5:9])[0]
        true(kind <= 9 and length <= 16384 and stream in (0, 1, 3), f"a frame, not {self.data[:24]!r}")
        payload, self.data = self.data[9:9 + length], self.data[9 + length:]
        return kind, flags, stream, payload


def play(at, disturb):
    """Stream 1 asks for the large answer; then TCP is full. disturb(client); stream 3 asks for a small one; all is read."""
    route = scene.route(lambda x: (x.start(201, length=len(ANSWER)), x.body(ANSWER), x.end()))
    client = Slow()
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, fields("POST", f"/{at}/{route.name}", [("idempotency-key", route.key)])))
    eventually(lambda: route.count >= 1, "the upstream is asked")
    time.sleep(0.5)  # TCP fills up; if it doesn't, less is tested
    client.send(frame(HEADERS, END_STREAM | END_HEADERS, 3, fields("GET", "/other")))
    disturb(client)
    other, ended = b"", False
    while not ended:
        seen = client.next_frame()
        true(seen is not None, "the connection lasts until the other stream is answered")
        kind, flags, stream, payload = seen
        if kind == DATA and stream == 1:
            same(payload.strip(b"x"), b"", "bytes of stream 1")
        elif kind == DATA and stream == 3:
            other += payload
        ended = stream == 3 and kind in (DATA, HEADERS) and bool(flags & END_STREAM)
    same(other, b"of the other stream", "the other stream's answer")
    client.sock.close()
    answer = route.settled(f"/{at}", body=None)
    same((answer.status, answer.body == ANSWER, answer.header("Idempotency-Replayed")), (201, True, "true"), "the stored answer")
    route.executed(1)


for name in ("default", "many", "unbuffered"):
    @scene.check(f"a cancelled stream while TCP is full ({name})")
    def cancelled(name=name):
        play(name, lambda client: client.send(frame(RST_STREAM, 0, 1, struct.pack(">I", CANCEL))))

for name in ("stalls", "stalls-many"):
    @scene.check(f"a stream that gets no further within send_timeout ({name})")
    def stalled(name=name):
        play(name, lambda client: time.sleep(2.5))


scene.run()
