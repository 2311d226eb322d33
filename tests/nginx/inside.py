#!/usr/bin/python3
"""Beside the rest of nginx: error pages, internal redirects, subrequests, access control, content that no upstream makes.
What is recorded is the answer the client was given, once, and only for who came through."""
import os

from support.checks import same, true
from support.client import Client, replayed
from support.scene import Scene, problem


def write_files(scene):
    os.makedirs(f"{scene.dir}/files/internal")
    os.makedirs(f"{scene.dir}/files/put")
    os.chmod(f"{scene.dir}/files/put", 0o777)
    for name, text in (("internal/report", "the report\n"), ("sorry", "sorry, not today\n"), ("sitting", "a file\n")):
        with open(f"{scene.dir}/files/{name}", "w") as file:
            file.write(text)


scene = Scene(before=write_files, http="""
    idem_zone z path={shm}/z keys=2000 response=2k;
    idem_zone other path={shm}/other keys=1000;
    limit_req_zone $http_x_limit zone=slow:1m rate=1r/m;
    proxy_cache_path {dir}/cache keys_zone=cached:1m;
    root {dir}/files;
""", server="""
        location /plain { proxy_pass http://{up}; }
        location /a { idem z; proxy_pass http://{up}; }
        location /intercept { idem z; proxy_intercept_errors on; error_page 404 500 /sorry; proxy_pass http://{up}; }
        location /intercept-as { idem z; proxy_intercept_errors on; error_page 404 =200 /sorry; proxy_pass http://{up}; }
        location /second { idem z; proxy_intercept_errors on; error_page 503 = @second; proxy_pass http://{up}; }
        location @second { rewrite ^/second(.*)-first$ /second$1-second break; proxy_pass http://{up}; }
        location /retried { idem z; error_page 502 = @retried; proxy_pass http://{up}; }
        location @retried { rewrite ^/retried(.*)-first$ /retried$1-second break; proxy_pass http://{up}; }
        location /to-zone { idem z; proxy_intercept_errors on; error_page 503 = /zone$uri; proxy_pass http://{up}; }
        location /zone/ { idem other; proxy_method POST; proxy_pass http://{up}; }
        location = /sorry { default_type text/plain; }
        location /internal/ { internal; default_type text/plain; }
        location /behind/ { internal; proxy_pass http://{up}; }
        location /accel { idem z; proxy_pass http://{up}; }
        location /try { idem z; try_files $uri @app; }
        location @app { proxy_pass http://{up}; }
        location /try-guarded { idem z; try_files $uri @guarded; }
        location @guarded { idem z; proxy_pass http://{up}; }
        location /rewritten { idem z; rewrite ^/rewritten(.*)$ /a$1 last; }
        location /return { idem z; return 201 "made here"; }
        location /mirrored { idem z; mirror /mirror; proxy_pass http://{up}; }
        location = /mirror { internal; proxy_pass http://{up}/mirror$request_uri-copy; }
        location /auth { idem z; auth_request /check; proxy_pass http://{up}; }
        location = /check { internal; if ($http_x_user = "") { return 401; } return 204; }
        location /auth-up { idem z; auth_request /ask; proxy_pass http://{up}; }
        location = /ask { internal; idem z; proxy_pass_request_body off; proxy_set_header Content-Length ""; proxy_pass http://{up}/ask$request_uri-ask; }
        location /denied { idem z; allow 192.0.2.1; deny all; proxy_pass http://{up}; }
        location /limited { idem z; limit_req zone=slow; limit_req_status 429; proxy_pass http://{up}; }
        location /ssi { idem z; ssi on; proxy_pass http://{up}; }
        location /nested/ { idem z; idem_wait 60s; proxy_pass http://{up}; location /nested/off/ { idem off; proxy_pass http://{up}; } }
        location /put/ { idem z; idem_methods PUT; dav_methods PUT; client_body_in_file_only clean; }
        location /cached { idem z; proxy_cache cached; proxy_cache_methods POST; proxy_cache_valid any 1h; proxy_cache_key $uri; proxy_pass http://{up}; }
        location /sitting { idem z; idem_methods GET POST; default_type text/plain; }
        location /gone { idem z; idem_methods GET POST; }
        location /as-is { idem z; proxy_pass_request_headers off; proxy_pass http://{up}; }
""")


# -------------------------------------------------------------------- error pages
@scene.check("an error page in the place of an upstream's error is what replays, status and all")
def intercepted():
    route = scene.route(lambda x: x.answer(404, b"not shown"))
    first = route.post("/intercept")
    same((first.status, first.body), (404, b"sorry, not today\n"), "the first answer")
    replayed(route.post("/intercept"), first)
    route.executed(1)
    route = scene.route(lambda x: x.answer(404, b"not shown"))
    first = route.post("/intercept-as")
    same((first.status, first.body), (200, b"sorry, not today\n"), "with another status")
    replayed(route.post("/intercept-as"), first)
    route.executed(1)


@scene.check("an error page for a 500 is not kept")
def intercepted_500():
    route = scene.route(lambda x: x.answer(500, b"not shown") if x.number == 1 else x.answer(201, b"well\n"))
    first = route.post("/intercept")
    same((first.status, first.body), (500, b"sorry, not today\n"), "the first answer")
    again = route.post("/intercept")
    same((again.status, again.body), (201, b"well\n"), "the second")
    replayed(route.post("/intercept"), again)
    route.executed(2)


@scene.check("error_page = @second asks another upstream: his answer is the one that replays")
def second_upstream():
    first, second = scene.pair(lambda x: x.answer(503, b"busy"), lambda x: x.answer(201, b"from the second\n"))
    answer = first.post("/second")
    same((answer.status, answer.body), (201, b"from the second\n"), "the answer")
    replayed(first.post("/second"), answer)
    same((first.count, second.count), (1, 1), "executions")
    same(second.requests[0].all("Idempotency-Fence"), first.requests[0].all("Idempotency-Fence"), "the same fence")


@scene.check("error_page 502 = @retried, after an unknown outcome: an answer came in the end, and replays")
def retried():
    first, second = scene.pair(lambda x: x.close(), lambda x: x.answer(201, b"from the second\n"))
    answer = first.post("/retried")
    same((answer.status, answer.body), (201, b"from the second\n"), "the answer")
    replayed(first.post("/retried"), answer)
    same((first.count, second.count), (1, 1), "executions")


@scene.check("error_page 502 = @retried, where the second fails as well: held")
def retried_in_vain():
    first, second = scene.pair(lambda x: x.close(), lambda x: x.close())
    same(first.post("/retried").status, 502, "the answer")
    problem(first.post("/retried"), 409, "outcome-unknown")
    same((first.count, second.count), (1, 1), "executions")


@scene.check("an error page in a location of another zone: the claim is still the first one's")
def other_zone():
    route = scene.route(lambda x: x.answer(503, b"busy") if x.number == 1 else x.answer(201, b"second round\n"))
    first = route.post("/to-zone")
    same(first.body, b"second round\n", "the answer")
    replayed(route.post("/to-zone"), first)
    same(scene.idem("ls", store="other").count(route.key), 0, "records in the other zone")
    route.executed(2)  # both by the first request, by nginx's own error_page


# -------------------------------------------------------------------- internal redirects
@scene.check("X-Accel-Redirect to a file: the file is the answer")
def accel_file():
    route = scene.route(lambda x: x.answer(200, b"not shown", [("X-Accel-Redirect", "/internal/report"), ("X-Execution", "1")]))
    first = route.post("/accel")
    same((first.status, first.body), (200, b"the report\n"), "the first answer")
    replayed(route.post("/accel"), first)
    route.executed(1)


@scene.check("X-Accel-Redirect to another upstream: each is asked once")
def accel_upstream():
    behind = scene.route(lambda x: x.answer(200, b"from behind\n"))
    route = scene.route(lambda x: x.answer(200, b"not shown", [("X-Accel-Redirect", f"/behind/{behind.name}")]))
    first = route.post("/accel")
    same((first.status, first.body), (200, b"from behind\n"), "the first answer")
    replayed(route.post("/accel"), first)
    same((route.count, behind.count), (1, 1), "executions")


@scene.check("X-Accel-Redirect to an upstream that gives no answer: held")
def accel_lost():
    behind = scene.route(lambda x: x.close())
    route = scene.route(lambda x: x.answer(200, b"not shown", [("X-Accel-Redirect", f"/behind/{behind.name}")]))
    same(route.post("/accel").status, 502, "the first answer")
    problem(route.post("/accel"), 409, "outcome-unknown")
    same((route.count, behind.count), (1, 1), "executions")


@scene.check("try_files that falls to a named location")
def tried():
    for at in ("/try", "/try-guarded"):
        route = scene.route()
        answers = [route.post(at) for _ in range(2)]
        same(answers[0].body, b"execution 1\n", f"the first answer at {at}")
        if at == "/try-guarded":
            replayed(answers[1], answers[0])
            route.executed(1)
        else:  # try_files comes before us, and @app knows nothing of idem: said by the outcome
            same((scene.outcome(answers[0]) == "") == (route.count == 2), True, "unguarded only where the outcome says so")


@scene.check("rewrite ... last to a guarded location")
def rewritten():
    route = scene.route()
    first = route.post("/rewritten")
    replayed(route.post("/rewritten"), first)
    route.executed(1)


@scene.check("return answers before anything is claimed")
def returned():
    route = scene.route()
    same([(a.status, a.body, a.header("Idempotency-Replayed")) for a in (route.post("/return"), route.post("/return"))],
         [(201, b"made here", None)] * 2, "answers")
    same(scene.idem("ls").count(f"{route.key} "), 0, "records")
    route.executed(0)


# -------------------------------------------------------------------- subrequests
@scene.check("a mirror gets one copy of what is executed, and none of a replay")
def mirrored():
    copy, route = scene.route(), scene.route()
    copy.name = f"{route.name}-copy"
    scene.routes.add(copy)
    first = route.post("/mirrored", body=b"some body")
    replayed(route.post("/mirrored", body=b"some body"), first)
    scene.upstreams["up"].idle()
    same((route.count, copy.count), (1, 1), "executions and copies")
    same(route.requests[0].body, b"some body", "the body")


@scene.check("auth_request: a 401 leaves no claim, and a replay is for who may see it")
def authorized():
    route = scene.route()
    same(route.post("/auth").status, 401, "without a user")
    route.executed(0)
    first = route.post("/auth", headers=[("X-User", "joe")])
    same((first.status, route.requests[0].header("Idempotency-Attempt")), (201, "1"), "with one: status, attempt")
    replayed(route.post("/auth", headers=[("X-User", "joe")]), first)
    same(route.post("/auth").status, 401, "a duplicate without a user")
    route.executed(1)


@scene.check("a subrequest is never guarded itself, also where its location is")
def subrequest():
    ask, route = scene.route(lambda x: x.answer(204)), scene.route()
    ask.name = f"{route.name}-ask"
    scene.routes.add(ask)
    first = route.post("/auth-up")
    replayed(route.post("/auth-up"), first)
    same((route.count, ask.count), (1, 2), "executions, and times that access was asked for")


@scene.check("who is denied or over a limit leaves no claim")
def denied():
    route = scene.route()
    same(route.post("/denied").status, 403, "denied")
    same(scene.idem("ls").count(f"{route.key} "), 0, "records")
    limited = scene.route()
    headers = [("X-Limit", limited.name)]
    first = limited.post("/limited", headers=headers)
    same([first.status, limited.post("/limited", headers=headers).status], [201, 429], "the second is over the limit")
    same((route.count, limited.count), (0, 1), "executions")


@scene.check("SSI: included anew in a replay, the page itself is executed once")
def ssi():
    part = scene.route(lambda x: x.answer(200, b"[part %d]" % x.number))
    body = f'<p><!--# include virtual="/plain/{part.name}" --></p>\n'.encode()
    route = scene.route(lambda x: x.answer(200, body, [("Content-Type", "text/html")]))
    first, again = route.post("/ssi"), route.post("/ssi")
    same((first.body, again.body), (b"<p>[part 1]</p>\n", b"<p>[part 2]</p>\n"), "answers")
    same(again.header("Idempotency-Replayed"), "true", "mark")
    same((route.count, part.count), (1, 2), "executions, and times the part was asked for")


# -------------------------------------------------------------------- locations and content of nginx's own
@scene.check("idem off in a nested location, the rest is inherited")
def nested():
    route = scene.route(gated=True)
    calls = [route.later("/nested") for _ in range(3)]
    route.gate.arrived()
    scene.waiting(2)
    route.gate.open()
    same([c.result().status for c in calls], [201] * 3, "answers")
    route.executed(1)
    off = scene.route()
    [off.post("/nested/off") for _ in range(2)]
    off.executed(2)


@scene.check("PUT by nginx's own dav: the effect happens once")
def dav():
    route = scene.route()
    path = f"{scene.dir}/files/put/{route.name}"
    first = route.post("/put", method="PUT", body=b"one")
    same(first.status, 201, "status")
    os.remove(path)
    replayed(route.post("/put", method="PUT", body=b"one"), first)
    same(os.path.exists(path), False, "the file was not written again")
    route.executed(0)


@scene.check("a 404 and a 405 of nginx's own are answers too")
def own_errors():
    route = scene.route()
    first = route.post("/gone", method="GET", body=None)
    same(first.status, 404, "no such file")
    replayed(route.post("/gone", method="GET", body=None), first)
    other = scene.route()
    first = other.post("/sitting", query="/../../sitting")
    same(first.status, 405, "POST to a file")
    replayed(other.post("/sitting", query="/../../sitting"), first)
    same((route.count, other.count), (0, 0), "executions")


@scene.check("proxy_cache beside it: the answer is stored once, and replays")
def cached():
    route = scene.route()
    first = route.post("/cached")
    replayed(route.post("/cached"), first)
    route.executed(1)
    other = route.post("/cached", key=f"{route.key}-2")  # nginx's cache answers; that is an answer as well
    same((other.status, other.body), (201, b"execution 1\n"), "from the cache")
    replayed(route.post("/cached", key=f"{route.key}-2"), other)
    route.executed(1)


@scene.check("where no headers are passed to the upstream, nothing else changes")
def no_headers():
    route = scene.route()
    first = route.post("/as-is")
    replayed(route.post("/as-is"), first)
    same(route.requests[0].all("Idempotency-Fence"), [], "fences")
    route.executed(1)


@scene.check("a keep-alive connection after each kind of the module's own answers is still good")
def connections():
    route, lost = scene.route(), scene.route(lambda x: x.close())
    connection = Client(scene.nginx.port)
    seen = []
    for target, fields, body in ((route, [("Idempotency-Key", "k")], b"x" * 5000), (route, [("Idempotency-Key", "k")], b"x" * 5000),
                                 (route, [("Idempotency-Key", "k")], b"y" * 100_000), (route, [("Idempotency-Key", '"')], b"z" * 100_000),
                                 (lost, [("Idempotency-Key", "l")], b"1"), (lost, [("Idempotency-Key", "l")], b"1"),
                                 (route, [("Idempotency-Key", "k")], b"x" * 5000)):
        connection.request("POST", f"/a/{target.name}", fields, body)
        answer = connection.response()
        seen.append(answer.status)
        true(answer.complete, f"{answer!r}")
    connection.close()
    same(seen, [201, 201, 422, 400, 502, 409, 201], "statuses")
    same((route.count, lost.count), (1, 1), "executions")


scene.run()
