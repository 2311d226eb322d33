#!/usr/bin/env bash
# Builds of the library with other layout versions meet in one store: another major version is refused in words, both ways, and changes nothing; a later
# minor version works along. They are this tree's library, but for the two files that write and read the version.
# IDEM_BUILD is a Release build of the tree (tools/test sets it).
source "$(dirname "${BASH_SOURCE[0]}")/report.bash"
build=${IDEM_BUILD:?set it to a build directory of this tree}
store=$(mktemp -d /dev/shm/idem-test-XXXXXX) || exit 1
trap 'rm -rf "$scratch" "$store"' EXIT

# meet DIR create|join N: claims N keys, each of them once, and prints how many it got.
fresh_tree
plant meet.c <<'END'
#include <idem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv)
{
    idem_options o = IDEM_OPTIONS_INIT;
    idem_store *store;
    idem_claim claim;
    int got = 0;
    o.keys = 4000;
    o.response_bytes = 64;
    o.flags = strcmp(argv[2], "create") == 0 ? IDEM_OPEN_CREATE : 0;
    int e = argc < 4 ? IDEM_E_INVALID : idem_open(argv[1], &o, &store);
    if (e != IDEM_OK)
        return printf("%s: %s\n", idem_strerror(e), idem_error_detail()), 1;
    for (int i = 0; i < atoi(argv[3]); i++) {
        char key[16];
        idem_request rq = IDEM_REQUEST_INIT;
        snprintf(key, sizeof key, "%d", i);
        rq.key = (idem_key){"", 0, key, strlen(key)};
        rq.flags = IDEM_LEASE_ONLY;
        e = idem_begin(store, &rq, &claim, NULL);
        if (e != IDEM_CLAIMED && e != IDEM_IN_PROGRESS)
            return printf("%s: %s\n", idem_strerror(e), idem_error_detail()), 1;
        got += e == IDEM_CLAIMED;
    }
    idem_close(store);
    return printf("%d\n", got), 0;
}
END

# with MAJOR MINOR: $scratch/meet-MAJOR.MINOR
with() {
    local other=$scratch/$1.$2
    mkdir -p "$other/segment"
    sed -E "s/^(#define IDEM_LAYOUT_MAJOR +).*/\1$1u/; s/^(#define IDEM_LAYOUT_MINOR +).*/\1$2u/" "$root/src/segment/layout.h" >"$other/segment/layout.h"
    cp "$build/libidem.a" "$other/libidem.a"
    for file in create attach; do
        cc -std=c11 -D_GNU_SOURCE -DXXH_INLINE_ALL= -O1 -I "$other" -I "$root/src" -I "$root/include" -c "$root/src/segment/$file.c" -o "$other/$file.c.o" || return
        ar r "$other/libidem.a" "$other/$file.c.o" || return
    done
    cc -std=c11 -Wall -Werror -I "$root/include" "$scratch/tree/meet.c" "$other/libidem.a" -lurcu-bp -lpthread -o "$scratch/meet-$1.$2"
}
major=$(sed -nE 's/^#define IDEM_LAYOUT_MAJOR +([0-9]+)u.*/\1/p' "$root/src/segment/layout.h")
minor=$(sed -nE 's/^#define IDEM_LAYOUT_MINOR +([0-9]+)u.*/\1/p' "$root/src/segment/layout.h")
said=$(with "$major" "$minor" 2>&1 && with $((major + 1)) 0 2>&1 && with "$major" $((minor + 1)) 2>&1)
report "the library is built with three layout versions" $? "$said"
this=$scratch/meet-$major.$minor major_too=$scratch/meet-$((major + 1)).0 minor_too=$scratch/meet-$major.$((minor + 1))


# is NAME WANTED COMMAND...
is() {
    local name=$1 wanted=$2 said
    shift 2
    said=$(timeout 60 "$@" 2>&1)
    [[ $said == $wanted ]]
    report "$name" $? "$said, not $wanted"
}
bytes() { cat "$1"/* | cksum; }

is "this version makes a store" 100 "$this" "$store/ours" create 100
before=$(bytes "$store/ours")
is "another major version refuses it in words" "*layout $major.$minor * reads layout $((major + 1));*" "$major_too" "$store/ours" join 10
is "and does not make it anew" "*layout $major.$minor * reads layout $((major + 1));*" "$major_too" "$store/ours" create 10
report "and has changed no byte of it" $([[ $(bytes "$store/ours") == "$before" ]]; echo $?)
is "that version makes a store of its own" 100 "$major_too" "$store/theirs" create 100
before=$(bytes "$store/theirs")
is "this one refuses that in words" "*layout $((major + 1)).0 * reads layout $major;*" "$this" "$store/theirs" create 10
report "and has changed no byte of it, either" $([[ $(bytes "$store/theirs") == "$before" ]]; echo $?)

for i in 1 2; do timeout 60 "$this" "$store/ours" join 3000 >"$scratch/this.$i" & timeout 60 "$minor_too" "$store/ours" join 3000 >"$scratch/minor.$i" & done
wait
said=$(cat "$scratch"/this.? "$scratch"/minor.? | tr '\n' ' ')
report "of keys that this version and a later minor one claim at once each has one owner" $((100 + $(tr ' ' '+' <<<"$said") 0 != 3000)) "$said"
is "a store of the later minor version is used by this one" 0 sh -c "'$minor_too' '$store/later' create 50 >/dev/null && '$this' '$store/later' join 50"

finish
