#!/usr/bin/python3
"""The request went out and no answer came back, or half of one: what idem_ambiguous hold, abandon and store make of it.

Where nothing was sent nothing can have happened: then the claim is given back in all three (and those who happen to wait
share the failure: "shared")."""
import socket

from support.checks import same
from support.client import Client, replayed
from support.scene import Scene, problem

MODES = ("hold", "abandon", "store")


def reserve(scene):
    """A port where nobody listens, for as long as this test holds it."""
    scene.nobody = socket.socket()
    scene.nobody.bind(("127.0.0.1", 0))
    scene.names["refused"] = "127.0.0.1:%d" % scene.nobody.getsockname()[1]


def locations():
    text = ""
    for mode in MODES:
        text += f"""
        location /{mode} {{ idem z; idem_ambiguous {mode}; proxy_pass http://{{up}}; }}
        location /{mode}-hasty {{ idem z; idem_ambiguous {mode}; proxy_read_timeout 1s; proxy_pass http://{{up}}; }}
        location /{mode}-unbuffered {{ idem z; idem_ambiguous {mode}; proxy_buffering off; proxy_pass http://{{up}}; }}
        location /{mode}-port {{ idem z; idem_ambiguous {mode}; idem_fingerprint $request_method; proxy_pass http://$http_x_port; }}
        location /{mode}-none {{ idem z; idem_ambiguous {mode}; proxy_pass http://none; }}
        location /{mode}-second {{ idem z; idem_ambiguous {mode}; proxy_pass http://second; }}
        location /{mode}-waiting {{ idem z; idem_ambiguous {mode}; idem_wait 20s; proxy_pass http://{{up}}; }}
        location /{mode}-intercepted {{ idem z; idem_ambiguous {mode}; error_page 502 504 @sorry; proxy_pass http://{{up}}; }}
"""
    return text + """
        location /default { idem z; proxy_pass http://{up}; }
        location @sorry { default_type text/plain; return 200 "sorry, later"; }
"""


scene = Scene(before=reserve, http="""
    idem_zone z path={shm}/z keys=2000;
    upstream none { server {up} down; }
    upstream second { server {refused} max_fails=0; server {up} backup; }
""", server=locations())


def not_kept(route, at):
    answer = route.post(at)
    problem(answer, 409, "not-retained", "none")
    return answer


def the_first_time(script):
    """That, and after it answers as usual."""
    return lambda x: script(x) if x.number == 1 else x.answer(201, b"execution %d\n" % x.number)


# -------------------------------------------------------------------- nothing was sent
@scene.check("connection refused: given back in all modes, the next one is executed")
def refused():
    for mode in MODES:
        route = scene.route()
        first = route.post(f"/{mode}-port", headers=[("X-Port", scene.names["refused"])])
        same((first.status, scene.logged(first)["claim"]), (502, "shared"), f"status and $idem_status with {mode}")
        again = route.post(f"/{mode}-port", headers=[("X-Port", scene.names["up"])])
        same((again.status, again.body), (201, b"execution 1\n"), f"the next one with {mode}")
        same(route.requests[0].header("Idempotency-Attempt"), "2", "attempt")
        route.executed(1)


@scene.check("no live upstreams: given back in all modes")
def none_live():
    for mode in MODES:
        route = scene.route()
        answers = [route.post(f"/{mode}-none") for _ in range(2)]
        same([(a.status, scene.logged(a)["claim"]) for a in answers], [(502, "shared")] * 2, f"answers with {mode}")
        route.executed(0)


@scene.check("the first server refuses, the second answers: that is the answer")
def second_server():
    for mode in MODES:
        route = scene.route()
        first = route.post(f"/{mode}-second")
        same(first.status, 201, f"status with {mode}")
        replayed(route.post(f"/{mode}-second"), first)
        route.executed(1)


# -------------------------------------------------------------------- sent, and no answer
def silent(name, script, status, at=""):
    """One check a mode: the upstream does this the first time, and answers the second."""
    for mode in MODES:
        def check(mode=mode):
            route = scene.route(the_first_time(script))
            place = f"/{mode}{at}"
            first = route.post(place)
            same(first.status, status, f"the first answer {first!r}")
            if mode == "hold":
                same(scene.logged(first)["claim"], "held", "$idem_status")
                [route.held(place) for _ in range(2)]
                route.executed(1)
            elif mode == "abandon":
                again = route.post(place)
                same((again.status, again.body), (201, b"execution 2\n"), "the next one")
                same(scene.logged(again)["outcome"], "reclaimed", "outcome")
                same(route.requests[1].header("Idempotency-Attempt"), "2", "attempt")
                replayed(route.post(place), again)
                route.executed(2)
            else:
                same(scene.logged(first)["claim"], "stored", "$idem_status")
                replayed(route.post(place), first)
                route.executed(1)

        scene.check(f"{name}, idem_ambiguous {mode}")(check)


silent("closed after the request was read", lambda x: x.close(), 502)
silent("reset after the request was read", lambda x: x.reset(), 502)
silent("closed in the middle of the header", lambda x: (x.raw(b"HTTP/1.1 201 Created\r\nX-"), x.close()), 502)
silent("a header too large for nginx", lambda x: x.answer(201, b"", [("X-Large", "x" * 20_000)]), 502)
silent("no answer in time (504)", lambda x: x.route.gate.stop_here(), 504, "-hasty")


def cut_off(name, script, at=""):
    """The header came, the body not whole: nginx answers what it has and closes."""
    for mode in MODES:
        def check(mode=mode):
            route = scene.route(the_first_time(script))
            place = f"/{mode}{at}"
            first = route.post(place)
            same((first.status, first.complete), (201, False), f"the first answer {first!r}")
            if mode == "hold":
                route.held(place)
                route.executed(1)
            elif mode == "abandon":
                again = route.post(place)
                same((again.status, again.body, scene.outcome(again)), (201, b"execution 2\n", "reclaimed"), "the next one")
                route.executed(2)
            else:
                not_kept(route, place)
                route.executed(1)

        scene.check(f"{name}, idem_ambiguous {mode}")(check)


def shortened(x):
    x.start(201, length=100)
    x.body(b"ten bytes.")
    x.close()


def unfinished_chunks(x):
    x.start(201, framing="chunked")
    x.body(b"ten bytes.")
    x.close()


cut_off("a truncated answer", shortened)
cut_off("a truncated answer without buffering", shortened, "-unbuffered")
cut_off("unfinished chunks", unfinished_chunks)


@scene.check("a truncated answer is settled when it ends, not when nginx is done with the connection")
def lingering():
    for at in ("/hold", "/hold-unbuffered"):
        route = scene.route(shortened)
        connection = Client(scene.nginx.port)
        # What more the client has sent makes nginx linger over the connection, for 30 s if need be.
        connection.send(connection.head("POST", f"{at}/{route.name}", route.fields("", ()), b"{}") + b"{}" + b"POST /more")
        same(connection.response().complete, False, "the answer")
        problem(route.post(at, body=b"{}"), 409, "outcome-unknown")
        connection.close()
        route.executed(1)


def no_header(mode):
    """nginx takes bytes without a header for HTTP/0.9 and passes them on: no status, so no answer."""
    @scene.check(f"bytes without a header, idem_ambiguous {mode}")
    def check():
        route = scene.route(lambda x: (x.raw(b"no HTTP here"), x.close()) if x.number == 1 else x.answer(201, b"execution 2\n"))
        place = f"/{mode}"
        connection = route.open(place, headers=[("Connection", "close")])
        mark, data = connection.mark, b""
        while piece := connection.sock.recv(1000):
            data += piece
        connection.close()
        same(data, b"no HTTP here", "what the client gets")
        fate = scene.logged_mark(mark)["claim"]
        if mode == "hold":
            same(fate, "held", "$idem_status")
            route.held(place)
            route.executed(1)
        elif mode == "abandon":
            same(route.post(place).body, b"execution 2\n", "the next one")
            same(route.requests[1].header("Idempotency-Attempt"), "2", "attempt")
            route.executed(2)
        else:
            same(fate, "tombstone", "$idem_status")
            not_kept(route, place)
            route.executed(1)


for kind in MODES:
    no_header(kind)


@scene.check("the default is hold")
def default():
    route = scene.route(lambda x: x.close())
    same(route.post("/default").status, 502, "the first")
    route.held("/default")
    route.executed(1)


@scene.check("a 500 of the upstream's own is no unknown outcome")
def own_error():
    for mode in MODES:
        route = scene.route(lambda x: x.answer(502 if x.number == 1 else 201))
        same([route.post(f"/{mode}").status for _ in range(3)], [502, 201, 201], f"statuses with {mode}")
        route.executed(2)


@scene.check("a held key is told 422 for another request")
def held_mismatch():
    route = scene.route(lambda x: x.close())
    route.post("/hold")
    problem(route.post("/hold", body=b"other"), 422, "key-reused")
    route.held("/hold")
    route.executed(1)


@scene.check("waiters of a request whose outcome is unknown are told at once, not one after the other")
def waiters():
    route = scene.route(lambda x: (x.route.gate.stop_here(), x.close()))
    owner = route.later("/hold-waiting")
    route.gate.arrived()
    others = [route.later("/hold-waiting") for _ in range(5)]
    scene.waiting(5)
    route.gate.open()
    same(owner.result().status, 502, "the owner")
    for call in others:
        problem(call.result(), 409, "outcome-unknown")
    route.executed(1)


@scene.check("with abandon one waiter tries again, the others get his answer")
def waiters_abandon():
    route = scene.route(lambda x: (x.route.gate.stop_here(), x.close()) if x.number == 1 else x.answer(201, b"second\n"))
    owner = route.later("/abandon-waiting")
    route.gate.arrived()
    others = [route.later("/abandon-waiting") for _ in range(5)]
    scene.waiting(5)
    route.gate.open()
    same(owner.result().status, 502, "the owner")
    answers = [call.result() for call in others]
    same([(a.status, a.body) for a in answers], [(201, b"second\n")] * 5, "the others")
    same(sorted(scene.outcome(a) for a in answers), ["reclaimed"] + ["replayed"] * 4, "outcomes")
    route.executed(2)


@scene.check("error_page around an unknown outcome doesn't make an answer of it")
def intercepted():
    route = scene.route(lambda x: x.close())
    first = route.post("/hold-intercepted")
    same(first.body, b"sorry, later", "what the client is shown")
    route.held("/hold-intercepted")
    route.executed(1)
    other = scene.route(lambda x: x.close() if x.number == 1 else x.answer(201, b"second\n"))
    other.post("/abandon-intercepted")
    same(other.post("/abandon-intercepted").body, b"second\n", "with abandon")
    other.executed(2)


# -------------------------------------------------------------------- and then an operator
def lost(route, at):
    """A held key: its scope, and the token of the lost attempt."""
    logged = scene.logged(route.post(at))
    return logged["scope"], route.requests[0].header("Idempotency-Fence")


@scene.check("idem resolve --rerun lets the next one run")
def rerun():
    route = scene.route(lambda x: x.close() if x.number == 1 else x.answer(201, b"second\n"))
    scope, token = lost(route, "/hold")
    route.held("/hold")
    scene.idem("resolve", "--scope", scope, "--token", token, "--rerun", "--key", route.key)
    again = route.post("/hold")
    same((again.status, again.body, scene.outcome(again)), (201, b"second\n", "claimed"), "the next one")
    replayed(route.post("/hold"), again)
    route.executed(2)


@scene.check("idem resolve --completed is the answer from then on")
def completed():
    route = scene.route(lambda x: x.close())
    scope, token = lost(route, "/hold")
    scene.idem("resolve", "--scope", scope, "--token", token, "--completed", "--status", "201", "--key", route.key, text="done by hand\n")
    for _ in range(2):
        answer = route.post("/hold")
        same((answer.status, answer.body, answer.header("Idempotency-Replayed")), (201, b"done by hand\n", "true"), "the answer")
    route.executed(1)


@scene.check("idem resolve --completed with no more said: 409 not-retained from then on")
def completed_in_silence():
    route = scene.route(lambda x: x.close())
    scope, token = lost(route, "/hold")
    scene.idem("resolve", "--scope", scope, "--token", token, "--completed", "--no-body", "--key", route.key)
    not_kept(route, "/hold")
    route.executed(1)


@scene.check("idem forget makes a held key new")
def forgotten():
    route = scene.route(lambda x: x.close() if x.number == 1 else x.answer(201, b"second\n"))
    scope, _ = lost(route, "/hold")
    scene.idem("forget", "--scope", scope, "--key", route.key)
    same(route.post("/hold").body, b"second\n", "the next one")
    same(route.requests[1].header("Idempotency-Attempt"), "1", "attempt")
    route.executed(2)


scene.run()
