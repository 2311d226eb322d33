# Sourced by the house tests: where the tree is, a private directory, and the lines that tools/test counts.
set -u
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/idem-house-XXXXXX") || exit 1
trap 'rm -rf "$scratch"' EXIT
checks=0 failures=0

# report NAME OUTCOME [TEXT]: OUTCOME 0 is a pass; TEXT explains a failure.
report() {
    checks=$((checks + 1))
    if (($2 == 0)); then
        echo "ok - $1"
    else
        failures=$((failures + 1))
        echo "not ok - $1"
        if [[ -n ${3:-} ]]; then sed 's/^/# /' <<<"$3"; fi
    fi
}

# clean NAME CHECK ARGUMENTS...: passes when the check prints nothing; what it prints are the violations.
clean() {
    local name=$1 said
    shift
    said=$("$@" 2>&1)
    report "$name" $((${#said} > 0)) "$said"
}

# caught NAME PATTERN CHECK ARGUMENTS...: passes when the check prints a line with PATTERN: the fault planted there.
caught() {
    local name=$1 pattern=$2 said outcome=0
    shift 2
    said=$("$@" 2>&1)
    grep -qE -- "$pattern" <<<"$said" || outcome=1
    report "$name" $outcome "expected a line with '$pattern', got: $said"
}

# plant FILE: standard input becomes that file of a small tree in $scratch/tree; fresh_tree begins a new one.
fresh_tree() { rm -rf "$scratch/tree"; mkdir -p "$scratch/tree"; }
plant() {
    mkdir -p "$(dirname "$scratch/tree/$1")"
    cat >"$scratch/tree/$1"
}

finish() {
    echo "1..$checks"
    exit $((failures > 0))
}
