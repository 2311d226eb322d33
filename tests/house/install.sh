#!/usr/bin/env bash
# What `cmake --install` puts down can be used: by pkg-config, by find_package, shared and static, from C and from C++;
# the shared library exports what the header declares and nothing else; man pages and completion are there.
# IDEM_BUILD is a Release build of the tree (tools/test sets it; by hand: IDEM_BUILD=build tests/house/install.sh).
# timeout: 120 s
source "$(dirname "${BASH_SOURCE[0]}")/report.bash"
build=${IDEM_BUILD:?set it to a build directory of this tree}
prefix=$scratch/prefix

said=$(cmake --install "$build" --prefix "$prefix" 2>&1)
report "the tree installs into a prefix of one's own" $? "$said"
libdir=$(dirname "$(find "$prefix" -name libidem.so)")
export PKG_CONFIG_PATH=$libdir/pkgconfig

# declared HEADER, exported LIBRARY: names, one a line, sorted.
declared() {
    # Preprocessed, so that names in comments don't count; each declaration begins with the export attribute.
    "${CC:-cc}" -E -P "$1" | tr '\n' ' ' | grep -oE 'visibility\("default"\)\)\) [^;]*;' |
        grep -oE 'idem_[a-z0-9_]+ ?\(' | tr -d ' (' | sort -u
}
exported() { nm -D --defined-only "$1" | awk '$2 != "A" { sub(/@.*/, "", $3); print $3 }' | sort -u; }
# contract HEADER LIBRARY: one line for each difference.
contract() {
    comm -3 <(declared "$1") <(exported "$2") | awk -F'\t' '{ print ($1 != "" ? $1 ": declared, not exported" : $2 ": exported, not declared") }'
}
clean "the shared library exports what the header declares and nothing else" contract "$prefix/include/idem.h" "$libdir/libidem.so"
said=$(declared "$prefix/include/idem.h" | wc -l)
report "the header declares functions at all" $((said < 20)) "found only $said"

# The same check on a library that exports one function too many, and one too few.
plant leaky.c <<'END'
#include <idem.h>
const char *idem_version(void) { return ""; }
int leaked_helper(void) { return 1; }
END
cc -shared -fPIC -I "$prefix/include" -o "$scratch/leaky.so" "$scratch/tree/leaky.c"
caught "a function exported by mistake is caught" 'leaked_helper: exported, not declared' contract "$prefix/include/idem.h" "$scratch/leaky.so"
caught "a declared function that is missing is caught" 'idem_open: declared, not exported' contract "$prefix/include/idem.h" "$scratch/leaky.so"

said=$(readelf -d "$libdir/libidem.so" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p')
[[ $said == libidem.so.0 && -e $libdir/$said ]]
report "the shared library is called libidem.so.0" $? "SONAME $said"

fresh_tree
plant use.c <<'END'
#include <idem.h>
#include <stdio.h>
#include <string.h>
int main(int argc, char **argv)
{
    idem_options options = IDEM_OPTIONS_INIT;
    idem_request request = IDEM_REQUEST_INIT;
    idem_reply reply = IDEM_REPLY_INIT;
    idem_store *store;
    idem_claim claim;
    options.flags = IDEM_OPEN_CREATE;
    options.keys = 100;
    if (argc != 2 || idem_open(argv[1], &options, &store) != IDEM_OK)
        return fprintf(stderr, "%s\n", idem_error_detail()), 1;
    request.key.key = "order-1", request.key.key_bytes = strlen("order-1");
    int verdict = idem_begin(store, &request, &claim, &reply);
    idem_close(store);
    int gone = idem_destroy(argv[1]);
    printf("%s %d %d\n", idem_version(), verdict, gone);
    return !(verdict == IDEM_CLAIMED && gone == IDEM_OK);
}
END
plant use.cpp <<'END'
#include <idem.h>
#include <cstdio>
int main()
{
    idem_options options = IDEM_OPTIONS_INIT;
    idem_request request = IDEM_REQUEST_INIT;
    idem_reply reply = IDEM_REPLY_INIT;
    idem_response response = IDEM_RESPONSE_INIT;
    idem_story story = IDEM_STORY_INIT;
    idem_report report = IDEM_REPORT_INIT;
    std::printf("%s %s\n", idem_version(), idem_strerror(IDEM_E_FULL));
    return options.size + request.size + reply.size + response.size + story.size + report.size == 0;
}
END
plant CMakeLists.txt <<'END'
cmake_minimum_required(VERSION 3.20)
project(use C)
find_package(idem 0.1 REQUIRED)
add_executable(use use.c)
target_link_libraries(use idem::idem)
add_executable(use-static use.c)
target_link_libraries(use-static idem::idem_static)
END
# A host that loads what it needs while it runs: a plugin's liburcu first, used, then libidem. (glibc has little room for
# initial-exec thread storage then; late.c is built without either library.)
plant late.c <<'END'
#include <dlfcn.h>
#include <stdio.h>
int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        void *library = dlopen(argv[i], RTLD_NOW | RTLD_LOCAL);
        if (library == NULL)
            return fprintf(stderr, "%s\n", dlerror()), 1;
        void (*lock)(void), (*unlock)(void);
        *(void **)&lock = dlsym(library, "urcu_bp_read_lock");
        *(void **)&unlock = dlsym(library, "urcu_bp_read_unlock");
        if (lock && unlock)
            lock(), unlock();
        const char *(*version)(void);
        *(void **)&version = dlsym(library, "idem_version");
        if (version)
            puts(version());
    }
    return 0;
}
END
plant twice.c <<'END'
/* The library, twice in one process: STORE LIBRARY COPY. Two plugins of a host may each bring their own. */
#include <dlfcn.h>
#include <idem.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>
struct copy {
    int (*open)(const char *, const idem_options *, idem_store **);
    void (*close)(idem_store *);
    int (*begin)(idem_store *, const idem_request *, idem_claim *, idem_reply *);
    int (*complete)(idem_store *, const idem_claim *, const idem_response *);
    idem_store *store;
};
static int load(struct copy *c, const char *path)
{
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL)
        return fprintf(stderr, "%s\n", dlerror()), 1;
    *(void **)&c->open = dlsym(library, "idem_open");
    *(void **)&c->close = dlsym(library, "idem_close");
    *(void **)&c->begin = dlsym(library, "idem_begin");
    *(void **)&c->complete = dlsym(library, "idem_complete");
    return 0;
}
static int begin(struct copy *c, const char *key, idem_claim *claim)
{
    idem_request rq = IDEM_REQUEST_INIT;
    rq.key = (idem_key){"", 0, key, 1};
    return c->begin(c->store, &rq, claim, NULL);
}
#define IS(call, wanted) \
    do { \
        int got = (call); \
        if (got != (wanted)) \
            return fprintf(stderr, "%s is %d, not %d\n", #call, got, wanted), 1; \
    } while (0)
int main(int argc, char **argv)
{
    struct copy a, b;
    idem_claim claim, other;
    idem_options o = IDEM_OPTIONS_INIT;
    int status;
    o.flags = IDEM_OPEN_CREATE;
    o.keys = 1000;
    if (argc != 4 || load(&a, argv[2]) || load(&b, argv[3]) || a.begin == b.begin)
        return fprintf(stderr, "not loaded twice\n"), 1;
    IS(a.open(argv[1], &o, &a.store), IDEM_OK);
    IS(b.open(argv[1], &o, &b.store), IDEM_OK);
    IS(begin(&a, "k", &claim), IDEM_CLAIMED);
    IS(begin(&b, "k", &other), IDEM_IN_PROGRESS); /* the other copy's claim is a living owner's */
    pid_t pid = fork();
    if (pid == 0) {
        IS(begin(&a, "k", &other), IDEM_IN_PROGRESS);
        IS(begin(&b, "k", &other), IDEM_IN_PROGRESS);
        IS(begin(&a, "c", &other), IDEM_CLAIMED);
        IS(begin(&b, "c", &other), IDEM_IN_PROGRESS);
        _exit(0);
    }
    IS(waitpid(pid, &status, 0), pid);
    IS(status, 0);
    IS(begin(&b, "c", &other), IDEM_RECLAIMED);
    IS(begin(&b, "k", &other), IDEM_IN_PROGRESS);
    a.close(a.store);
    IS(begin(&b, "k", &other), IDEM_RECLAIMED);
    idem_response r = IDEM_RESPONSE_INIT;
    IS(b.complete(b.store, &other, &r), IDEM_OK);
    IS(a.open(argv[1], &o, &a.store), IDEM_OK);
    IS(a.complete(a.store, &claim, &r), IDEM_E_LOST);
    IS(begin(&a, "k", &claim), IDEM_REPLAY);
    a.close(a.store);
    b.close(b.store);
    return 0;
}
END
tree=$scratch/tree
# use PROGRAM: run it on a store of its own.
stores=$(mktemp -d /dev/shm/idem-test-XXXXXX)
trap 'rm -rf "$scratch" "$stores"' EXIT
use() { LD_LIBRARY_PATH=$libdir "$1" "$stores/s" 2>&1; }

said=$(pkg-config --modversion idem 2>&1)
[[ $said == "$(sed -n 's/^#define IDEM_VERSION_M.* //p; s/^#define IDEM_VERSION_P.* //p' "$prefix/include/idem.h" | paste -sd.)" ]]
report "idem.pc has the header's version" $? "$said"
said=$(cc -std=c11 -Wall -Wextra -Wpedantic -Werror $(pkg-config --cflags idem) "$tree/use.c" -o "$tree/pc" $(pkg-config --libs idem) 2>&1 && use "$tree/pc")
report "a C program built with pkg-config claims a key" $? "$said"
said=$(cc -std=c11 $(pkg-config --cflags idem) "$tree/use.c" -o "$tree/pcs" -Wl,-Bstatic $(pkg-config --libs idem) -Wl,-Bdynamic \
    $(pkg-config --static --libs idem | sed 's/-lidem//') 2>&1 && ! readelf -d "$tree/pcs" | grep 'libidem' && use "$tree/pcs")
report "the same program linked statically claims a key" $? "$said"
said=$(c++ -std=c++17 -Wall -Wextra -Wpedantic -Werror $(pkg-config --cflags idem) "$tree/use.cpp" -o "$tree/cpp" $(pkg-config --libs idem) 2>&1 && use "$tree/cpp")
report "a C++ program includes idem.h, initialisers too, without a warning" $? "$said"
if command -v ninja >/dev/null; then export CMAKE_GENERATOR=Ninja; fi
said=$(cmake -S "$tree" -B "$tree/b" -DCMAKE_PREFIX_PATH="$prefix" 2>&1 && cmake --build "$tree/b" 2>&1 && use "$tree/b/use" && use "$tree/b/use-static")
report "find_package(idem) gives idem::idem and idem::idem_static" $? "$said"
said=$(cc -std=c11 -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Werror -fsyntax-only -x c "$prefix/include/idem.h" 2>&1)
report "idem.h compiles alone as strict C11" $? "$said"

# thread_storage LIBRARY: a line if it is more than dlopen() surely has room for.
thread_storage() {
    local bytes
    bytes=$(readelf -lW "$1" | awk '$1 == "TLS" { print $6 }')
    ((${bytes:-0} <= 64)) || echo "thread storage of $((bytes)) bytes; at most 64"
}
clean "the library's thread storage is small enough to be loaded late" thread_storage "$libdir/libidem.so"
plant fat.c <<'END'
_Thread_local char fat[100];
char *use_it(void) { return fat; }
END
cc -shared -fPIC -o "$scratch/fat.so" "$tree/fat.c"
caught "a library with more of it is caught" 'thread storage of 100 bytes' thread_storage "$scratch/fat.so"
said=$(cc -std=gnu11 -Wall -Werror "$tree/late.c" -o "$tree/late" -ldl 2>&1 && "$tree/late" liburcu-bp.so.8 "$libdir/libidem.so" 2>&1)
report "a program that has used liburcu from a plugin can load the library late" $? "$said"

cp "$libdir/libidem.so" "$scratch/copy.so"
said=$(cc -std=gnu11 -Wall -Werror $(pkg-config --cflags idem) "$tree/twice.c" -o "$tree/twice" -ldl 2>&1 &&
    timeout 60 "$tree/twice" "$stores/twice" "$libdir/libidem.so" "$scratch/copy.so" 2>&1)
report "two copies of the library in one process see each other's claims, and each other's ends" $? "$said"

said=$("$prefix/bin/idem" version 2>&1)
report "the installed command runs" $? "$said"
missing=$(for page in "$root"/tools/idem/man/*.1; do [[ -e $prefix/share/man/man1/$(basename "$page") ]] || echo "$page"; done)
[[ -z $missing && -e $prefix/share/man/man1/idem.1 ]]
report "the man pages are installed, idem.1 among them" $? "missing: ${missing:-idem.1}"
[[ -e $prefix/share/bash-completion/completions/idem ]]
report "bash completion is installed" $? "no $prefix/share/bash-completion/completions/idem"
said=$(find "$prefix" -type f \( -name '*testing*' -o -name '*test_*' \))
report "nothing made for tests is installed" ${#said} "$said"
finish
