# judge.awk - read what one test printed and say what it counts for. Used by tools/test; its own test is judge.sh.
#
# Variables: rc (exit status), name (of the test), strict (1: a skip that isn't the kernel's fails), limit (time limit, s).
# Input: the test's standard output. TAP as cmocka 1.1.5 writes it (plan first, "not ok 3 # SKIP name"), or the lines
# of a shell test ("ok - name", "not ok - name", "skipped - name: reason", an optional plan last).
# Output: one line a result, "pass NAME", "fail NAME: why", "skip NAME: reason"; then "total P F S".
# It never takes silence for success: no check, a plan not met, a number twice, or a bad exit status are failures.

function pass(what) { print "pass " what; passed++ }
function fail(what, why) { print "fail " what (why == "" ? "" : ": " why); failed++ }

# A skip's reason tells whose it is: "(kernel)" is the kernel's, which even CI accepts.
function skip(what, reason, kernel) {
    if (reason == "")
        reason = "no reason given"
    if (strict && !kernel)
        fail(what, "skipped, which is not accepted here: " reason)
    else {
        print "skip " what ": " (kernel ? "(kernel) " : "") reason
        skipped++
    }
}

# Closes a plan that came first, as cmocka's does.
function close_plan() {
    if (plan_open && since != planned)
        fail(name, planned " checks were announced, " since " reported" (last == "" ? "" : "; the last was: " last))
    plan_open = 0
    since = 0
    split("", numbers)
}

function result(number, what) {
    since++
    checks++
    last = what
    if (number == "")
        return
    if (number in numbers)
        fail(what, "number " number " was reported twice")
    numbers[number] = 1
}

{ sub(/\r$/, "") }

$0 != "" { last_line = $0 }

/^1\.\.[0-9]+$/ {
    count = substr($0, 4) + 0
    if (!plan_open && since > 0) { # a plan that comes last
        planned = count
        plan_open = 1
        close_plan()
    } else {
        close_plan()
        planned = count
        plan_open = 1
        plans++
    }
    next
}

/^skipped( \(kernel\))?: / { # cmocka tests print the reason before they skip
    reason_kernel = ($0 ~ /^skipped \(kernel\)/)
    reason = $0
    sub(/^skipped( \(kernel\))?: */, "", reason)
    next
}

/^skipped( \(kernel\))? - / { # a shell test's skip, all on one line
    kernel = ($0 ~ /^skipped \(kernel\)/)
    what = $0
    sub(/^skipped( \(kernel\))? - /, "", what)
    why = ""
    colon = index(what, ": ")
    if (colon > 0) {
        why = substr(what, colon + 2)
        what = substr(what, 1, colon - 1)
    }
    checks++ # a plan counts the ok and not ok lines
    last = what
    skip(name ": " what, why, kernel)
    next
}

/^(not )?ok( [0-9]+)?( - | # SKIP |$)/ {
    bad = ($1 == "not")
    number = bad ? $3 : $2
    if (number !~ /^[0-9]+$/)
        number = ""
    what = $0
    sub(/^(not )?ok( [0-9]+)?( - )?/, "", what)
    if (what ~ /(^| )# SKIP/) {
        sub(/ *# SKIP */, " ", what)
        sub(/^ /, "", what)
        result(number, what)
        skip(name ": " what, reason, reason_kernel)
    } else {
        result(number, what)
        if (bad)
            fail(name ": " what)
        else
            pass(name ": " what)
    }
    reason = ""
    reason_kernel = 0
    next
}

END {
    close_plan()
    if (rc == 77 && failed == 0 && last_line ~ /^skipped( \(kernel\))?: /) {
        sub(/^skipped( \(kernel\))?: */, "", last_line)
        skip(name, last_line, reason_kernel)
    } else if (rc == 124 || rc == 137) {
        why = (rc == 124) ? "still ran after " limit " s and was ended" : "was killed (signal 9): out of memory or time"
        fail(name, why (last == "" ? "" : "; the last check was: " last))
    } else if (rc != 0 && failed == 0) {
        fail(name, "exit status " rc (rc > 128 ? " (signal " rc - 128 ")" : "") ", though no check failed")
    } else if (rc == 0 && checks == 0 && plans == 0) {
        fail(name, "reported no check at all")
    } else if (checks == 0 && failed == 0 && rc == 0) {
        fail(name, "announced a plan of no checks")
    }
    print "total", passed + 0, failed + 0, skipped + 0
}
