# coverage.awk - what of src/ was not run, with a reason. Used by tools/coverage.
#
# Input: tests/coverage.reasons, then files as `gcov -b -c` writes them, of all objects: a header's lines come once for each that has them, and ran if
# they ran in one. Output: "=" and a line of the table; "FILE:LINE kind reason text" for each place. A line with an assertion's or a crash point's branch
# only is not counted: these are no branches of the library.

FILENAME == ARGV[1] {
    if ($0 ~ /^#/ || $0 == "" || $1 == "allowed")
        next
    at = index($0, "\t")
    pattern[++patterns] = substr($0, 1, at - 1)
    reason[patterns] = substr($0, at + 1)
    gsub(/ /, "_", reason[patterns])
    next
}
FNR == 1 { file = "" }
/^ *-: *0:Source:/ {
    file = $0
    sub(/^ *-: *0:Source:/, "", file)
    sub("^" root "/", "", file)
    if (file !~ /^src\// || file ~ /^src\/nginx\//)
        file = ""
    next
}
file == "" { next }
/^branch/ {
    if (text[file "|" line] ~ /IDEM_POINT|IDEM_FAULT/)
        next
    key = file "|" line "|" ++nth
    branch[key]
    if ($0 !~ /never executed/ && $4 + 0 > 0)
        taken[key]
    next
}
/^ *[0-9#=*-]+[*]?: *[0-9]+:/ {
    split($0, part, ":")
    count = part[1]
    gsub(/[ *]/, "", count)
    line = part[2] + 0
    nth = 0
    if (count == "-" || line == 0)
        next
    rest = $0
    sub(/^[^:]*:[^:]*:/, "", rest)
    text[file "|" line] = rest
    lines[file "|" line]
    if (count + 0 > 0)
        ran[file "|" line]
    next
}

function why(file, line,    i, place) {
    place = file ": " text[file "|" line]
    for (i = 1; i <= patterns; i++)
        if (place ~ pattern[i])
            return reason[i]
    return "-"
}
function percent(some, all) { return all ? sprintf("%5.1f%% of %5d", 100 * some / all, all) : "" }

END {
    for (key in lines) {
        split(key, k, "|")
        all[k[1]]++
        if (key in ran)
            good[k[1]]++
        else
            print k[1] ":" k[2] " line " why(k[1], k[2]) " " text[key]
    }
    for (key in branch) {
        split(key, k, "|")
        all_b[k[1]]++
        if (key in taken)
            good_b[k[1]]++
        else if ((k[1] "|" k[2]) in ran)
            print k[1] ":" k[2] " branch " why(k[1], k[2]) " " text[k[1] "|" k[2]]
    }
    for (file in all) {
        printf "=%-32s lines %s   branches %s\n", file, percent(good[file], all[file]), percent(good_b[file], all_b[file]) | "sort"
        l += all[file]; gl += good[file]; b += all_b[file]; gb += good_b[file]
    }
    close("sort")
    printf "=%-32s lines %s   branches %s\n", "src/", percent(gl, l), percent(gb, b)
}
