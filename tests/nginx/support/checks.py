"""Checks: named sentences, run one after the other, each reported on one line as tests/README.md asks.

A check is a function that raises Failed (or anything else) when what it says isn't so. Nothing here knows of nginx.
Every wait of the tests is one of LIMIT seconds at most: that long nothing takes on a slow, busy machine, and no check
depends on anything being quicker than that."""
import os
import sys
import threading
import time
import traceback

LIMIT = float(os.environ.get("IDEM_TEST_PATIENCE", "30"))  # seconds; less while one works on the module


class Failed(Exception):
    """What a check says isn't so; the text says what was seen instead."""


def same(seen, expected, what):
    if seen != expected:
        raise Failed(f"{what}: {short(seen)}, expected {short(expected)}")


def true(condition, what):
    if not condition:
        raise Failed(what)


def short(value):
    text = repr(value)
    return text if len(text) <= 400 else f"{text[:250]}...{text[-100:]} ({len(value)} long)"


def eventually(look, what, limit=LIMIT):
    """Calls look() until it is true, and returns that; what is either a text or a function that makes one."""
    end = time.monotonic() + limit
    while True:
        seen = look()
        if seen:
            return seen
        if time.monotonic() > end:
            raise Failed(f"not within {limit:g} s: {what() if callable(what) else what}")
        time.sleep(0.01)


class Gate:
    """Where an upstream's script stops until the check lets it go on. Open is for good."""

    def __init__(self):
        self._opened = threading.Event()
        self._changed = threading.Condition()
        self._arrived = 0

    def stop_here(self):
        with self._changed:
            self._arrived += 1
            self._changed.notify_all()
        if not self._opened.wait(2 * LIMIT):
            raise Failed("nobody opened the gate")

    def arrived(self, count=1):
        """Waits until so many executions stand (or have stood) here."""
        with self._changed:
            if not self._changed.wait_for(lambda: self._arrived >= count, LIMIT):
                raise Failed(f"{self._arrived} executions came to the gate, expected {count}")

    def open(self):
        self._opened.set()


class Later:
    """A call in a thread of its own; result() waits for what it returns, or raises what it raised."""

    def __init__(self, call, *arguments, **named):
        self._outcome = None
        self._thread = threading.Thread(target=self._run, args=(call, arguments, named), daemon=True)
        self._thread.start()

    def _run(self, call, arguments, named):
        try:
            self._outcome = (call(*arguments, **named), None)
        except Exception as error:  # told to who asks for the result
            self._outcome = (None, error)

    def done(self):
        return not self._thread.is_alive()

    def result(self):
        self._thread.join(2 * LIMIT)
        if self._outcome is None:
            raise Failed("a call in the background didn't end")
        value, error = self._outcome
        if error is not None:
            raise error
        return value


class Checks:
    """The checks of one file, in order. listen: called before each one, gives a function that gives the lines to print if it fails."""

    def __init__(self, listen):
        self._checks = []
        self._listen = listen
        self.failures = 0
        self.count = 0

    def __call__(self, name):
        def remember(function):
            self._checks.append((name, function))
            return function

        return remember

    def run(self, only=""):
        for name, function in self._checks:
            if only in name:
                self.run_one(name, function)

    def run_one(self, name, function):
        self.count += 1
        began = time.monotonic()
        said = self._listen()
        try:
            function()
        except Exception as error:
            self.failures += 1
            print(f"not ok - {name}")
            if isinstance(error, Failed):
                lines = [str(error), *where(error)]
            else:
                lines = traceback.format_exc().splitlines()
            for line in [*lines, *said()]:
                print(f"# {line}")
        else:
            print(f"ok - {name}")
        sys.stdout.flush()
        took = time.monotonic() - began
        if took > 2:
            print(f"# {took:.1f} s", flush=True)

    def finish(self):
        print(f"1..{self.count}", flush=True)
        return 1 if self.failures else 0


def where(error):
    frames = traceback.extract_tb(error.__traceback__)
    return [f"at {frame.filename}:{frame.lineno}: {frame.line}" for frame in frames if "/support/" not in frame.filename]
