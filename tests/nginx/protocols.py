#!/usr/bin/python3
"""The same promise over other protocols: HTTP/2 and TLS towards clients, FastCGI, uwsgi and gRPC towards upstreams,
websockets and old clients, which only pass."""
import os
import socket

from support.cgi import FastCgi, Uwsgi
from support.checks import same, true
from support.client import Client, replayed
from support.h2peer import H2Client, H2Upstream, grpc_message
from support.scene import Scene, problem

CGI = "{kind}_param REQUEST_METHOD $request_method; {kind}_param REQUEST_URI $request_uri; {kind}_param CONTENT_LENGTH $content_length;"
FASTCGI, UWSGI = CGI.replace("{kind}", "fastcgi"), CGI.replace("{kind}", "uwsgi")

scene = Scene(http="""
    idem_zone z path={shm}/z keys=2000 response=2k;
    idem_wait 60s;
    client_max_body_size 8m;
    map $http_upgrade $connection_upgrade { default upgrade; "" close; }
""", server="""
        location /wait { idem z; proxy_pass http://{up}; }
        location /now { idem z; idem_wait 0; proxy_pass http://{up}; }
        location /fastcgi { idem z; %s fastcgi_pass {fast}; }
        location /uwsgi { idem z; %s uwsgi_pass {uwsgi}; }
        location /grpc { idem z; grpc_pass grpc://{h2}; }
        location /grpc-now { idem z; idem_wait 0; grpc_pass grpc://{h2}; }
        location /keep { idem z; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://{up}; }
        location /socket { idem z; proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade;
                           proxy_set_header Connection $connection_upgrade; proxy_pass http://{up}; }
""" % (FASTCGI, UWSGI), http2=True, tls=True, upstreams={"fast": FastCgi, "uwsgi": Uwsgi, "h2": H2Upstream})


# -------------------------------------------------------------------- FastCGI, uwsgi
@scene.check("FastCGI: executed once, and told the fence and the attempt")
def fastcgi():
    cgi("/fastcgi")


@scene.check("uwsgi: executed once, and told the fence and the attempt")
def uwsgi():
    cgi("/uwsgi")


def cgi(at):
    body = os.urandom(200_000)
    route = scene.route(lambda x: x.answer(201, b"execution 1\n", [("Content-Type", "text/plain"), ("X-A", "1"), ("X-A", "2")]))
    first = route.post(at, body=body, headers=[("Idempotency-Fence", "99")])
    same((first.status, first.all("X-A"), route.requests[0].body == body), (201, ["1", "2"], True), "the first answer, the body")
    replayed(route.post(at, body=body), first)
    problem(route.post(at, body=body[:-1]), 422, "key-reused")
    same(route.requests[0].all("IDEMPOTENCY-FENCE"), [scene.logged(first)["token"]], "the fence")
    same(route.requests[0].all("IDEMPOTENCY-ATTEMPT"), ["1"], "the attempt")
    route.executed(1)


@scene.check("FastCGI and uwsgi: closed without an answer is held, in the middle of one too")
def cgi_ambiguous():
    for at in ("/fastcgi", "/uwsgi"):
        for script in (lambda x: x.reset(), lambda x: (x.start(201, length=100), x.body(b"ten bytes."), x.reset())):
            route = scene.route(script)
            route.post(at)
            problem(route.settled(at), 409, "outcome-unknown")
            route.executed(1)


@scene.check("FastCGI and uwsgi: a 500 with waiters is executed once and shared")
def cgi_shared():
    for at in ("/fastcgi", "/uwsgi"):
        route = scene.route(lambda x: x.answer(500, b"failure %d\n" % x.number), gated=True)
        calls = [route.later(at)]
        route.gate.arrived()
        calls += [route.later(at) for _ in range(4)]
        scene.waiting(4)
        route.gate.open()
        same([(c.result().status, c.result().body) for c in calls], [(500, b"failure 1\n")] * 5, f"answers at {at}")
        route.executed(1)


# -------------------------------------------------------------------- HTTP/2
def h2_post(client, route, at, body=b'{"amount": 1}', headers=()):
    return client.request("POST", f"{at}/{route.name}", route.fields("", headers), body)


@scene.check("HTTP/2: 60 streams with one key, waiting: one execution, 60 answers")
def streams_waiting():
    route = scene.route(gated=True)
    client = H2Client(scene.nginx.port2)
    streams = [h2_post(client, route, "/wait") for _ in range(60)]
    route.gate.arrived()
    scene.waiting(59)
    route.gate.open()
    seen = [client.response(stream) for stream in streams]
    client.close()
    same({(a.status, a.body, a.complete) for a in seen}, {(201, b"execution 1\n", True)}, "answers")
    same(sorted(a.header("idempotency-replayed") or "" for a in seen), [""] + ["true"] * 59, "marks")
    route.executed(1)


@scene.check("HTTP/2: 60 streams with one key, not waiting: one execution, 59 times 409")
def streams_now():
    route = scene.route(gated=True)
    client = H2Client(scene.nginx.port2)
    streams = [h2_post(client, route, "/now") for _ in range(60)]
    route.gate.arrived()
    refused = [client.response(stream) for stream in streams[1:]]
    for answer in refused:
        problem(answer, 409, "in-progress", "same_key")
    route.gate.open()
    same(client.response(streams[0]).status, 201, "the first stream")
    client.close()
    route.executed(1)


@scene.check("HTTP/2: a stream that is cancelled while it waits leaves the others alone")
def cancelled():
    route = scene.route(gated=True)
    client = H2Client(scene.nginx.port2)
    streams = [h2_post(client, route, "/wait") for _ in range(10)]
    route.gate.arrived()
    scene.waiting(9)
    for stream in streams[4:7]:
        client.cancel(stream)
    scene.waiting(6)
    route.gate.open()
    seen = [client.response(stream) for stream in streams[:4] + streams[7:]]
    client.close()
    same([a.status for a in seen], [201] * 7, "answers")
    route.executed(1)


@scene.check("HTTP/2: a connection that is gone with all who wait on it leaves the others alone")
def connection_gone():
    route = scene.route(gated=True)
    first, second = H2Client(scene.nginx.port2), H2Client(scene.nginx.port2)
    owner = h2_post(first, route, "/wait")
    route.gate.arrived()
    [h2_post(second, route, "/wait") for _ in range(20)]
    others = [h2_post(first, route, "/wait") for _ in range(5)]
    scene.waiting(25)
    second.reset()
    scene.waiting(5)
    route.gate.open()
    same([first.response(stream).status for stream in [owner, *others]], [201] * 6, "answers")
    first.close()
    route.executed(1)


@scene.check("HTTP/2 and HTTP/1 share keys")
def mixed():
    route = scene.route()
    client = H2Client(scene.nginx.port2)
    first = route.post("/wait")
    again = client.response(h2_post(client, route, "/wait"))
    same((again.status, again.body, again.header("idempotency-replayed")), (201, first.body, "true"), "over HTTP/2")
    other = scene.route()
    over = client.response(h2_post(client, other, "/wait"))
    same((over.status, over.header("idempotency-replayed")), (201, None), "first over HTTP/2")
    same(other.post("/wait").header("Idempotency-Replayed"), "true", "then over HTTP/1")
    client.close()
    same((route.count, other.count), (1, 1), "executions")


@scene.check("HTTP/2: repeated and broken keys are refused before anything is executed")
def h2_keys():
    route = scene.route()
    client = H2Client(scene.nginx.port2)
    for fields in ([("idempotency-key", "a"), ("idempotency-key", "b")], [("idempotency-key", '"a')], [("idempotency-key", "")]):
        stream = client.request("POST", f"/wait/{route.name}", fields, b"x")
        problem(client.response(stream), 400, "key-invalid", "new_key")
    client.close()
    route.executed(0)


@scene.check("HTTP/2: a body in many frames is the same request as in one piece")
def h2_body():
    route = scene.route()
    body = os.urandom(50_000)
    first = route.post("/wait", body=body)
    client = H2Client(scene.nginx.port2)
    again = client.response(client.request("POST", f"/wait/{route.name}", route.fields("", ()), body, pieces=1000))
    same((again.status, again.body, again.header("idempotency-replayed")), (201, first.body, "true"), "the replay")
    client.close()
    route.executed(1)


# -------------------------------------------------------------------- TLS
@scene.check("TLS: replays, with HTTP/1 and with HTTP/2")
def tls():
    route = scene.route(gated=False)
    first = route.post("/wait", port=scene.nginx.port3, tls=True)
    replayed(route.post("/wait", port=scene.nginx.port3, tls=True), first)
    client = H2Client(scene.nginx.port3, tls=True)
    again = client.response(h2_post(client, route, "/wait"))
    same((again.status, again.body, again.header("idempotency-replayed")), (201, first.body, "true"), "over HTTP/2")
    client.close()
    route.executed(1)


@scene.check("TLS: a client that leaves in the middle: stored")
def tls_abort():
    route = scene.route(lambda x: (x.start(201, length=20), x.body(b"ten bytes."), x.route.gate.stop_here(), x.body(b"ten bytes."), x.end()))
    client = Client(scene.nginx.port3, tls=True)
    client.request("POST", f"/now/{route.name}", route.fields("", ()), b"{}")
    route.gate.arrived()
    client.sock.close()
    route.gate.open()
    answer = route.settled("/now", body=b"{}")
    same((answer.status, answer.body, answer.header("Idempotency-Replayed")), (201, b"ten bytes." * 2, "true"), "the next one")
    route.executed(1)


# -------------------------------------------------------------------- gRPC
GRPC = [("content-type", "application/grpc"), ("te", "trailers")]


def grpc(script, at="/grpc"):
    """A route, its client, and a call of it."""
    route = scene.route(script)
    client = H2Client(scene.nginx.port2)
    return route, client, lambda: client.response(h2_post(client, route, at, grpc_message(b"charge 1"), GRPC))


def unary(x, status="0"):
    x.start(200, [("content-type", "application/grpc")])
    x.body(grpc_message(b"charged %d" % x.number))
    x.end([("grpc-status", status), ("grpc-message", "said so")])


@scene.check("gRPC: a call is executed once; its replay has message and trailers")
def grpc_unary():
    route, client, call = grpc(unary)
    first, again = call(), call()
    same((first.body, dict(first.trailers)["grpc-status"]), (grpc_message(b"charged 1"), "0"), "the first answer")
    same(route.requests[0].body, grpc_message(b"charge 1"), "the message")
    same((again.status, again.body, again.header("idempotency-replayed")), (200, first.body, "true"), "the replay")
    same(sorted(again.trailers), sorted(first.trailers), "the replay's trailers")
    same(again.header("content-type"), "application/grpc", "its content type")
    same(len(route.requests[0].all("idempotency-fence")), 1, "fences told")
    client.close()
    route.executed(1)


@scene.check("gRPC: an error in the trailers replays as one")
def grpc_error():
    route, client, call = grpc(lambda x: unary(x, "9"))
    first, again = call(), call()
    same([dict(a.trailers)["grpc-status"] for a in (first, again)], ["9", "9"], "grpc-status")
    client.close()
    route.executed(1)


@scene.check("gRPC: an answer of trailers only replays")
def grpc_trailers_only():
    def only(x):
        fields = [(":status", "200"), ("content-type", "application/grpc"), ("grpc-status", "5"), ("grpc-message", "no such card")]
        x.wire.send(lambda h2: h2.send_headers(x.stream, fields, end_stream=True))

    route, client, call = grpc(only)
    seen = [call() for _ in range(2)]
    same([(a.header("grpc-status"), a.body) for a in seen], [("5", b"")] * 2, "answers")
    same([a.header("idempotency-replayed") for a in seen], [None, "true"], "marks")
    client.close()
    route.executed(1)


@scene.check("gRPC: several messages of one answer replay in order")
def grpc_stream():
    def several(x):
        x.start(200, [("content-type", "application/grpc")])
        for n in range(5):
            x.body(grpc_message(b"part %d" % n))
        x.end([("grpc-status", "0")])

    route, client, call = grpc(several)
    first, again = call(), call()
    same(first.body, b"".join(grpc_message(b"part %d" % n) for n in range(5)), "the first answer")
    same((again.body, again.trailers), (first.body, first.trailers), "the replay")
    client.close()
    route.executed(1)


@scene.check("gRPC: a call that is cut off is held")
def grpc_cut():
    for script in (lambda x: x.close(), lambda x: (x.start(200, [("content-type", "application/grpc")]), x.body(grpc_message(b"half")), x.close())):
        route = scene.route(script)
        client = H2Client(scene.nginx.port2)
        stream = h2_post(client, route, "/grpc-now", grpc_message(b"x"), GRPC)
        try:
            client.response(stream)
        except Exception as error:  # a stream that nginx resets
            print(f"# {error}")
        client.close()
        problem(route.settled("/grpc-now", body=grpc_message(b"x")), 409, "outcome-unknown")
        route.executed(1)


@scene.check("gRPC: calls with one key at once: one execution")
def grpc_crowd():
    route = scene.route(lambda x: (x.route.gate.stop_here(), unary(x)))
    client = H2Client(scene.nginx.port2)
    streams = [h2_post(client, route, "/grpc", grpc_message(b"x"), GRPC) for _ in range(20)]
    route.gate.arrived()
    scene.waiting(19)
    route.gate.open()
    seen = [client.response(stream) for stream in streams]
    same({(a.body, dict(a.trailers)["grpc-status"]) for a in seen}, {(grpc_message(b"charged 1"), "0")}, "answers")
    client.close()
    route.executed(1)


# -------------------------------------------------------------------- what only passes
@scene.check("a websocket passes, with or without a key, and is no claim")
def websocket():
    def echo(x):
        x.raw(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        while data := x.sock.recv(100):
            x.raw(data.upper())
        x.close()

    route = scene.route(echo)
    for _ in range(2):
        client = Client(scene.nginx.port)
        client.request("POST", f"/socket/{route.name}", [*route.fields("", ()), ("Upgrade", "websocket"), ("Connection", "Upgrade")])
        same(client.response().status, 101, "status")
        for word in (b"hello", b"again"):
            client.send(word)
            same(client.sock.recv(100), word.upper(), "the echo")
        mark = client.mark
        client.close()
        same(scene.logged_mark(mark)["outcome"], "bypassed", "outcome")
    route.executed(2)


@scene.check("a client of HTTP/1.0 gets its answer and its replay")
def old_client():
    route = scene.route(lambda x: x.answer(201, b"execution %d\n" % x.number, framing="chunked"))
    seen = []
    for _ in range(2):
        sock = socket.create_connection(("127.0.0.1", scene.nginx.port), 30)
        sock.sendall(f"POST /wait/{route.name} HTTP/1.0\r\nHost: shop.example\r\nIdempotency-Key: {route.key}\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        data = b""
        while piece := sock.recv(1000):
            data += piece
        seen.append(data)
        sock.close()
    same([(b" 201 " in d, d.endswith(b"\r\n\r\nexecution 1\n"), b"Idempotency-Replayed: true" in d) for d in seen],
         [(True, True, False), (True, True, True)], "answers")
    route.executed(1)


@scene.check("an absolute target is the same request")
def absolute():
    route = scene.route()
    first = route.post("/wait")
    client = Client(scene.nginx.port)
    client.request("POST", f"http://shop.example/wait/{route.name}", route.fields("", ()), b'{"amount": 1}')
    answer = client.response()
    client.close()
    true(answer.status in (201, 422), f"{answer!r}")  # $request_uri has the host in it: told, never executed again
    same(first.status, 201, "the first")
    route.executed(1)


scene.run()
