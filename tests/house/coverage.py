"""coverage.py - what of src/ did not run, and why. Used by tools/coverage; tests/README.md says what it is for.

usage: coverage.py ROOT LCOV JSON REASONS OUT

LCOV and JSON are llvm-cov's exports. Prints what is wrong, and the sums; OUT gets a table by file, an empty line, and all places that did not run, with file and line. The exit status
is 1 if a place has no reason, or a reason no place: the file of reasons says what is so now, and nothing else.

A place is a condition that was never true, or never false, or lines that were not run; a condition that is a macro's counts as the macro's use.
Lines that did not run because of the condition before them are no place of their own, nor are crash points and seeded faults.

The file of reasons: lines that begin with "#" are comments; a line that begins with "= " is a reason; the lines after it, indented, are the places
that it stands for, as OUT has them without the line number. A place that comes twice is listed twice. One marked "sometimes" runs in some runs.
"""

import collections
import json
import os
import sys

MANY = 1 << 62  # a difference of counts that is less than nothing


def squeeze(text):
    return " ".join(text.split())


class Source:
    def __init__(self, root, path):
        self.name = os.path.relpath(path, root)
        with open(path, encoding="utf-8") as file:
            self.text = file.read().split("\n")
        self.lines = {}  # number -> how often it ran
        self.branches = {}  # (line, column, what in it) -> [text, true, false]
        self.faults = set()  # lines with a seeded fault: what it does is never counted

    def cut(self, region):
        line, column, end_line, end_column = region[:4]
        if line == end_line:
            return squeeze(self.text[line - 1][column - 1 : end_column - 1])
        parts = [self.text[line - 1][column - 1 :], *self.text[line : end_line - 1], self.text[end_line - 1][: end_column - 1]]
        return squeeze(" ".join(parts))

    def use(self, region):
        """A macro's use with its arguments, which the region has not."""
        rest = "\n".join([self.text[region[2] - 1][region[3] - 1 :], *self.text[region[2] : region[2] + 20]])
        depth, end = 0, 0
        if rest.startswith("("):
            for end, letter in enumerate(rest, 1):
                depth += (letter == "(") - (letter == ")")
                if depth == 0:
                    break
        return self.cut(region) + squeeze(rest[:end])

    def add(self, key, text, branch):
        known = self.branches.setdefault(key, [text, 0, 0])
        if self.text[key[0] - 1][: key[1] - 1].endswith("switch ("):
            known[2] = 1  # no default: it has one way only
        for way in (0, 1):
            if branch[4 + way] < MANY:
                known[1 + way] += branch[4 + way]

    def places(self):
        """(line, what, text) of all that did not run."""
        untaken = set(self.faults)
        branch_lines = sorted({key[0] for key in self.branches} | self.faults)
        for (line, *_), (text, true, false) in sorted(self.branches.items()):
            if not self.lines.get(line, 1):
                continue
            for count, what in ((true, "never true"), (false, "never false")):
                if count == 0:
                    untaken.add(line)
                    yield line, what, text
        previous = 1
        for line in sorted(self.lines):
            if self.lines[line] == 0 and previous != 0:
                before = [b for b in branch_lines if b < line]
                text = squeeze(self.text[line - 1])
                if (not before or before[-1] not in untaken) and not text.startswith("#define"):
                    yield line, "not run", text
            previous = self.lines[line]


def read_sources(root, lcov, exported):
    sources, current = {}, None

    def wanted(path):
        name = os.path.relpath(path, root)
        return name.startswith("src/") and not name.startswith("src/nginx/")

    with open(lcov, encoding="utf-8") as file:
        for row in file:
            if row.startswith("SF:"):
                path = row[3:].strip()
                current = sources.setdefault(path, Source(root, path)) if wanted(path) else None
            elif row.startswith("DA:") and current is not None:
                line, count = row[3:].split(",")[:2]
                current.lines[int(line)] = current.lines.get(int(line), 0) + int(count)
    with open(exported, encoding="utf-8") as file:
        files = json.load(file)["data"][0]["files"]
    for entry in files:
        source = sources.get(entry["filename"])
        if source is None:
            continue
        for branch in entry["branches"]:
            source.add((branch[0], branch[1], ()), source.cut(branch), branch)
        for use in entry["expansions"]:
            text = source.use(use["source_region"])
            if text.startswith(("IDEM_POINT", "IDEM_FAULT")):
                source.faults.add(use["source_region"][0])
                continue
            for branch in use["branches"]:
                source.add((*use["source_region"][:2], tuple(branch[:4])), text, branch)
    return sorted(sources.values(), key=lambda s: s.name)


def read_reasons(path):
    """place -> how many; those that come and go; what is wrong with the file."""
    reasons, sometimes, wrong, reason, began = collections.Counter(), collections.Counter(), [], None, 0
    with open(path, encoding="utf-8") as file:
        for number, row in enumerate(file, 1):
            row = row.rstrip("\n")
            if row.startswith("= "):
                if reason == 0:
                    wrong.append(f"{path}:{began}: a reason for nothing")
                reason, began = 0, number
            elif row.startswith("#") or not row.strip():
                continue
            elif not row[0].isspace() or reason is None:
                wrong.append(f"{path}:{number}: neither a reason (= ...) nor a place")
            else:
                reason += 1
                place = row.strip()
                if place.startswith("sometimes "):
                    sometimes[place[len("sometimes ") :]] += 1
                else:
                    reasons[place] += 1
    if reason == 0:
        wrong.append(f"{path}:{began}: a reason for nothing")
    return reasons, sometimes, wrong


def percent(some, all_):
    return f"{100 * some / all_:5.1f}% of {all_:5d}" if all_ else ""


def main(root, lcov, exported, reasons_file, out):
    sources = read_sources(root, lcov, exported)
    reasons, sometimes, wrong = read_reasons(reasons_file)
    sums, table, told, without = [0, 0, 0, 0], [], [], []
    every = set()
    for source in sources:
        lines = list(source.lines.values())
        ways = [count for _, *counts in source.branches.values() for count in counts]
        figures = [sum(n > 0 for n in lines), len(lines), sum(n > 0 for n in ways), len(ways)]
        sums = [a + b for a, b in zip(sums, figures)]
        table.append(f"{source.name:<28} lines {percent(*figures[:2]):<15}   branches {percent(*figures[2:])}")
        every.update(f"{source.name}: {text}" for text, _, _ in source.branches.values())
        every.update(f"{source.name}: {squeeze(text)}" for text in source.text)
        for line, what, text in source.places():
            place = f"{source.name}: {what}: {text}"
            if reasons[place] > 0:
                reasons[place] -= 1
            elif sometimes[place] > 0:
                sometimes[place] -= 1
            else:
                without.append(f"{source.name}:{line}: {what}: {text}")
                place = "- " + place
            told.append(f"{line:5d}  {place}")
    with open(out, "w", encoding="utf-8") as file:
        file.write("\n".join([*table, "", *told, ""]))
    for place in (+reasons).elements():
        wrong.append(f"has a reason, but runs, or is not there any more: {place}")
    for place in +sometimes:
        name, _, rest = place.split(": ", 2)
        if f"{name}: {rest}" not in every:
            wrong.append(f"has a reason, but is not there any more: {place}")
    for row in wrong + [f"did not run, without a reason: {row}" for row in without]:
        print(row)
    print(f"{'src/':<28} lines {percent(*sums[:2]):<15}   branches {percent(*sums[2:])}")
    print(
        f"what did not run: {out}: {len(told)} places, {len(told) - len(without)} with a reason, "
        f"{len(without)} without; {len(wrong)} entries of the list are not true any more"
    )
    return 1 if wrong or without or not sources else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
