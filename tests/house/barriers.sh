#!/usr/bin/env bash
# Every ordered atomic names its pair, and every pair has both sides. src/base/order.h lists the pairs, one "Pn what ..." a
# line; a tag is a comment such as "P3 release: why" or "P1, P5 acquire" at the operation.
#   1. a tag's pair is listed, and a listed pair is used;
#   2. a pair has a release and an acquire side (acq_rel is both; seq_cst is either, but then two places must say so);
#   3. an ordered operation has a tag on its line or in the three lines above, with a side that this operation can be;
#   4. a relaxed one has a comment there that says why, or its file has a line "relaxed-in-this-file: why";
#   5. no atomics but those of src/base/atomic.h.
# The text of a tag proves nothing; it is there so that a reader finds the other side.
source "$(dirname "${BASH_SOURCE[0]}")/report.bash"

# barriers TREE: one line for each violation.
barriers() {
    (
        cd "$1" || exit
        [[ -e src/base/order.h ]] || { echo "src/base/order.h: missing, it lists the pairs"; exit; }
        # atomic.h defines the operations; order.h is read first.
        find src -type f -name '*.[ch]' ! -path src/base/order.h ! -path src/base/atomic.h | sort |
            xargs -r awk '
            # Notes in tag_pair, tag_side what the tags on this line say; "P1, P5 acquire" is two tags.
            function read_tags(line,    rest, text, side, list, i, n, pair) {
                line_sides = ""
                rest = line
                while (match(rest, /P[0-9]+((,| and|\/) ?P[0-9]+)* (release|acquire|acq_rel|seq_cst)([^a-z_]|$)/)) {
                    text = substr(rest, RSTART, RLENGTH)
                    rest = substr(rest, RSTART + RLENGTH)
                    side = text
                    sub(/^.* /, "", side)
                    sub(/[^a-z_].*$/, "", side)
                    sub(/ (release|acquire|acq_rel|seq_cst).*$/, "", text)
                    gsub(/,|\/| and/, " ", text)
                    n = split(text, list, " ")
                    for (i = 1; i <= n; i++) {
                        pair = list[i]
                        if (!(pair in listed))
                            print FILENAME ":" FNR ": " pair " is not listed in src/base/order.h"
                        used[pair] = 1
                        places[pair]++
                        if (side == "release" || side == "acq_rel") has_release[pair] = 1
                        if (side == "acquire" || side == "acq_rel") has_acquire[pair] = 1
                        if (side == "seq_cst") has_seq_cst[pair]++
                    }
                    line_sides = line_sides " " side
                }
                return line_sides
            }
            # Can an operation of this order be one of these sides?
            function fits(order, sides) {
                if (order == "acquire") return sides ~ /acquire/
                if (order == "release") return sides ~ /release/
                if (order == "acq_rel") return sides ~ /acquire|release|acq_rel/
                return sides ~ /./
            }
            FILENAME == "src/base/order.h" {
                if (match($0, /^[ *]*P[0-9]+ /)) {
                    pair = $0
                    sub(/^[ *]*/, "", pair)
                    sub(/ .*$/, "", pair)
                    listed[pair] = FNR
                }
                next
            }
            FNR == 1 {
                sides1 = sides2 = sides3 = ""
                comment1 = comment2 = comment3 = 0
                inside = 0
                file_relaxed = 0
                while ((getline line < FILENAME) > 0)
                    if (line ~ /relaxed-in-this-file: *[^ ]/)
                        file_relaxed = 1
                close(FILENAME)
            }
            {
                sides = read_tags($0)
                # Code without comments and strings, so that words in them are no operations.
                code = $0
                comment = inside || ($0 ~ /\/\*|\/\//)
                gsub(/"([^"\\]|\\.)*"/, "\"\"", code)
                if (inside) {
                    if (code !~ /\*\//)
                        code = ""
                    else {
                        sub(/^.*\*\//, "", code)
                        inside = 0
                    }
                }
                while (match(code, /\/\*([^*]|\*+[^*\/])*\*+\//))
                    code = substr(code, 1, RSTART - 1) " " substr(code, RSTART + RLENGTH)
                if (code ~ /\/\*/) {
                    sub(/\/\*.*$/, "", code)
                    inside = 1
                }
                sub(/\/\/.*$/, "", code)

                if (code ~ /__atomic_|__sync_|stdatomic\.h|(^|[^a-z_])atomic_(load|store|fetch|exchange|compare|thread)|_Atomic/)
                    print FILENAME ":" FNR ": atomics come from src/base/atomic.h, with the order in the name"

                rest = code
                near = sides " " sides1 " " sides2 " " sides3
                while (match(rest, /[a-z0-9_]+_(acquire|release|acq_rel|seq_cst|relaxed)[ ]*\(|rcu_(assign_pointer|dereference|xchg_pointer|cmpxchg_pointer|set_pointer)[ ]*\(/)) {
                    operation = substr(rest, RSTART, RLENGTH)
                    if (operation ~ /^idem_/) { # the public idem_release() is no ordering
                        rest = substr(rest, RSTART + RLENGTH)
                        continue
                    }
                    rest = substr(rest, RSTART + RLENGTH)
                    sub(/[ ]*\($/, "", operation)
                    order = operation
                    if (operation ~ /^rcu_/)
                        order = (operation ~ /dereference/) ? "acquire" : (operation ~ /xchg/) ? "acq_rel" : "release"
                    else
                        sub(/^.*_(acq_rel|seq_cst)$/, "", order)
                    if (order == "")
                        order = (operation ~ /acq_rel$/) ? "acq_rel" : "seq_cst"
                    else if (operation !~ /^rcu_/)
                        sub(/^.*_/, "", order)
                    if (order == "relaxed") {
                        if (!file_relaxed && !comment && !comment1 && !comment2 && !comment3)
                            print FILENAME ":" FNR ": " operation " needs a comment why no order is needed" \
                                " (or a line \"relaxed-in-this-file: why\")"
                    } else if (!fits(order, near)) {
                        print FILENAME ":" FNR ": " operation " needs the tag of its pair, \"Pn " \
                            (order == "seq_cst" ? "seq_cst" : order) ": why\", here or in the three lines above" \
                            (near ~ /[a-z]/ ? " (there is:" near ")" : "")
                    }
                }
                sides3 = sides2; sides2 = sides1; sides1 = sides
                comment3 = comment2; comment2 = comment1; comment1 = comment
            }
            END {
                for (pair in listed) {
                    where = "src/base/order.h:" listed[pair] ": " pair
                    if (!(pair in used)) {
                        print where " is listed, but no operation is tagged with it"
                        continue
                    }
                    if (!(pair in has_release) && !(pair in has_seq_cst))
                        print where " has no release side"
                    if (!(pair in has_acquire) && !(pair in has_seq_cst))
                        print where " has no acquire side"
                    if (places[pair] < 2)
                        print where " is tagged in one place only"
                }
            }' src/base/order.h
    )
}

clean "every ordered atomic of the tree names its pair, and every pair has both sides" barriers "$root"

# The smallest tree that is right; each case below spoils it in one place.
good_tree() {
    fresh_tree
    plant src/base/order.h <<'END'
/*
 * P1 entry bytes before the word
 * P2 hazard against sweep
 */
END
    plant src/index/claim.c <<'END'
/* An opening comment that speaks of load_acquire(x). */
void publish(void)
{
    store_release(&slot, word); /* P1 release: the entry's bytes */
    /* P2 seq_cst: our hazard before their look,
       theirs the other way round */
    store_seq_cst(&hazard, region);
    add_relaxed(&count, 1); /* a statistic, nothing hangs on it */
}
END
    plant src/index/peek.c <<'END'
int peek(void)
{
    /* P1, P2 acquire: the entry's bytes. */
    if (load_acquire(&slot))
        say("load_acquire(");
    return cas_seq_cst(&hazard, &seen, 0); /* P2 seq_cst: the sweeper's side */
}
END
}
# spoiled NAME PATTERN FILE SED-SCRIPT
spoiled() {
    good_tree
    sed -i "$4" "$scratch/tree/$3"
    caught "$1" "$2" barriers "$scratch/tree"
}
good_tree
clean "a tree that keeps the rules is accepted" barriers "$scratch/tree"
spoiled "a release without its acquire is caught" 'P1 has no acquire side' src/index/peek.c 's/P1, P2 acquire/P2 acquire/'
spoiled "an acquire without its release is caught" 'P1 has no release side' src/index/claim.c 's/P1 release/P2 release/'
good_tree
sed -i 's/P1, P2 acquire/P1 acquire/' "$scratch/tree/src/index/peek.c"
sed -i '/P2/d; /theirs/d; /store_seq_cst/d' "$scratch/tree/src/index/claim.c"
caught "a pair with one place only is caught" 'P2 is tagged in one place only' barriers "$scratch/tree"
spoiled "an operation without a tag is caught" 'claim.c:4: store_release needs the tag' src/index/claim.c 's,/\* P1 release.*,,'
spoiled "a tag too far above is caught" 'peek.c:[0-9]+: load_acquire needs the tag' src/index/peek.c '3a \\n\n\n'
spoiled "a tag of the wrong side is caught" 'peek.c:4: load_acquire needs the tag' src/index/peek.c 's/P1, P2 acquire/P1 release/'
spoiled "a tag that is not listed is caught" 'P9 is not listed' src/index/claim.c 's/P1 release/P9 release/'
spoiled "a listed pair that nobody uses is caught" 'P7 is listed, but' src/base/order.h '3i \ * P7 the unused one'
spoiled "a relaxed operation without a reason is caught" 'add_relaxed needs a comment' src/index/claim.c \
    's,/\* a statistic.*,,; s,^    add,\n\n\n\n    add,'
spoiled "an atomic from elsewhere is caught" 'atomics come from' src/index/peek.c '3i __atomic_load_n(&x, 0);'
spoiled "an rcu operation without a tag is caught" 'rcu_dereference needs the tag' src/index/peek.c '$a int x = rcu_dereference(view);'
good_tree
sed -i 's,/\* a statistic.*,,; s,^    add,\n\n\n\n    add,; 1a /* relaxed-in-this-file: all of it is counting */' \
    "$scratch/tree/src/index/claim.c"
clean "a file may say once why its relaxed operations are fine" barriers "$scratch/tree"
finish
