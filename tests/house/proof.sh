#!/usr/bin/env bash
# docs/proof.md doesn't lie: each check, file and seeded fault that it names exists, and each seeded fault of the sources is in it.
source "$(dirname "${BASH_SOURCE[0]}")/report.bash"

# lies TREE: one line for each thing that is named and isn't there, or is there and isn't named.
lies() {
    (
        cd "$1" || exit
        grep -oE '`[a-z]+/test_[a-z_]+: [a-z0-9_]+`' docs/proof.md | tr -d '`' | sort -u | while IFS=': ' read -r file check; do
            grep -qE "(^static void |^PROMISE\()$check\b" "tests/$file.c" 2>/dev/null || echo "$file: no check $check"
        done
        grep -oE '`(docs|tests)/[A-Za-z0-9_./-]+`' docs/proof.md | tr -d '`' | sort -u | while IFS= read -r path; do
            [[ -e $path ]] || echo "$path: not there"
        done
        grep -oE '`[a-z]+\.pml`' docs/proof.md | tr -d '`' | sort -u | while IFS= read -r model; do
            [[ -e tests/model/$model ]] || echo "$model: no model"
        done
        comm -3 --output-delimiter=: \
            <(grep -oE '\{[a-z0-9_]+\.[a-z0-9_]+\}' docs/proof.md | tr -d '{}' | sort -u) \
            <(grep -rhoE 'IDEM_FAULT\("[a-z0-9_.]+"\)' src | cut -d'"' -f2 | sort -u) |
            sed -E 's/^:(.*)/\1: a fault that is missing in docs\/proof.md/; t; s/$/: no such fault/'
    )
}

clean "what docs/proof.md names exists, and each seeded fault is in it" lies "$root"
for kind in '`[a-z]+/test_[a-z_]+: [a-z0-9_]+`' '\{[a-z0-9_]+\.[a-z0-9_]+\}'; do
    count=$(grep -oE "$kind" "$root/docs/proof.md" | sort -u | wc -l)
    report "it names many of $kind" $((count < 50)) "$count"
done

fresh_tree
plant docs/proof.md <<<'`unit/test_a: there`, `unit/test_a: promised`, `unit/test_a: gone` `tests/gone.c` `gone.pml` {one.seeded} {two.gone}'
plant tests/unit/test_a.c <<<$'static void there(void **state)\nPROMISE(promised, "one.seeded", NULL)\nvoid gone_too(void)'
plant src/a.c <<<'if (IDEM_FAULT("one.seeded") || IDEM_FAULT("three.new"))'
for lie in '^unit/test_a: no check gone$' '^tests/gone.c: not there$' '^gone.pml: no model$' '^two.gone: no such fault$' \
    '^three.new: a fault that is missing'; do
    caught "noticed: $lie" "$lie" lies "$scratch/tree"
done
said=$(lies "$scratch/tree" | wc -l)
report "and nothing else is" $((said != 5)) "$(lies "$scratch/tree")"

finish
