#!/usr/bin/python3
"""What is stored of an answer, and that its replay is that answer: framing, filters, headers, statuses, sizes, times."""
import gzip
import json
import os

from support.checks import eventually, same, true
from support.client import replayed
from support.scene import Scene, problem

PAGE = b"".join(b"line %d of a page about Lisbon\n" % n for n in range(400))
DATE = ("Date", "Sun, 06 Nov 1994 08:49:37 GMT")


def write_static(scene):
    os.mkdir(f"{scene.dir}/static")
    with open(f"{scene.dir}/static/page", "wb") as file:
        file.write(PAGE)
    os.chmod(f"{scene.dir}/static/page", 0o644)


scene = Scene(before=write_static, http="""
    idem_zone z path={shm}/z keys=4000 response=4k;
    idem_zone large path={shm}/large keys=64 response=700k;
    proxy_pass_header Date;
""", server="""
        location /a { idem z; proxy_pass http://{up}; }
        location /plain { proxy_pass http://{up}; }
        location /plain-unbuffered { proxy_buffering off; proxy_pass http://{up}; }
        location /unbuffered { idem z; proxy_buffering off; proxy_pass http://{up}; }
        location /keep-alive { idem z; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_pass http://{up}; }
        location /gzip { idem z; gzip on; gzip_types text/plain; gzip_min_length 100; gzip_http_version 1.0; proxy_pass http://{up}; }
        location /gunzip { idem z; gunzip on; proxy_pass http://{up}; }
        location /sub { idem z; sub_filter_types text/plain; sub_filter Lisbon "Lisbon, that is Lisbon"; sub_filter_once off; proxy_pass http://{up}; }
        location /head { idem z; idem_methods POST HEAD GET; proxy_pass http://{up}; }
        location /range { idem z; proxy_force_ranges on; proxy_pass http://{up}; }
        location /only { idem z; idem_store_status 201 5xx -503 400-404; proxy_pass http://{up}; }
        location /default { idem z; idem_store_status default 500; proxy_pass http://{up}; }
        location /keep { idem z; idem_store_headers Set-Cookie; proxy_pass http://{up}; }
        location /hide { idem z; idem_hide_headers X-Execution X-Trace; proxy_pass http://{up}; }
        location /small { idem z; idem_max_body 1k; proxy_pass http://{up}; }
        location /large { idem large; idem_max_body 1m; proxy_pass http://{up}; }
        location /large-unbuffered { idem large; idem_max_body 1m; proxy_buffering off; proxy_pass http://{up}; }
        location /server { idem z; proxy_pass_header Server; proxy_pass http://{up}; }
        location /disk { idem large; idem_max_body 1m; proxy_buffers 4 4k; proxy_buffer_size 4k; proxy_busy_buffers_size 8k; proxy_pass http://{up}; }
        location /disk-sendfile { idem large; idem_max_body 1m; sendfile on; proxy_buffers 4 4k; proxy_buffer_size 4k; proxy_busy_buffers_size 8k; proxy_pass http://{up}; }
        location /disk-threads { idem large; idem_max_body 1m; sendfile on; aio threads; aio_write on; proxy_buffers 4 4k; proxy_buffer_size 4k; proxy_busy_buffers_size 8k;
                                 proxy_pass http://{up}; }
        location /rate { idem large; limit_rate 200k; limit_rate_after 10k; proxy_pass http://{up}; }
        location /brief { idem z; idem_ttl 1s; proxy_pass http://{up}; }
        location /ttl { idem z; idem_ttl 1h min=1s max=2h; proxy_pass http://{up}; }
        location /ttl-variable { idem z; idem_ttl $http_x_ttl; proxy_pass http://{up}; }
        location /trailer { idem z; add_trailer X-Sum done; proxy_pass http://{up}; }
        location /static { idem z; idem_methods GET; root {dir}; }
        location /expires { idem z; expires 1h; add_header X-Via edge always; proxy_pass http://{up}; }
""")


def page(framing="length", headers=(), status=200, body=PAGE):
    """A script that answers with this page."""
    return lambda x: x.answer(status, body, [("Content-Type", "text/plain"), DATE, *headers], framing)


# -------------------------------------------------------------------- the first answer, and its replay
@scene.check("the first answer is byte for byte the one without the module, for each framing, buffered and not")
def as_without():
    for framing in ("length", "chunked", "eof"):
        for guarded, plain in (("/a", "/plain"), ("/unbuffered", "/plain-unbuffered")):
            route = scene.route(page(framing, [("ETag", '"v1"'), ("X-Cased-NAME", "a  b"), ("Last-Modified", DATE[1])]))
            with_it, without = route.post(guarded), route.post(plain)
            same((with_it.head, with_it.body), (without.head, without.body), f"{framing} at {guarded}")
            same(with_it.body, PAGE, f"the page, {framing} at {guarded}")
            route.executed(2)


def replays(name, at, script, status=200, **named):
    @scene.check(name)
    def check():
        route = scene.route(script)
        first = route.post(at, **named)
        same((first.status, first.complete), (status, True), f"the first answer {first!r}")
        for _ in range(2):
            replayed(route.post(at, **named), first)
        route.executed(1)


for framing in ("length", "chunked", "eof"):
    replays(f"an answer framed by {framing} replays", "/a", page(framing))
    replays(f"an answer framed by {framing} replays, without buffering", "/unbuffered", page(framing))
replays("an answer over HTTP/1.1 to the upstream replays", "/keep-alive", page("chunked"))
replays("an empty answer replays", "/a", page(body=b""))
replays("an empty chunked answer replays", "/a", page("chunked", body=b""))
replays("204 is complete at its header", "/a", lambda x: x.answer(204, headers=[("X-Execution", "1")]), 204)
replays("304 to a POST is complete at its header", "/a", lambda x: x.answer(304, headers=[("ETag", '"v1"')]), 304)
replays("HEAD is complete at its header, with the length the body would have had", "/head",
        lambda x: (x.start(200, [("X-Execution", "1")], 4711), x.end()), method="HEAD", body=None)
replays("an error is an answer too: 400", "/a", page(status=400, body=b"no such card\n"), 400)
replays("a redirect replays with its Location", "/a", page(status=303, headers=[("Location", "https://shop.example/orders/1?a=b")]), 303)
replays("a relative Location replays as it was", "/a", page(status=201, headers=[("Location", "/orders/1")]), 201)
replays("statuses without a name in nginx replay", "/a", page(status=299), 299)
replays("600 KB in many buffers replay", "/large", page("chunked", body=os.urandom(600_000)))
for how in ("/disk", "/disk-sendfile", "/disk-threads"):
    replays(f"600 KB through a temporary file replay, {how[1:]}", how, page(body=os.urandom(600_000)))
replays("60 KB at a limited rate replay", "/rate", page(body=os.urandom(60_000)))
replays("an answer of eighty header lines replays", "/a", page(headers=[(f"X-Line-{n}", f"value {n}") for n in range(80)]))
replays("an upstream's own trailers, which nginx drops, change nothing", "/keep-alive",
        lambda x: x.answer(200, PAGE, framing="chunked", trailers=[("X-Sum", "1")]))
replays("600 KB without buffering replay", "/large-unbuffered", page(body=os.urandom(600_000)))


@scene.check("headers replay with their order and repetitions")
def headers():
    sent = [("Link", "<a>; rel=x"), ("Link", "<b>; rel=y"), ("X-B", "2"), ("X-A", "1"), ("X-A", "0"), ("Cache-Control", "no-store"),
            ("Cache-Control", "private"), ("Content-Language", "pt"), ("ETag", 'W/"v1"'), ("Last-Modified", DATE[1]),
            ("Expires", DATE[1]), ("Vary", "Accept"), ("X-Empty", "")]
    route = scene.route(page(headers=sent))
    first = route.post("/a")
    again = route.post("/a")
    replayed(again, first)
    for name in {name for name, _ in sent}:
        same(again.all(name), [value for key, value in sent if key == name], f"values of {name}")
    same(again.header("Content-Type"), "text/plain", "Content-Type")
    route.executed(1)


@scene.check("where proxy_pass_header lets the upstream's Server through, a replay has it")
def server():
    route = scene.route(page(headers=[("Server", "shop/1")]))
    first, again = route.post("/server"), route.post("/server")
    same(first.all("Server"), ["shop/1"], "Server")
    replayed(again, first)
    route.executed(1)


@scene.check("what nginx adds itself is added to a replay once, not twice")
def added():
    route = scene.route(page())
    first, again = route.post("/expires"), route.post("/expires")
    replayed(again, first)
    same((again.all("X-Via"), len(again.all("Cache-Control"))), (["edge"], 1), "X-Via, and how many Cache-Control")
    route.executed(1)


@scene.check("cookies, authorization, hop-by-hop headers and the date are not stored")
def not_stored():
    route = scene.route(page(headers=[("Set-Cookie", "session=secret"), ("Set-Cookie", "b=c"), ("Keep-Alive", "timeout=5"), ("X-Execution", "1")]))
    first, again = route.post("/a"), route.post("/a")
    same(first.all("Set-Cookie"), ["session=secret", "b=c"], "the first answer's cookies")
    same((again.all("Set-Cookie"), again.all("X-Execution")), ([], ["1"]), "the replay's cookies and X-Execution")
    same((len(again.all("Date")), again.header("Date") != DATE[1]), (1, True), "one date, and not the stored one")
    same(again.body, PAGE, "body")
    route.executed(1)


@scene.check("idem_store_headers keeps what is dropped by default, idem_hide_headers drops more")
def stored_by_wish():
    sent = [("Set-Cookie", "a=b"), ("X-Execution", "1"), ("X-Trace", "t"), ("X-Other", "o")]
    for at, expected in (("/keep", (["a=b"], ["1"], ["t"], ["o"])), ("/hide", ([], [], [], ["o"]))):
        route = scene.route(page(headers=sent))
        route.post(at)
        again = route.post(at)
        same(tuple(again.all(name) for name, _ in sent), expected, f"headers at {at}")
        same(again.header("Idempotency-Replayed"), "true", "mark")
        route.executed(1)


# -------------------------------------------------------------------- filters
@scene.check("gzip: stored as the upstream sent it, packed for who takes it")
def gzipped():
    route = scene.route(page())
    packed = route.post("/gzip", headers=[("Accept-Encoding", "gzip")])
    plain = route.post("/gzip")
    again = route.post("/gzip", headers=[("Accept-Encoding", "gzip")])
    same([a.header("Content-Encoding") for a in (packed, plain, again)], ["gzip", None, "gzip"], "encodings")
    same([gzip.decompress(packed.body), plain.body, gzip.decompress(again.body)], [PAGE] * 3, "bodies")
    same([plain.header("Idempotency-Replayed"), again.header("Idempotency-Replayed")], ["true", "true"], "marks")
    route.executed(1)


def packed_by_upstream(at):
    body = gzip.compress(PAGE, mtime=0)
    route = scene.route(page(body=body, headers=[("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]))
    first = route.post(at, headers=[("Accept-Encoding", "gzip")])
    same((first.body, first.header("Content-Encoding")), (body, "gzip"), "the first answer")
    again = route.post(at, headers=[("Accept-Encoding", "gzip")])
    replayed(again, first)
    for accepts in ((), (("Accept-Encoding", "identity"),), (("Accept-Encoding", "gzip;q=0"),)):
        plain = route.post(at, headers=accepts)
        same((plain.header("Content-Encoding"), plain.body), (None, PAGE), f"for a client with {accepts}")
        same((plain.complete, plain.header("Idempotency-Replayed")), (True, "true"), "complete, marked")
        true(plain.header("Content-Length") in (None, str(len(PAGE))), "no length of the packed body")
    route.executed(1)


@scene.check("what the upstream packed replays as it was, and unpacked for a client that doesn't take gzip")
def gzip_replayed():
    packed_by_upstream("/a")


@scene.check("the same where nginx unpacks by itself (gunzip on)")
def gunzip():
    packed_by_upstream("/gunzip")


@scene.check("sub_filter changes a replay as it changed the first answer, not twice")
def substituted():
    route = scene.route(page())
    first = route.post("/sub")
    same(first.body, PAGE.replace(b"Lisbon", b"Lisbon, that is Lisbon"), "the first answer")
    replayed(route.post("/sub"), first)
    route.executed(1)


@scene.check("a Range asked by the first client cuts his answer, not what is stored; a replay is never cut")
def ranges():
    route = scene.route(page(headers=[("Accept-Ranges", "bytes")]))
    first = route.post("/range", headers=[("Range", "bytes=0-9")])
    same((first.status, first.body), (206, PAGE[:10]), "the first answer")
    whole = route.post("/range")
    same((whole.status, whole.body, whole.header("Idempotency-Replayed")), (200, PAGE, "true"), "without a range")
    cut = route.post("/range", headers=[("Range", "bytes=5-7")])
    same((cut.status, cut.body), (200, PAGE), "a replay with a range")
    route.executed(1)


@scene.check("conditions (If-Match, If-None-Match, If-Modified-Since) don't turn a replay into 304 or 412")
def conditions():
    route = scene.route(page(headers=[("ETag", '"v1"'), ("Last-Modified", DATE[1])]))
    first = route.post("/a")
    for condition in (("If-None-Match", '"v1"'), ("If-Match", '"v2"'), ("If-Modified-Since", DATE[1]),
                      ("If-Unmodified-Since", "Sat, 05 Nov 1994 08:49:37 GMT"), ("If-None-Match", "*")):
        replayed(route.post("/a", headers=[condition]), first)
    route.executed(1)


@scene.check("trailers that nginx adds are there on a replay too")
def trailers():
    route = scene.route(page("chunked"))
    first = route.post("/trailer", headers=[("TE", "trailers")])
    again = route.post("/trailer", headers=[("TE", "trailers")])
    same((again.body, again.header("Idempotency-Replayed"), again.trailers), (PAGE, "true", [("X-Sum", "done")]), "the replay")
    same(first.trailers, again.trailers, "the first answer's trailers")
    route.executed(1)


@scene.check("a file nginx serves is an answer: its replay is what it was")
def static():
    first = scene.route()  # only for its key
    get = lambda: first.post("/static", method="GET", body=None, query="/../page")
    answer = get()
    same((answer.status, answer.body), (200, PAGE), "the file")
    with open(f"{scene.dir}/static/page", "wb") as file:
        file.write(b"changed")
    again = get()
    same((again.status, again.body, again.header("Idempotency-Replayed")), (200, PAGE, "true"), "the replay")
    first.executed(0)


# -------------------------------------------------------------------- which statuses are kept
def kept(at, statuses):
    seen = []
    for status in statuses:
        route = scene.route(lambda x, status=status: x.answer(status, b"execution %d" % x.number))
        first, again = route.post(at), route.post(at)
        same(first.status, status, "the first answer's status")
        if route.count == 1:
            replayed(again, first)
            seen.append(status)
        else:
            same((route.count, again.body, again.header("Idempotency-Replayed")), (2, b"execution 2", None), f"a second {status}")
            same([r.header("Idempotency-Attempt") for r in route.requests], ["1", "2"], "attempts")
    return seen


@scene.check("2xx to 4xx are kept, but 401 403 408 409 425 429 499 and 5xx are not, and run again")
def default_statuses():
    statuses = [200, 201, 202, 203, 226, 300, 302, 307, 400, 401, 402, 403, 404, 405, 408, 409, 410, 412, 415, 422, 425, 429, 451,
                499, 500, 501, 502, 503, 504, 507, 599, 600, 639, 640, 799, 999]
    dropped = [401, 403, 408, 409, 425, 429, 499, 500, 501, 502, 503, 504, 507, 599, 600, 639, 640, 799, 999]
    same(kept("/a", statuses), [s for s in statuses if s not in dropped], "kept")


@scene.check("idem_store_status takes codes, ranges, classes, and takes away")
def given_statuses():
    same(kept("/only", [200, 201, 302, 400, 402, 404, 405, 500, 503, 504]), [201, 400, 402, 404, 500, 504], "kept")
    same(kept("/default", [200, 401, 409, 404, 500, 503]), [200, 404, 500], "kept with default and one more")


@scene.check("$idem_status tells what became of a claim")
def fates():
    route = scene.route(lambda x: x.answer(500 if x.number == 1 else 200, b"x" * 3000))
    answers = [route.post("/small") for _ in range(3)]
    same([a.status for a in answers], [500, 200, 409], "statuses")
    problem(answers[2], 409, "not-retained", "none")
    same([scene.logged(a)["claim"] for a in answers], ["abandoned", "tombstone", ""], "$idem_status")
    other = scene.route()
    same([scene.logged(other.post("/a"))["claim"] for _ in range(2)], ["stored", ""], "$idem_status")
    route.executed(2)


# -------------------------------------------------------------------- sizes and times
@scene.check("an answer larger than idem_max_body passes whole; a duplicate is told 409 not-retained, not executed")
def too_large():
    for size, framing, at in ((70_000, "length", "/a"), (70_000, "chunked", "/a"), (200_000, "eof", "/unbuffered"), (1025, "length", "/small")):
        body = os.urandom(size)
        route = scene.route(page(framing, body=body))
        first = route.post(at)
        same((first.status, first.body == body), (200, True), f"the first answer, {size} bytes {framing}")
        again = route.post(at)
        problem(again, 409, "not-retained", "none")
        same(scene.outcome(again), "not_retained", "outcome")
        problem(route.post(at, body=b"other"), 422, "key-reused")
        route.executed(1)


@scene.check("an answer of exactly idem_max_body is kept")
def just_fits():
    route = scene.route(page(body=b"x" * 1024))
    first = route.post("/small")
    replayed(route.post("/small"), first)
    route.executed(1)


@scene.check("$idem_age tells how old a replay is")
def age():
    route = scene.route()
    first = route.post("/a")
    same(scene.logged(first)["age"], "", "age of a first answer")
    eventually(lambda: int(scene.logged(route.post("/a"))["age"]) >= 1, "an age of a second")
    route.executed(1)


@scene.check("after idem_ttl a key is new again: first attempt, another answer")
def expires():
    route = scene.route()
    first = route.post("/brief")
    replayed(route.post("/brief"), first)
    answer = eventually(lambda: (lambda a: a if a.body == b"execution 2\n" else None)(route.post("/brief")), "a second execution")
    same((answer.status, answer.header("Idempotency-Replayed")), (201, None), "the answer after it expired")
    same([r.header("Idempotency-Attempt") for r in route.requests], ["1", "1"], "attempts")
    route.executed(2)


def expires_in(route):
    """Seconds that the store gives this route's key."""
    stories = [json.loads(line) for line in scene.idem("ls", "--json").splitlines()]
    return [s for s in stories if s["key"] == route.key]


@scene.check("X-Idempotency-TTL from the upstream shortens the time, and is not passed on")
def upstream_ttl():
    route = scene.route(lambda x: x.answer(201, b"execution %d\n" % x.number, [("X-Idempotency-TTL", "1")]))
    first = route.post("/a")
    same(first.all("X-Idempotency-TTL"), [], "X-Idempotency-TTL")
    same(route.post("/a").all("X-Idempotency-TTL"), [], "X-Idempotency-TTL of a replay")
    eventually(lambda: route.post("/a").body != b"execution 1\n", "a second execution")
    true(route.count >= 2, "executed again")


@scene.check("X-Idempotency-TTL stays within idem_ttl's bounds; nonsense counts for nothing")
def bounded_ttl():
    left = {}
    for said in ("7000000", "90m", "0", "soon", "-5"):
        route = scene.route(lambda x, said=said: x.answer(201, b"x", [("X-Idempotency-TTL", said)]))
        route.post("/ttl")
        left[said] = [story.get("expires_in_ms") for story in expires_in(route)]
        route.executed(1)
    near = lambda seen, hours: len(seen) == 1 and hours * 3600e3 - 120e3 < seen[0] <= hours * 3600e3 + 2e3
    true(near(left["7000000"], 2), f"at most max=2h: {left}")
    true(near(left["90m"], 1.5), f"90m: {left}")
    true(near(left["soon"], 1) and near(left["-5"], 1), f"nonsense: idem_ttl's 1h: {left}")


@scene.check("idem_ttl may come from a variable")
def variable_ttl():
    route = scene.route()
    route.post("/ttl-variable", headers=[("X-TTL", "1s")])
    eventually(lambda: route.post("/ttl-variable", headers=[("X-TTL", "1h")]).body == b"execution 2\n", "a second execution")
    replayed_again = route.post("/ttl-variable", headers=[("X-TTL", "1s")])
    same(replayed_again.body, b"execution 2\n", "kept for an hour now")
    route.executed(2)


scene.run()
