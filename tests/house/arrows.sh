#!/usr/bin/env bash
# Includes go down only. The rooms under src/ and what each may include:
#   base < wal < segment < arena < index < store,  recover on top of all of them (wal knows nothing of the rooms above);
#   tools/, bench/ and src/nginx/ use the public header and files of their own folder, nothing of src/.
# tests/ may include anything: it looks inside.
source "$(dirname "${BASH_SOURCE[0]}")/report.bash"

# arrows TREE: one line for each include that is not allowed.
arrows() {
    (
        cd "$1" || exit
        find src include tools bench -type f \( -name '*.[ch]' -o -name '*.cc' -o -name '*.cpp' -o -name '*.hpp' \) \
            2>/dev/null | sort | xargs -r awk '
            BEGIN {
                allowed["base"] = "base"
                allowed["segment"] = "base wal segment"
                allowed["arena"] = "base wal segment arena"
                allowed["index"] = "base wal segment arena index"
                allowed["wal"] = "base wal"
                allowed["store"] = "base segment arena index wal store"
                allowed["recover"] = "base segment arena index wal store recover"
                for (room in allowed)
                    known[room] = 1
            }
            FNR == 1 {
                split(FILENAME, part, "/")
                folder = FILENAME
                sub(/\/[^\/]*$/, "", folder)
                room = (part[1] == "src") ? part[2] : part[1]
                outside = (part[1] != "src" || room == "nginx") # public header and own files only
                if (part[1] == "src" && room != "nginx" && !(room in known))
                    print FILENAME ": src/" room "/ is no room of this house (add it to arrows.sh with what it may include)"
            }
            /^[ \t]*#[ \t]*include[ \t]*["<]/ {
                quoted = ($0 ~ /include[ \t]*"/)
                target = $0
                sub(/^[^"<]*["<]/, "", target)
                sub(/[">].*$/, "", target)
                count = split(target, step, "/")
                where = FILENAME ":" FNR ": includes " target
                if (target == "idem.h")
                    next
                if (index(target, "..")) {
                    print where ": no ../ in includes"
                } else if (outside) {
                    if ((step[1] in known) && count > 1)
                        print where ": outside src/ only idem.h and own files"
                    else if (quoted && system("test -e \"" folder "/" target "\"") != 0)
                        print where ": not a file of " folder "/ (and not idem.h)"
                } else if (count > 1 && (step[1] in known)) {
                    if (index(" " allowed[room] " ", " " step[1] " ") == 0)
                        print where ": " room " may include only " allowed[room]
                } else if (quoted) {
                    print where ": write includes of src/ as \"room/file.h\""
                }
            }'
    )
}

clean "every include of the tree goes down" arrows "$root"

fresh_tree
plant src/base/bytes.h <<<'#include <stdint.h>'
plant src/segment/layout.h <<<'#include "base/bytes.h"'
plant src/index/claim.c <<<'#include "segment/layout.h"'
plant src/store/begin.c <<<'#include "index/claim.h"'
plant src/recover/verify.c <<<'#include "store/store.h"'
plant tools/idem/cli.h <<<'#include "idem.h"'
plant tools/idem/run.c <<<'#include "cli.h"'
plant src/nginx/module.c <<<'#include <idem.h>'
clean "a tree with arrows that go down only is accepted" arrows "$scratch/tree"

# planted NAME PATTERN FILE LINE: the small tree with one line more in one file.
planted() {
    plant "$3" <<<"$4"
    caught "$1" "$2" arrows "$scratch/tree"
    rm "$scratch/tree/$3"
}
planted "base including segment is caught" 'src/base/up.c:1: .*may include only base' src/base/up.c '#include "segment/layout.h"'
planted "segment including index is caught" 'src/segment/up.c:1' src/segment/up.c '#  include "index/claim.h"'
planted "index including store is caught" 'src/index/up.h:1' src/index/up.h '#include <store/store.h>'
planted "wal including index is caught" 'src/wal/ring.c:1' src/wal/ring.c '#include "index/claim.h"'
planted "wal including arena is caught" 'src/wal/ring.c:1' src/wal/ring.c '#include "arena/region.h"'
planted "store including recover is caught" 'src/store/up.c:1' src/store/up.c '#include "recover/verify.h"'
planted "the command including the inside is caught" 'tools/idem/up.c:1' tools/idem/up.c '#include "segment/layout.h"'
planted "the command including the inside by a path is caught" 'tools/idem/up.c:1' tools/idem/up.c '#include "../../src/base/bytes.h"'
planted "the pool including the command's files is caught" 'tools/pool/up.c:1' tools/pool/up.c '#include "cli.h"'
planted "a measurement including the inside is caught" 'bench/up.cc:1' bench/up.cc '#include "index/claim.h"'
planted "the nginx module including the inside is caught" 'src/nginx/up.c:1' src/nginx/up.c '#include "store/store.h"'
planted "an include without its room is caught" 'src/store/up.c:1' src/store/up.c '#include "begin.h"'
planted "an unknown room is caught" 'src/attic/' src/attic/old.c '#include <stdint.h>'
finish
