#!/usr/bin/python3
"""Clients that leave, before, in the middle of and after their answer, and clients that never read: the effect happened, so
the answer is stored and the next one gets it. On each protocol towards the upstream, and with HTTP/2 towards the client."""
import os

from support.cgi import FastCgi, Uwsgi
from support.checks import eventually, same, true
from support.client import replayed
from support.h2peer import H2Client, H2Upstream
from support.scene import Scene, problem, slug

HEAD, TAIL = os.urandom(3000), os.urandom(5000)
BIG = os.urandom(900_000)  # far more than two sockets and nginx's buffers hold for a client that doesn't read
FASTCGI = """fastcgi_param REQUEST_METHOD $request_method; fastcgi_param REQUEST_URI $request_uri; fastcgi_param CONTENT_LENGTH $content_length;"""
UWSGI = FASTCGI.replace("fastcgi", "uwsgi")

PLACES = {"proxy": "proxy_pass http://{up};",
          "proxy without buffering": "proxy_buffering off; proxy_pass http://{up};",
          "proxy over HTTP/1.1": 'proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://{up};',
          "fastcgi": f"{FASTCGI} fastcgi_pass {{fast}};",
          "fastcgi without buffering": f"{FASTCGI} fastcgi_buffering off; fastcgi_pass {{fast}};",
          "uwsgi": f"{UWSGI} uwsgi_pass {{uwsgi}};",
          "grpc": "grpc_pass grpc://{h2};"}


def place(name):
    return "/" + name.replace(" ", "-").replace("/", "-").replace(".", "-")


scene = Scene(http="""
    idem_zone z path={shm}/z keys=500 response=128k;
    idem_max_body 4m;
""", server="\n".join(f"location {place(name)}/ {{ idem z; {how} }}" for name, how in PLACES.items()) + """
        listen 127.0.0.1:{port4} sndbuf=8k; # else the kernel takes whole answers for a client that doesn't read
        location /deaf/ { idem z; send_timeout 1s; proxy_pass http://{up}; }
        location /deaf-unbuffered/ { idem z; send_timeout 1s; proxy_buffering off; proxy_pass http://{up}; }
        location /deaf-fastcgi/ { idem z; send_timeout 1s; %s fastcgi_pass {fast}; }
        location /deaf-disk/ { idem z; send_timeout 1s; proxy_buffers 4 4k; proxy_buffer_size 4k; proxy_busy_buffers_size 8k; proxy_pass http://{up}; }
        location /deaf-nodisk/ { idem z; send_timeout 1s; proxy_max_temp_file_size 0; proxy_buffers 4 4k; proxy_buffer_size 4k; proxy_busy_buffers_size 8k; proxy_pass http://{up}; }
        location /rate/ { idem z; limit_rate 1; limit_rate_after 1k; proxy_pass http://{up}; }
        location /rate-unbuffered/ { idem z; limit_rate 1; limit_rate_after 1k; proxy_buffering off; proxy_pass http://{up}; }
        location /watchful/ { idem z; idem_ignore_client_abort off; idem_ambiguous abandon; proxy_pass http://{up}; }
""" % FASTCGI, http2=True, ports=("port", "port2", "port4"), upstreams={"fast": FastCgi, "uwsgi": Uwsgi, "h2": H2Upstream})


def in_two(x):
    """Half of the answer, a gate, the other half."""
    x.start(201, [("X-Execution", str(x.number))], length=len(HEAD) + len(TAIL))
    x.body(HEAD)
    x.route.gate.stop_here()
    x.body(TAIL)
    x.end()


def stored_whole(route, at):
    """The next one gets the answer, whole, without an execution."""
    answer = route.settled(at)
    same((answer.status, answer.body == HEAD + TAIL, answer.header("Idempotency-Replayed")), (201, True, "true"), f"the next one: {answer!r}")
    route.executed(1)


def leaves(name, leave):
    at = place(name)

    @scene.check(f"{name}: a client that ends with {leave.__name__} while the upstream works")
    def before():
        route = scene.route(lambda x: x.answer(201, HEAD + TAIL, [("X-Execution", "1")]), gated=True)
        connection = route.open(at)
        route.gate.arrived()
        leave(connection)
        problem(route.post(at), 409, "in-progress", "same_key")
        route.gate.open()
        stored_whole(route, at)

    @scene.check(f"{name}: a client that ends with {leave.__name__} in the middle of its answer")
    def middle():
        route = scene.route(in_two)
        connection = route.open(at)
        route.gate.arrived()
        if "without" in name:
            connection.bytes_of_body(len(HEAD))
        leave(connection)
        problem(route.post(at), 409, "in-progress", "same_key")
        route.gate.open()
        stored_whole(route, at)


def fin(connection):
    connection.close()


def half_close(connection):
    connection.half_close()


def rst(connection):
    connection.reset()


for kind in PLACES:
    for way in (fin, half_close, rst):
        leaves(kind, way)


@scene.check("a client that leaves after its answer changes nothing")
def after():
    for kind in PLACES:
        for way in (fin, half_close, rst):
            route = scene.route(lambda x: x.answer(201, HEAD + TAIL, [("X-Execution", "1")]))
            connection = route.open(place(kind))
            first = connection.response()
            way(connection)
            replayed(route.post(place(kind)), first)
            route.executed(1)


def over_h2(name, leave):
    @scene.check(f"HTTP/2: a client that {name} while the upstream works")
    def before():
        for kind in PLACES:
            route = scene.route(lambda x: x.answer(201, HEAD + TAIL, [("X-Execution", "1")]), gated=True)
            client = H2Client(scene.nginx.port2)
            stream = client.request("POST", f"{place(kind)}/{route.name}", route.fields("", ()), b'{"amount": 1}')
            route.gate.arrived()
            leave(client, stream)
            route.gate.open()
            stored_whole(route, place(kind))
            client.close()

    @scene.check(f"HTTP/2: a client that {name} in the middle of its answer")
    def middle():
        for kind in PLACES:
            route = scene.route(in_two)
            client = H2Client(scene.nginx.port2)
            stream = client.request("POST", f"{place(kind)}/{route.name}", route.fields("", ()), b'{"amount": 1}')
            route.gate.arrived()
            if "without" in kind:
                client.body_bytes(stream, len(HEAD))
            leave(client, stream)
            route.gate.open()
            stored_whole(route, place(kind))
            client.close()


over_h2("cancels its stream", lambda client, stream: client.cancel(stream))
over_h2("closes the connection", lambda client, stream: client.close())
over_h2("resets the connection", lambda client, stream: client.reset())


def never_reads(at):
    route = scene.route(lambda x: (x.start(201, length=len(BIG)), x.body(BIG), x.end()))
    connection = route.open(at, receive_bytes=4096, port=scene.nginx.port4)
    route.begun()
    answer = route.settled(at)
    same((answer.status, answer.body == BIG, answer.header("Idempotency-Replayed")), (201, True, "true"), f"the next one at {at}: {answer!r}")
    route.executed(1)
    return connection


@scene.check("a client that never reads: its answer is stored, and in the end it is let go")
def deaf():
    open_ones = [(at, never_reads(at)) for at in ("/deaf", "/deaf-unbuffered", "/deaf-fastcgi", "/deaf-disk", "/deaf-nodisk")]
    for at, connection in open_ones:
        scene.logged_mark(connection.mark)  # not held for good: the request is over
        connection.close()


@scene.check("a slow reader gets all of its answer")
def slow():
    for at in ("/proxy", "/proxy-without-buffering", "/fastcgi"):
        route = scene.route(lambda x: (x.start(201, length=len(BIG)), x.body(BIG), x.end()))
        connection = route.open(at, receive_bytes=4096, port=scene.nginx.port4)
        route.begun()
        first = connection.response()
        same((first.complete, first.body == BIG), (True, True), f"the first answer at {at}")
        replayed(route.settled(at), first)
        connection.close()
        route.executed(1)


@scene.check("a client that leaves while it is being sent a byte a second")
def limited():
    for at in ("/rate", "/rate-unbuffered"):
        for leave in (fin, rst):
            route = scene.route(lambda x: x.answer(201, HEAD + TAIL, [("X-Execution", "1")]))
            connection = route.open(at)
            connection.bytes_of_body(500)
            leave(connection)
            # All of the answer is there, and nobody is any more: it may take as long as nginx takes to notice, not 7000 s.
            answer = eventually(lambda: (lambda a: a if slug(a) != "in-progress" else None)(route.open(at).response_head()), "it is settled")
            same(answer.status, 201, f"a replay at {at} begins: {answer!r}")
            route.executed(1)


@scene.check("a waiter's replay that its client doesn't read changes nothing for others")
def deaf_replay():
    route = scene.route(lambda x: (x.start(201, length=len(BIG)), x.body(BIG), x.end()))
    first = route.post("/deaf")
    connection = route.open("/deaf", receive_bytes=4096, port=scene.nginx.port4)
    replayed(route.post("/deaf"), first)
    scene.logged_mark(connection.mark)
    connection.close()
    route.executed(1)


@scene.check("idem_ignore_client_abort off: the upstream is let go with the client, as nginx does by itself")
def watchful():
    route = scene.route(lambda x: x.answer(201, b"execution %d\n" % x.number), gated=True)
    connection = route.open("/watchful")
    route.gate.arrived()
    mark = connection.mark
    connection.reset()
    same(scene.logged_mark(mark)["status"], "499", "status in the log while the upstream still works")
    route.gate.open()
    answer = route.settled("/watchful")
    same((answer.status, answer.body, scene.outcome(answer)), (201, b"execution 2\n", "reclaimed"), "the next one")
    route.executed(2)


scene.run()
