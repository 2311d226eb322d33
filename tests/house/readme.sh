#!/usr/bin/env bash
# The README doesn't lie: its C compiles, the files and tools it names exist, and so do the commands.
source "$(dirname "${BASH_SOURCE[0]}")/report.bash"

# blocks FILE LANGUAGE: the fenced code blocks of that language.
blocks() { awk -v fence="\`\`\`$2" '$0 == "```" { inside = 0 } inside { print } $0 == fence { inside = 1 }' "$1"; }

# compiles FILE: its C, with what a reader would have around it.
compiles() {
    {
        printf '#include <idem.h>\n#include <string.h>\n'
        printf 'int charge_once(const char *, const char *, size_t, const void **, size_t *);\n'
        printf 'void answer(int, const void *, size_t);\n'
        blocks "$1" c
    } >"$scratch/readme.c"
    cc -std=c11 -Wall -Wextra -Wpedantic -Werror -Wno-implicit-fallthrough -I "$root/include" -fsyntax-only "$scratch/readme.c" 2>&1
}

# missing FILE: paths in backquotes that are not in the tree.
missing() {
    local path
    grep -oE '`(tools|tests|include|src|bench|docs)/[A-Za-z0-9_./-]+' "$1" | tr -d '`' | sort -u | while IFS= read -r path; do
        [[ -e $root/${path%/} ]] || echo "$path"
    done
    blocks "$1" '' | grep -oE '^(tools|bench)/[a-z_-]+' | sort -u | while IFS= read -r path; do
        [[ -x $root/$path ]] || echo "$path"
    done
}

# unknown FILE: subcommands that `idem help` doesn't know.
unknown() {
    local word
    { grep -oE '`idem [a-z]+' "$1" | sed 's/.*idem //'; blocks "$1" '' | sed -n 's/^idem \([a-z]*\).*/\1/p'; } | sort -u |
        while IFS= read -r word; do
            "$IDEM" help "$word" >/dev/null 2>&1 || [[ $word == help ]] || echo "idem $word"
        done
}

clean "the README's C compiles" compiles "$root/README.md"
said=$(blocks "$root/README.md" c | wc -l)
report "there is C in it" $((said < 10)) "$said lines"
clean "the files it names exist" missing "$root/README.md"
clean "the commands it names exist" unknown "$root/README.md"

fresh_tree
plant README.md <<'END'
`tools/no-such-tool`, `idem teleport`

```
bench/no-such-bench
```

```c
int idem_begin(void) { return 1; }
```
END
caught "C that doesn't compile is caught" 'conflicting types' compiles "$scratch/tree/README.md"
caught "a file that doesn't exist is caught" 'tools/no-such-tool' missing "$scratch/tree/README.md"
caught "a command to run that doesn't exist is caught" 'bench/no-such-bench' missing "$scratch/tree/README.md"
caught "a subcommand that doesn't exist is caught" 'idem teleport' unknown "$scratch/tree/README.md"
finish
