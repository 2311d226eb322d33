#!/usr/bin/env bash
# Rules of the house that a text search can see: a file has one idea (600 lines at most), nothing is left "to do", nothing
# speaks of the machine it was written on, and everything that is run is executable.
source "$(dirname "${BASH_SOURCE[0]}")/report.bash"

# files TREE: everything that belongs to the tree, without build directories.
files() { (cd "$1" && find . -name .git -prune -o -name 'build*' -type d -prune -o -type f -print | sed 's,^\./,,' | sort); }

long_files() {
    # The public header is one page by contract, however long; data isn't read line by line.
    (cd "$1" && files . | grep -E '^(src|include|tools|bench|tests)/' | grep -vE '\.(bin|golden|json)$|^include/idem\.h$' |
        xargs -r -d '\n' wc -l | awk '$1 > 600 && $2 != "total" { print $2 ": " $1 " lines; above 600 a file has two ideas" }')
}

# The words are written in pieces here, so that this file doesn't find itself.
left_to_do() { in_files "$1" "(^|[^A-Za-z_])(TO""DO|FIX""ME|XX""X)([^A-Za-z_]|\$)" "is left to do"; }
this_machine() {
    in_files "$1" "(^|[^A-Za-z0-9._-])/(wo""rk|ho""me/[a-z]+|Us""ers|ro""ot)/" "names a path of one machine"
}
conflict_marks() { in_files "$1" '^(<<<<<<<|>>>>>>>) ' "is a merge conflict"; }

in_files() {
    (cd "$1" && files . | xargs -r -d '\n' grep -HInE -- "$2" | cut -c 1-160 | sed "s,\$, ($3),")
}

not_executable() {
    (cd "$1" && files . | xargs -r -d '\n' awk 'FNR == 1 && /^#!/ { print FILENAME } { nextfile }' | while IFS= read -r file; do
        [[ -x $file ]] || echo "$file: has a #! line but is not executable"
    done)
}

clean "no file is longer than 600 lines" long_files "$root"
clean "nothing is left to do" left_to_do "$root"
clean "nothing names a path of one machine" this_machine "$root"
clean "no merge conflict is left" conflict_marks "$root"
clean "every script is executable" not_executable "$root"

fresh_tree
plant src/base/fine.c <<<'int fine; /* mastodon, /rooted/x, /run/idem, https://example.org/work/ */'
for check in long_files left_to_do this_machine conflict_marks not_executable; do
    clean "a harmless tree passes $check" $check "$scratch/tree"
done
{ for ((i = 0; i <= 600; i++)); do echo; done; } | plant src/base/long.c
caught "a file of 601 lines is caught" 'src/base/long.c: 601 lines' long_files "$scratch/tree"
plant tools/idem/later.c <<<"/* TO""DO: later */"
caught "a thing to do is caught" 'later.c:1:' left_to_do "$scratch/tree"
plant tests/unit/path.c <<<"open(\"/ho""me/joe/x\");"
caught "a path of one machine is caught" 'path.c:1:' this_machine "$scratch/tree"
plant README.md <<<'<<<<<<< HEAD'
caught "a merge conflict is caught" 'README.md:1:' conflict_marks "$scratch/tree"
plant tools/new <<<'#!/bin/sh'
caught "a script that cannot be run is caught" 'tools/new: has' not_executable "$scratch/tree"
finish
