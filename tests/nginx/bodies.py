#!/usr/bin/python3
"""Request bodies: large, chunked, slow, announced, aborted, refused. The claim is made when the body is there, not before."""
import os

from support.checks import eventually, same, true
from support.client import Client, replayed
from support.scene import Scene, problem

scene = Scene(http="""
    idem_zone z path={shm}/z keys=2000;
    client_max_body_size 8m;
    client_body_buffer_size 16k;
""", server="""
        location /a { idem z; proxy_pass http://{up}; }
        location /unbuffered { idem z; proxy_request_buffering off; proxy_http_version 1.1; proxy_pass http://{up}; }
        location /file { idem z; client_body_in_file_only clean; proxy_pass http://{up}; }
        location /single { idem z; client_body_in_single_buffer on; client_body_buffer_size 64k; proxy_pass http://{up}; }
        location /limited { idem z; client_max_body_size 100; proxy_pass http://{up}; }
        location /impatient { idem z; client_body_timeout 1s; proxy_pass http://{up}; }
        location /nobody { idem z; idem_fingerprint_body off; proxy_pass http://{up}; }
        location /capped { idem z; idem_fingerprint_body 1k; proxy_pass http://{up}; }
        location /unset { idem z; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_pass http://{up}; }
""")


def in_chunks(body, sizes):
    wire, begin = b"", 0
    for size in sizes:
        part = body[begin:begin + size]
        begin += size
        wire += b"%x\r\n%s\r\n" % (len(part), part)
    return wire + b"0\r\n\r\n"


def chunked(route, at, body, sizes):
    connection = Client(scene.nginx.port)
    connection.request("POST", f"{at}/{route.name}", [*route.fields("", ()), ("Transfer-Encoding", "chunked")])
    connection.send(in_chunks(body, sizes))
    answer = connection.response()
    connection.close()
    return answer


def begun(route, at, length, part):
    """A request whose body has only begun."""
    connection = Client(scene.nginx.port)
    connection.request("POST", f"{at}/{route.name}", [*route.fields("", ()), ("Content-Length", str(length))])
    connection.send(part)
    return connection


@scene.check("3 MB in a temporary file reach the upstream whole, replay, and are told from 3 MB with another last byte")
def large():
    for at in ("/a", "/unbuffered", "/file"):
        route = scene.route()
        body = os.urandom(3 << 20)
        first = route.post(at, body=body)
        same((first.status, route.requests[0].body == body), (201, True), f"status, and the body came whole, at {at}")
        replayed(route.post(at, body=body), first)
        problem(route.post(at, body=body[:-1] + bytes([body[-1] ^ 1])), 422, "key-reused")
        problem(route.post(at, body=body[:-1]), 422, "key-reused")
        problem(route.post(at, body=bytes([body[0] ^ 1]) + body[1:]), 422, "key-reused")
        route.executed(1)


@scene.check("every size around the buffers' edges is hashed as what it is")
def edges():
    for size in (0, 1, 63, 64, 65, 4095, 4096, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 100_000):
        route = scene.route()
        body = os.urandom(size)
        first = route.post("/a", body=body)
        same((first.status, route.requests[0].body == body), (201, True), f"{size} bytes")
        replayed(route.post("/a", body=body), first)
        problem(route.post("/a", body=body + b"x"), 422, "key-reused")
        for at in {0, size // 2, size - 1} if size else ():  # another byte at the beginning, in the middle, at the end
            problem(route.post("/a", body=body[:at] + bytes([body[at] ^ 1]) + body[at + 1:]), 422, "key-reused")
        route.executed(1)


@scene.check("a body in chunks is the same request as in one piece, whatever the chunks")
def chunks():
    for at in ("/a", "/unbuffered", "/single"):
        route = scene.route()
        body = os.urandom(50_000)
        first = route.post(at, body=body)
        same(first.status, 201, f"status at {at}")
        for sizes in ((50_000,), (1, 49_999), (20_000, 16_384, 13_616)):
            replayed(chunked(route, at, body, sizes), first)
        problem(chunked(route, at, body[:-1], (49_999,)), 422, "key-reused")
        route.executed(1)
        same(route.requests[0].body == body, True, "the body came whole")


@scene.check("a body in chunks first, then in one piece")
def chunks_first():
    route = scene.route()
    body = os.urandom(200_000)
    first = chunked(route, "/a", body, [1000] * 200)
    same((first.status, route.requests[0].body == body), (201, True), "status, and the body came whole")
    replayed(route.post("/a", body=body), first)
    route.executed(1)


@scene.check("no body, an empty one and an empty one in chunks are one request")
def none():
    route = scene.route()
    first = route.post("/a", body=None)
    replayed(route.post("/a", body=b""), first)
    replayed(chunked(route, "/a", b"", ()), first)
    route.executed(1)


@scene.check("a slow body holds nothing: who is complete first is first, the slow one gets his answer")
def slow():
    route = scene.route()
    body = b"x" * 30_000
    connection = begun(route, "/a", len(body), body[:10_000])
    first = route.post("/a", body=body)
    same((first.status, first.header("Idempotency-Replayed")), (201, None), "the quick one")
    connection.send(body[10_000:20_000])
    connection.send(body[20_000:])
    replayed(connection.response(), first)
    connection.close()
    route.executed(1)


@scene.check("Expect: 100-continue is answered before the body is read")
def expect():
    route = scene.route()
    connection = Client(scene.nginx.port)
    connection.request("POST", f"/a/{route.name}", [*route.fields("", ()), ("Expect", "100-continue"), ("Content-Length", "5")])
    true(connection.sock.recv(100).startswith(b"HTTP/1.1 100"), "100 Continue")
    connection.send(b"hello")
    first = connection.response()
    same((first.status, route.requests[0].body), (201, b"hello"), "status and body")
    connection.close()
    replayed(route.post("/a", body=b"hello"), first)
    route.executed(1)


@scene.check("a client that leaves in the middle of its body leaves no claim")
def aborted():
    for leave in (Client.close, Client.reset, Client.half_close):
        route = scene.route()
        connection = begun(route, "/a", 20_000, b"x" * 5000)
        mark = connection.mark
        leave(connection)
        same(scene.logged_mark(mark)["claim"], "", "a claim")
        first = route.post("/a", body=b"x" * 20_000)
        same((first.status, first.header("Idempotency-Replayed")), (201, None), "the next one")
        same(route.requests[0].header("Idempotency-Attempt"), "1", "attempt")
        route.executed(1)


@scene.check("a body over client_max_body_size is 413 and leaves no claim, announced and in chunks")
def refused():
    route = scene.route()
    same(route.post("/limited", body=b"x" * 101).status, 413, "announced")
    same(chunked(route, "/limited", b"x" * 101, (101,)).status, 413, "in chunks")
    route.executed(0)
    first = route.post("/limited", body=b"x" * 100)
    same((first.status, first.header("Idempotency-Replayed")), (201, None), "a smaller one")
    same(route.requests[0].header("Idempotency-Attempt"), "1", "attempt")
    route.executed(1)


@scene.check("a body that never comes is given up (408) and leaves no claim")
def timed_out():
    route = scene.route()
    connection = begun(route, "/impatient", 100, b"half")
    mark = connection.mark
    same(scene.logged_mark(mark)["status"], "408", "status in the log")
    connection.close()
    same(route.post("/impatient", body=b"x" * 100).status, 201, "the next one")
    route.executed(1)


@scene.check("bad chunks are refused and leave no claim")
def bad_chunks():
    route = scene.route()
    connection = Client(scene.nginx.port)
    connection.request("POST", f"/a/{route.name}", [*route.fields("", ()), ("Transfer-Encoding", "chunked")])
    connection.send(b"5\r\nhello\r\nnonsense\r\n")
    same(connection.response().status, 400, "status")
    connection.close()
    same(route.post("/a", body=b"hello").status, 201, "the next one")
    route.executed(1)


@scene.check("a body that isn't part of the fingerprint still reaches the upstream whole")
def unhashed():
    route = scene.route()
    body = os.urandom(3 << 20)
    first = route.post("/nobody", body=body)
    same((first.status, route.requests[0].body == body), (201, True), "status, and the body came whole")
    replayed(route.post("/nobody", body=b"short"), first)
    route.executed(1)


@scene.check("idem_fingerprint_body SIZE: what lies within counts, and the length does")
def capped():
    route = scene.route()
    body = os.urandom(1024)
    first = route.post("/capped", body=body + b"tail one")
    same((first.status, route.requests[0].body), (201, body + b"tail one"), "status and body")
    replayed(route.post("/capped", body=body + b"tail two"), first)
    problem(route.post("/capped", body=bytes([body[0] ^ 1]) + body[1:] + b"tail one"), 422, "key-reused")
    problem(route.post("/capped", body=body + b"a longer tail"), 422, "key-reused")
    route.executed(1)


@scene.check("a body that isn't passed on still counts")
def not_passed():
    route = scene.route()
    first = route.post("/unset", body=b"one")
    same((first.status, route.requests[0].body), (201, b""), "status and what the upstream got")
    replayed(route.post("/unset", body=b"one"), first)
    problem(route.post("/unset", body=b"two"), 422, "key-reused")
    route.executed(1)


@scene.check("two clients with 3 MB at once: one execution")
def two_large():
    route = scene.route(gated=True)
    body = os.urandom(3 << 20)
    both = [route.later("/a", body=body) for _ in range(2)]
    route.gate.arrived()
    eventually(lambda: any(call.done() for call in both), "one of them is told something")
    route.gate.open()
    same(sorted(call.result().status for call in both), [201, 409], "answers")
    route.executed(1)


scene.run()
