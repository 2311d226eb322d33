# faults.awk - which seeded fault was caught by which test. Used by tools/test at the end of a run.
#
# Input: first the names of all faults that the sources can be asked for, one a line; then what tests printed, each preceded by a line
# "test NAME". A test says "caught: FAULT: how it showed" before cmocka's line "ok N - CHECK".
# Output: a Markdown table; its last line is "faults SEEDED UNCAUGHT", and before it "uncaught NAME" for each that nobody caught.

FILENAME == seeds { known[$1] = 1; seeded++; next }
/^test / { test = substr($0, 6); waiting = 0; next }
/^caught: / {
    line = substr($0, 9)
    at = index(line, ": ")
    fault[++waiting] = at ? substr(line, 1, at - 1) : line
    how[waiting] = at ? substr(line, at + 2) : ""
    next
}
/^ok [0-9]+ - / {
    check = $0
    sub(/^ok [0-9]+ - /, "", check)
    for (i = 1; i <= waiting; i++) {
        f = fault[i]
        caught[f] = 1
        gsub(/\|/, "\\|", how[i])
        rows[++n] = "| " f " | " test " | " check " | " how[i] " |"
    }
    waiting = 0
    next
}
/^not ok / { waiting = 0 }

END {
    print "| fault | test | check | how it showed |"
    print "|---|---|---|---|"
    for (i = 1; i <= n; i++)
        print rows[i]
    for (f in known)
        if (!(f in caught)) {
            print "uncaught " f
            uncaught++
        }
    print "faults " seeded + 0, uncaught + 0
}
