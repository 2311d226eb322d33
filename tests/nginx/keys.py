#!/usr/bin/python3
"""Which requests are one request: the header's syntax, scopes, fingerprints, methods; and what the upstream is told.

Each check asserts how often the upstream was executed. The rules are those of "The Idempotency-Key HTTP Header Field" (-07)."""
import glob

from support.checks import same, true
from support.client import Client, replayed
from support.scene import Scene, problem

scene = Scene(http="""
    idem_zone z path={shm}/z keys=4000 lease=20s;
    proxy_set_header Host $host;
""", server="""
        location /a { idem z; proxy_pass http://{up}; }
        location /strict { idem z; idem_header_syntax strict; proxy_pass http://{up}; }
        location /required { idem z; idem_required on; proxy_pass http://{up}; }
        location /policy { idem z; idem_required on; idem_policy_url https://api.example/retries; proxy_pass http://{up}; }
        location /put { idem z; idem_methods PUT; proxy_pass http://{up}; }
        location /nobody { idem z; idem_fingerprint_body off; proxy_pass http://{up}; }
        location /noprint { idem z; idem_fingerprint_body off; idem_fingerprint $request_method; proxy_pass http://{up}; }
        location /tenant { idem z; idem_scope $http_x_tenant; proxy_pass http://{up}; }
        location /named { idem z; idem_header X-Request-Id; proxy_pass http://{up}; }
        location /bypass { idem z; idem_bypass $http_x_bypass $arg_bypass; proxy_pass http://{up}; }
        location /off { idem off; proxy_pass http://{up}; }
""")


def raw_key(route, at, *lines):
    """A request with these lines for its key, as they are."""
    return route.post(at, key=None, headers=[("Idempotency-Key", line) for line in lines])


def refuses(at, lines, count=0):
    """400 for each of these, and no execution."""
    for line in lines:
        route = scene.route()
        answer = raw_key(route, at, *(line if isinstance(line, tuple) else (line,)))
        same((answer.status, route.count), (400, count), f"{line!r} at {at}: status and executions; {answer!r}")
        problem(answer, 400, "key-invalid", "new_key")
        same(scene.outcome(answer), "invalid", f"outcome of {line!r}")


# -------------------------------------------------------------------- the header
@scene.check("a second request with the same key gets the first one's answer")
def twice():
    route = scene.route()
    first, again = route.post("/a"), route.post("/a")
    same((first.status, first.body), (201, b"execution 1\n"), "the first answer")
    replayed(again, first)
    same((scene.outcome(first), scene.outcome(again)), ("claimed", "replayed"), "outcomes")
    route.executed(1)


@scene.check("another key is another request")
def two_keys():
    route = scene.route()
    same([route.post("/a", key=k).body for k in ("one", "two")], [b"execution 1\n", b"execution 2\n"], "answers")
    route.executed(2)


@scene.check('"abc" in quotes and abc bare are one key')
def quoted_is_bare():
    route = scene.route()
    first = raw_key(route, "/a", f'"{route.key}"')
    replayed(raw_key(route, "/a", route.key), first)
    replayed(raw_key(route, "/a", f'   "{route.key}"  '), first)
    same(scene.logged(first)["key"], route.key, "$idem_key")
    route.executed(1)


@scene.check("the key is the unescaped string")
def unescaped():
    route = scene.route()
    first = raw_key(route, "/a", r'"%s \"x\" \\y"' % route.key)
    same(first.status, 201, "status")
    same(scene.logged(first)["key"], route.key + r' "x" \y', "$idem_key")
    replayed(raw_key(route, "/a", r'"%s \"x\" \\y"' % route.key), first)
    same(raw_key(route, "/a", r'"%s \"x\" y"' % route.key).body, b"execution 2\n", "another string")
    true(f'{route.key} "x" \\y' in scene.idem("ls", "--json").replace('\\"', '"').replace("\\\\", "\\"), "the store has it unescaped")
    route.executed(2)


@scene.check("parameters after the string are not part of the key")
def parameters():
    route = scene.route()
    first = raw_key(route, "/a", f'"{route.key}"')
    for tail in (";a", ";a=1", '; a="x;y"; b=?1', ";a=1.5;*b=:YQ==:", "; a=tok/en"):
        replayed(raw_key(route, "/a", f'"{route.key}"{tail}'), first)
    route.executed(1)


@scene.check("what is neither a string nor a bare token is refused")
def not_an_item():
    refuses("/a", ["a;b", "a,b", "a b", 'a"b', "a\\b", '"abc', '"abc" x', '"abc", "def"', '"a\\qb"', '"abc\\"', '"abc";', '"abc";A=1',
                   '"abc" ;a=1', '"abc"; =1', '"abc";a=', '("a" "b")', 'abc"', '"abc"def', '"', "\\"])


@scene.check("an empty key is refused")
def empty():
    refuses("/a", ["", "   ", '""', '""; a=1', "\t"])


@scene.check("control and non-ASCII bytes in a key are refused")
def bytes_refused():
    refuses("/a", ["a\x01b", "a\x7fb", "a\tb", '"a\tb"', '"a\x1fb"', '"a\x7fb"', "caf\xe9", '"caf\xe9"', '"\xe2\x82\xac"'])


@scene.check("repeated header lines are refused, alike or not")
def repeated():
    refuses("/a", [("abc", "abc"), ("abc", "def"), ('"abc"', "abc"), ("abc", ""), ("", "abc")])


@scene.check("a key of 255 bytes is taken, one of 256 is refused")
def lengths():
    route = scene.route()
    longest = route.key.ljust(255, "k")
    first = raw_key(route, "/a", longest)
    same(first.status, 201, "status of 255 bytes")
    replayed(raw_key(route, "/a", f'"{longest}"'), first)
    refuses("/a", ["k" * 256, '"%s"' % ("k" * 256), '"%s\\""' % ("k" * 255), "k" * 4000])
    route.executed(1)
    # An escape is one byte of the key.
    other = scene.route()
    same(raw_key(other, "/a", '"%s"' % ("\\\\" * 255)).status, 201, "status of 255 escaped bytes")
    other.executed(1)


@scene.check("idem_header_syntax strict takes strings only")
def strict():
    route = scene.route()
    first = raw_key(route, "/strict", f'"{route.key}"')
    same(first.status, 201, "status of a string")
    replayed(raw_key(route, "/strict", f'"{route.key}";p=1'), first)
    refuses("/strict", ["abc", "123", "?1", ":YWJj:", "1.5", "a;b"])
    route.executed(1)


@scene.check("without a key each request goes through, where none is required")
def missing():
    route = scene.route()
    answers = [route.post("/a", key=None) for _ in range(2)]
    same([a.body for a in answers], [b"execution 1\n", b"execution 2\n"], "answers")
    same([a.header("Idempotency-Replayed") for a in answers], [None, None], "marks")
    route.executed(2)


@scene.check("without a key, where one is required: 400 key-missing, nothing is executed")
def required():
    route = scene.route()
    answer = route.post("/required", key=None)
    said = problem(answer, 400, "key-missing")
    true(said["type"].startswith("urn:idem:problem:"), f"type without a policy: {said['type']}")
    same(answer.header("Link"), None, "Link without a policy")
    same(scene.outcome(answer), "missing", "outcome")
    route.executed(0)
    same(route.post("/required").status, 201, "with a key")
    same(route.post("/required", key=None, method="GET", body=None).status, 201, "GET needs none")
    route.executed(2)


@scene.check("a problem names the policy in its type and in a Link")
def policy():
    route = scene.route()
    answer = route.post("/policy", key=None)
    same(problem(answer, 400, "key-missing")["type"], "https://api.example/retries#key-missing", "type")
    same(answer.header("Link"), '<https://api.example/retries>; rel="describedby"', "Link")
    route.executed(0)


@scene.check("idem_header names another header")
def named():
    route = scene.route()
    first = route.post("/named", key=None, headers=[("X-Request-Id", route.key)])
    replayed(route.post("/named", key=None, headers=[("x-request-id", route.key)]), first)
    same(route.post("/named").body, b"execution 2\n", "the usual header means nothing there")
    route.executed(2)


# -------------------------------------------------------------------- methods, bypass
@scene.check("GET passes untouched, also with the header")
def get():
    route = scene.route()
    answers = [route.post("/a", method="GET", body=None) for _ in range(2)]
    same([a.body for a in answers], [b"execution 1\n", b"execution 2\n"], "answers")
    same([scene.outcome(a) for a in answers], ["", ""], "outcomes")
    same(route.post("/a", method="GET", body=None, key='"broken').status, 201, "a broken key means nothing there")
    route.executed(3)


@scene.check("PATCH is guarded, PUT and DELETE are not, unless idem_methods says so")
def methods():
    route = scene.route()
    first = route.post("/a", method="PATCH")
    replayed(route.post("/a", method="PATCH"), first)
    route.executed(1)
    for method in ("PUT", "DELETE"):
        other = scene.route()
        [other.post("/a", method=method) for _ in range(2)]
        other.executed(2)
    route = scene.route()
    first = route.post("/put", method="PUT")
    replayed(route.post("/put", method="PUT"), first)
    route.executed(1)
    same(route.post("/put", method="POST").header("Idempotency-Replayed"), None, "POST is not listed there")
    route.executed(2)


@scene.check("idem off does nothing")
def off():
    route = scene.route()
    [route.post("/off", headers=[("Idempotency-Fence", "7")]) for _ in range(2)]
    same(route.requests[0].header("Idempotency-Fence"), "7", "the client's own header")
    route.executed(2)


@scene.check("idem_bypass lets a request by when one of its variables is neither empty nor 0")
def bypass():
    route = scene.route()
    for answer in (route.post("/bypass", headers=[("X-Bypass", "1")]), route.post("/bypass", query="?bypass=yes")):
        same((answer.status, scene.outcome(answer)), (201, "bypassed"), "bypassed")
    route.executed(2)
    first = route.post("/bypass", headers=[("X-Bypass", "0")])
    same(scene.outcome(first), "claimed", "0 doesn't bypass")
    replayed(route.post("/bypass"), first)
    route.executed(3)


# -------------------------------------------------------------------- what the request means
@scene.check("another body under the same key: 422, nothing is executed")
def other_body():
    route = scene.route()
    first = route.post("/a", body=b'{"amount": 1}')
    answer = route.post("/a", body=b'{"amount": 2}')
    problem(answer, 422, "key-reused", "new_key")
    true("422 Unprocessable" in answer.status_line, f"status line {answer.status_line}")
    same(scene.outcome(answer), "mismatch", "outcome")
    problem(route.post("/a", body=b""), 422, "key-reused")
    problem(route.post("/a", body=None), 422, "key-reused")
    replayed(route.post("/a"), first)
    route.executed(1)


@scene.check("another body, also while the first is in progress: 422")
def other_body_meanwhile():
    route = scene.route(gated=True)
    first = route.later("/a", body=b"one")
    route.gate.arrived()
    problem(route.post("/a", body=b"two"), 422, "key-reused", "new_key")
    route.gate.open()
    same(first.result().status, 201, "the first")
    route.executed(1)


@scene.check("another target or method under the same key: 422")
def other_target():
    route = scene.route()
    route.post("/a", query="?x=1")
    problem(route.post("/a", query="?x=2"), 422, "key-reused")
    problem(route.post("/a"), 422, "key-reused")
    problem(route.post("/a", query="?x=1", method="PATCH"), 422, "key-reused")
    route.executed(1)


@scene.check("idem_fingerprint_body off: the body may differ, the target may not")
def body_off():
    route = scene.route()
    first = route.post("/nobody", body=b"one")
    replayed(route.post("/nobody", body=b"two"), first)
    problem(route.post("/nobody", query="?x"), 422, "key-reused")
    route.executed(1)


@scene.check("idem_fingerprint says what has to be alike")
def fingerprint():
    route = scene.route()
    first = route.post("/noprint", query="?x=1")
    replayed(route.post("/noprint", query="?x=2"), first)
    route.executed(1)


@scene.check("fingerprints in the log are equal for equal requests and differ for others")
def fingerprints_logged():
    route = scene.route()
    seen = [scene.logged(route.post("/a", body=body))["fingerprint"] for body in (b"1", b"1", b"2")]
    true(seen[0] and seen[0] == seen[1] != seen[2], f"$idem_fingerprint: {seen}")
    route.executed(1)


# -------------------------------------------------------------------- scopes
@scene.check("who authorizes differently has keys of his own")
def authorization():
    route = scene.route()
    alice = route.post("/a", headers=[("Authorization", "Bearer alice")])
    bob = route.post("/a", headers=[("Authorization", "Bearer bob")])
    nobody = route.post("/a")
    same([a.body for a in (alice, bob, nobody)], [b"execution %d\n" % n for n in (1, 2, 3)], "answers")
    replayed(route.post("/a", headers=[("Authorization", "Bearer bob")]), bob)
    route.executed(3)


@scene.check("another host has keys of its own")
def hosts():
    route = scene.route()
    first = route.post("/a", headers=[("Host", "one.example")])
    route.post("/a", headers=[("Host", "two.example")])
    replayed(route.post("/a", headers=[("Host", "ONE.example")]), first)
    route.executed(2)


@scene.check("idem_scope says whose a key is")
def tenants():
    route = scene.route()
    first = route.post("/tenant", headers=[("X-Tenant", "1"), ("Authorization", "Bearer alice")])
    route.post("/tenant", headers=[("X-Tenant", "2")])
    replayed(route.post("/tenant", headers=[("X-Tenant", "1"), ("Authorization", "Bearer bob")]), first)
    route.executed(2)


@scene.check("a scope is a digest: $idem_scope finds it with the command, its text is nowhere in the store")
def digest():
    route = scene.route()
    secret = f"Bearer sesame-{route.name}-open"
    answer = route.post("/a", headers=[("Authorization", secret)])
    scope = scene.logged(answer)["scope"]
    true(len(scope) == 32 and set(scope) <= set("0123456789abcdef"), f"$idem_scope: {scope!r}")
    true(route.key in scene.idem("why", "--scope", scope, "--key", route.key), "idem why")
    found = [path for path in glob.glob(f"{scene.shm}/z/*") if secret.encode() in open(path, "rb").read()]
    same(found, [], "files of the store with the scope in clear")
    route.executed(1)


# -------------------------------------------------------------------- towards the upstream
@scene.check("the upstream is told the attempt and its fence; $idem_token is the same")
def fence():
    route = scene.route()
    first = route.post("/a")
    request = route.requests[0]
    same(request.all("Idempotency-Attempt"), ["1"], "Idempotency-Attempt")
    same(request.all("Idempotency-Fence"), [scene.logged(first)["token"]], "Idempotency-Fence")
    true(int(request.header("Idempotency-Fence")) > 0, "the fence is a number")
    same(request.all("Idempotency-Key"), [route.key], "the key goes on to the upstream")
    route.executed(1)


@scene.check("a second attempt has a larger fence")
def second_attempt():
    route = scene.route(lambda x: x.answer(503 if x.number == 1 else 201))
    same([route.post("/a").status for _ in range(3)], [503, 201, 201], "answers")
    same([r.header("Idempotency-Attempt") for r in route.requests], ["1", "2"], "attempts")
    route.fenced()
    route.executed(2)


@scene.check("clients can't forge the fence or the attempt: with a key, without, and with GET")
def forged():
    route = scene.route()
    others = [(f"X-Line-{n}", f"value {n}") for n in range(60)]  # more than nginx keeps in one piece
    lies = [*others[:40], ("Idempotency-Fence", "99"), ("idempotency-fence", "98"), ("IDEMPOTENCY-ATTEMPT", "77"), *others[40:]]
    first = route.post("/a", headers=lies)
    route.post("/a", headers=lies, key=None)
    route.post("/a", headers=lies, method="GET", body=None)
    token = scene.logged(first)["token"]
    same([r.all("Idempotency-Fence") for r in route.requests], [[token], [], []], "fences")
    same([r.all("Idempotency-Attempt") for r in route.requests], [["1"], [], []], "attempts")
    same(sum(1 for r in route.requests for name, value in r.headers if value in ("99", "98", "77")), 0, "lies that came through")
    for request in route.requests:
        same([(name, value) for name, value in request.headers if name.startswith("X-Line")], others, "the other lines, in order")
    route.executed(3)


@scene.check("on one connection each request has its own fate")
def keep_alive():
    one, two = scene.route(), scene.route()
    connection = Client(scene.nginx.port)
    seen = []
    for route, key in ((one, "k1"), (two, "k2"), (one, "k1"), (one, None), (two, '"bad'), (two, "k2")):
        fields = () if key is None else (("Idempotency-Key", key),)
        connection.request("POST", f"/a/{route.name}", fields, b"body of some length")
        answer = connection.response()
        seen.append((answer.status, answer.header("Idempotency-Replayed")))
    connection.close()
    same(seen, [(201, None), (201, None), (201, "true"), (201, None), (400, None), (201, "true")], "answers")
    same((one.count, two.count), (2, 1), "executions")


@scene.check("requests sent in one piece are answered in order, each once")
def pipelined():
    one, two = scene.route(), scene.route()
    connection = Client(scene.nginx.port)
    fields = lambda route: (("Idempotency-Key", route.key),)
    wire = b"".join(connection.head("POST", f"/a/{r.name}", fields(r), b"{}") + b"{}" for r in (one, two, one, two))
    connection.send(wire)
    seen = [connection.response() for _ in range(4)]
    connection.close()
    same([a.header("Idempotency-Replayed") for a in seen], [None, None, "true", "true"], "marks")
    same((one.count, two.count), (1, 1), "executions")


scene.run()
