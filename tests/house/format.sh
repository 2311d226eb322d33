#!/usr/bin/env bash
# All C and C++ looks as .clang-format says. To put a file right: clang-format -i FILE.
source "$(dirname "${BASH_SOURCE[0]}")/report.bash"
command -v clang-format >/dev/null || { echo "skipped: clang-format is not installed (tools/setup gets it)"; exit 77; }

# format TREE: one line for each file that differs.
format() {
    (
        cd "$1" || exit
        find src include tools bench tests -type f \( -name '*.[ch]' -o -name '*.cc' -o -name '*.cpp' -o -name '*.hpp' \) \
            2>/dev/null | sort | xargs -r -d '\n' -n 20 -P 2 clang-format --style=file --dry-run -Werror 2>&1 |
            grep -E 'error:' | sed 's/\[-W.*//' | sort -t : -u -k 1,1
    )
}

clean "every source file is formatted" format "$root"

fresh_tree
cp "$root/.clang-format" "$scratch/tree/"
plant src/base/fine.c <<'END'
int one(int x)
{
    return x ? 1 : 0;
}
END
clean "a formatted tree is accepted" format "$scratch/tree"
plant bench/crooked.cc <<<'int two( int x ){return x;}'
caught "an unformatted file is caught" 'bench/crooked.cc:1' format "$scratch/tree"
finish
