#!/usr/bin/python3
"""One claim, one upstream that takes it: next servers of an upstream block, whatever the method, error pages that ask another
one. None of it may repeat an effect whose outcome nobody knows. (Detours that a claim may take: detours.py.)"""
import socket

from support.checks import same, true
from support.client import replayed
from support.scene import Scene, problem
from support.upstream import Upstream


def reserve(scene):
    """A port where nobody listens, for as long as this test holds it."""
    scene.nobody = socket.socket()
    scene.nobody.bind(("127.0.0.1", 0))
    scene.names["refused"] = "127.0.0.1:%d" % scene.nobody.getsockname()[1]


scene = Scene(before=reserve, http="""
    idem_zone z path={shm}/z keys=2000;
    upstream both { server {up} max_fails=0; server {also} max_fails=0; }
    upstream kept { server {up} max_fails=0; server {also} max_fails=0; keepalive 4; }
    upstream failing { server {refused} max_fails=0; server {up} max_fails=0; }
""", server="""
        location /backup { idem z; error_page 502 504 = @backup; proxy_pass http://{up}; }
        location @backup { proxy_pass http://{also}; }
        location /nobody { idem z; error_page 502 504 = @nobody; proxy_pass http://{up}; }
        location @nobody { proxy_pass http://{refused}; }
        location /both { idem z; proxy_next_upstream error timeout invalid_header http_500 http_503; proxy_pass http://both; }
        location /both-put { idem z; idem_methods POST PUT DELETE; proxy_next_upstream error timeout http_500; proxy_pass http://both; }
        location /kept-put { idem z; idem_methods PUT; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://kept; }
        location /failing { idem z; proxy_pass http://failing; }
        location /failing-put { idem z; idem_methods PUT; proxy_pass http://failing; }
        location = /page { return 200 "too much"; }
        location /inside-if { idem z; if ($arg_x) { set $y 1; } if ($arg_z) { add_header X-Z 1; } proxy_pass http://{up}; }
        location /pretty { idem z; error_page 400 409 422 500 502 503 504 /page; proxy_pass http://{up}; }
        location /after { idem z; post_action /afterwards; proxy_pass http://{up}; }
        location = /afterwards { internal; idem z; proxy_method POST; proxy_pass http://{up}/afterwards$request_uri-after; }
""", upstreams={"also": Upstream})


# -------------------------------------------------------------------- error pages
@scene.check("unanswered by one, answered by another: that answer is kept")
def answered():
    route = scene.route(lambda x: x.close() if x.number == 1 else x.answer(201, b"from the backup\n"))
    first = route.post("/backup")
    same(first.body, b"from the backup\n", "the answer")
    replayed(route.post("/backup"), first)
    route.executed(2)


@scene.check("unanswered by one, and nobody listens at the other: held")
def nobody_listens():
    route = scene.route(lambda x: x.close())
    same(route.post("/nobody").status, 502, "the answer")
    route.held("/nobody")
    route.executed(1)


@scene.check("error_page around the module's own answers leaves them as they are")
def own_answers():
    route = scene.route(gated=True)
    owner = route.later("/pretty")
    route.gate.arrived()
    problem(route.post("/pretty"), 409, "in-progress")
    problem(route.post("/pretty", body=b"other"), 422, "key-reused")
    problem(route.post("/pretty", key='"'), 400, "key-invalid")
    route.gate.open()
    same(owner.result().status, 201, "the owner")
    route.executed(1)


# -------------------------------------------------------------------- next upstreams
@scene.check("the first of two servers takes the request and says nothing: the second is not asked")
def next_server():
    for script in (lambda x: x.close(), lambda x: x.reset(), lambda x: x.answer(500, b"no\n"), lambda x: x.answer(503, b"no\n")):
        route = scene.route(script)
        route.post("/both")
        route.executed(1)


@scene.check("the same with PUT and DELETE, which nginx would repeat")
def next_server_put():
    for method in ("PUT", "DELETE"):
        for script in (lambda x: x.close(), lambda x: x.reset()):
            route = scene.route(script)
            same(route.post("/both-put", method=method).status, 502, f"{method}")
            route.held("/both-put", method=method)
            route.executed(1)
        route = scene.route(lambda x: x.answer(500, b"no\n"))
        same(route.post("/both-put", method=method).status, 500, f"{method}, 500")
        route.executed(1)


@scene.check("a kept connection that the upstream closes on a PUT: not sent again")
def kept_connection():
    route = scene.route(lambda x: x.close())
    same(route.post("/kept-put", method="PUT").status, 502, "the answer")
    route.held("/kept-put", method="PUT")
    route.executed(1)


@scene.check("the first of two servers refuses the connection: the second is asked, once")
def first_refuses():
    for _ in range(4):  # whichever comes first
        route = scene.route()
        first = route.post("/failing")
        same(first.status, 201, "the answer")
        replayed(route.post("/failing"), first)
        route.executed(1)


@scene.check("the same with PUT: asked once, or told that nobody was there and free to try again")
def first_refuses_put():
    for _ in range(4):
        route = scene.route()
        answers = [route.post("/failing-put", method="PUT") for _ in range(3)]
        true(all(a.status in (201, 502) for a in answers), f"{answers}")
        same(answers[-1].status, 201, "one of three comes through")
        route.executed(1)


# -------------------------------------------------------------------- beside it
@scene.check("idem is in force within `if`, too")
def within_if():
    for query in ("", "?x=1", "?z=1", "?x=1&z=1"):
        route = scene.route()
        first = route.post("/inside-if", query=query)
        replayed(route.post("/inside-if", query=query), first)
        route.executed(1)


@scene.check("post_action runs beside it, and neither claims nor disturbs")
def post_action():
    after, route = scene.route(), scene.route()
    after.name = f"{route.name}-after"
    scene.routes.add(after)
    first = route.post("/after")
    same((first.status, first.body), (201, b"execution 1\n"), "the answer")
    replayed(route.post("/after"), first)
    route.executed(1)


scene.run()
