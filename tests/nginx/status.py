#!/usr/bin/python3
"""What operators see: the status page and its metrics, and the variables in the log."""
import re

from support.checks import Gate, eventually, same, true
from support.client import ask
from support.scene import Scene

scene = Scene(http="""
    idem_zone z path={shm}/z keys=1000;
    idem_zone second path={shm}/second keys=1000;
""", server="""
        location /a { idem z; idem_required on; proxy_pass http://{up}; }
        location /b { idem second; proxy_pass http://{up}; }
        location /unbuffered { idem z; proxy_buffering off; proxy_pass http://{up}; }
        location /off { proxy_pass http://{up}; }
        location /bypass { idem z; idem_bypass $http_x_bypass; proxy_pass http://{up}; }
        location /shown { idem z; proxy_pass http://{up};
            add_header X-Shown "$idem_outcome $idem_status $idem_key $idem_token" always; }
""")
scene.gone = Gate()
SAMPLE = re.compile(r'^(idem_[a-z_]+)\{([a-z_]+="[^"]*"(?:,[a-z_]+="[^"]*")*)\} (-?[0-9]+(?:\.[0-9]+)?)$')


def page(query="", headers=(), method="GET"):
    return ask(scene.nginx.port, method, f"/idem-status{query}", headers)


def metrics():
    """{(name, labels): value}, after looking at each line of the text."""
    answer = page("?format=prometheus")
    typed, helped, values = {}, set(), {}
    for line in answer.body.decode().splitlines():
        if line.startswith("# HELP "):
            helped.add(line.split()[2])
            true(len(line.split(" ", 3)[3]) > 5, f"help: {line}")
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            true(name not in typed, f"typed twice: {line}")
            true(kind in ("counter", "gauge", "histogram"), line)
            typed[name] = kind
        else:
            found = SAMPLE.match(line)
            true(found is not None, f"not a sample: {line!r}")
            name, labels, value = found.groups()
            true(name in typed and name in helped, f"{name} has no TYPE or HELP before it")
            true((typed[name] == "counter") == name.endswith("_total"), f"{name} is a {typed[name]}")
            true((name, labels) not in values, f"twice: {line}")
            true(re.search(r'zone="(z|second)"', labels), f"no zone: {line}")
            values[name, labels] = float(value)
    return values


def requests(zone, outcome):
    return scene.metric("requests_total", zone, outcome=outcome)


@scene.check("each line of the metrics is one, typed and explained; both zones are there")
def sound():
    values = metrics()
    true(len(values) > 20, f"only {len(values)} samples")
    same(page("?format=prometheus").header("content-type"), "text/plain; version=0.0.4; charset=utf-8", "content type")
    same({re.search(r'zone="(\w+)"', labels).group(1) for _, labels in values}, {"z", "second"}, "zones")


@scene.check("every outcome is counted once, in its zone, whichever worker it was in")
def counted():
    names = ("claimed", "replayed", "mismatch", "missing", "invalid", "bypassed", "unknown", "not_retained", "in_progress")
    before = {name: requests("z", name) for name in names}
    other = {name: requests("second", name) for name in names}
    route = scene.route()
    for _ in range(5):
        route.post("/a")
    route.post("/a", body=b"other")
    route.post("/a", key=None)
    route.post("/a", key='"')
    route.post("/bypass", headers=[("X-Bypass", "1")])
    lost = scene.route(lambda x: x.close())
    [lost.post("/a") for _ in range(2)]
    large = scene.route(lambda x: x.answer(200, b"x" * 70_000))
    [large.post("/a") for _ in range(2)]
    busy = scene.route(gated=True)
    owner = busy.later("/a")
    busy.gate.arrived()
    busy.post("/a")
    busy.gate.open()
    owner.result()
    grown = {name: requests("z", name) - before[name] for name in names}
    same(grown, {"claimed": 4, "replayed": 4, "mismatch": 1, "missing": 1, "invalid": 1, "bypassed": 1, "unknown": 1, "not_retained": 1,
                 "in_progress": 1}, "what was counted")
    same({name: requests("second", name) for name in names}, other, "the other zone")
    same((route.count, lost.count, large.count, busy.count), (2, 1, 1, 1), "executions")


@scene.check("what became of claims is counted, and who left")
def claims():
    names = ("stored", "tombstone", "shared", "held", "abandoned", "fenced", "failed")
    before = {name: scene.metric("claims_total", "z", status=name) for name in names}
    gone = scene.metric("clients_gone_total")
    for script in (lambda x: x.answer(201), lambda x: x.answer(200, b"x" * 70_000), lambda x: x.answer(500), lambda x: x.close()):
        route = scene.route(script)
        route.post("/a")
        route.executed(1)
    # In two parts: the first one finds that nobody is there, the second one is read all the same.
    route = scene.route(lambda x: (x.start(201, length=10_000), x.body(b"x" * 5000), scene.gone.stop_here(), x.body(b"x" * 5000), x.end()), gated=True)
    connection = route.open("/unbuffered")
    route.gate.arrived()
    connection.reset()
    route.gate.open()
    eventually(lambda: scene.metric("clients_gone_total") == gone + 1, "a client that left is counted")
    scene.gone.open()
    same(route.settled("/unbuffered").status, 201, "stored though the client left")
    grown = {name: scene.metric("claims_total", "z", status=name) - before[name] for name in names}
    same(grown, {"stored": 2, "tombstone": 1, "shared": 1, "held": 1, "abandoned": 0, "fenced": 0, "failed": 0}, "what was counted")


@scene.check("counters outlive a reload")
def reloaded():
    route = scene.route()
    [route.post("/b") for _ in range(2)]
    before = {key: value for key, value in metrics().items() if key[0].endswith("_total")}
    scene.nginx.reload()
    after = metrics()
    same({key: after.get(key) for key in before}, before, "counters")
    route.executed(1)


@scene.check("the page is HTML for people, text for who asks for text")
def kinds():
    for headers, kind in (((), "text/html"), ([("Accept", "text/html,*/*")], "text/html"), ([("Accept", "text/plain")], "text/plain"),
                          ([("Accept", "application/openmetrics-text;version=1.0.0,text/plain;q=0.5")], "text/plain")):
        answer = page(headers=headers)
        same((answer.status, answer.header("content-type").split(";")[0]), (200, kind), f"with {headers}")
    html = page().body.decode()
    true("zone z" in html and "zone second" in html and "replayed" in html, html)
    same(page("?format=html").header("content-type").split(";")[0], "text/html", "asked for")


@scene.check("the page takes GET and HEAD only, and makes no claim")
def methods():
    same(page(method="HEAD").status, 200, "HEAD")
    same(page(method="POST", headers=[("Idempotency-Key", "k"), ("Content-Length", "0")]).status, 405, "POST")


@scene.check("figures of each store are there")
def figures():
    values = metrics()
    for zone in ("z", "second"):
        same(values["idem_up", f'zone="{zone}"'], 1, f"idem_up of {zone}")
        true(values["idem_keys_capacity", f'zone="{zone}"'] >= 1000, "capacity")
        true(values["idem_store_bytes", f'zone="{zone}"'] > 0, "bytes")


@scene.check("variables are empty where idem is off, and for methods that aren't guarded")
def empty():
    route = scene.route()
    for answer in (route.post("/off"), route.post("/a", method="GET", body=None)):
        logged = scene.logged(answer)
        same({name: logged[name] for name in ("outcome", "claim", "token", "age", "waited")},
             dict.fromkeys(("outcome", "claim", "token", "age", "waited"), ""), "variables")
    route.executed(2)


@scene.check("variables can be shown in headers, of a first answer and of a replay")
def shown():
    route = scene.route()
    first, again = route.post("/shown"), route.post("/shown")
    said = [a.header("X-Shown").split(" ") for a in (first, again)]
    same((said[0][0], said[1][0]), ("claimed", "replayed"), "outcomes")
    true(route.key in said[0] and route.key in said[1], f"the key: {said}")
    same(said[0][-1], scene.logged(first)["token"], "the token")
    same(said[1][-1], said[0][-1], "a replay tells the token of the attempt it is of")
    route.executed(1)


scene.run()
