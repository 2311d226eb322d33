#!/usr/bin/env bash
# tools/test itself, on a small tree of its own: what is fine counts, and each way in which a test can go wrong is noticed.
# timeout: 300 s
source "$(dirname "${BASH_SOURCE[0]}")/report.bash"

# The real build files and runner, a library of one function, no tests yet.
fresh_tree
cp -r "$root/CMakeLists.txt" "$root/cmake" "$root/include" "$scratch/tree/"
mkdir -p "$scratch/tree/tools" "$scratch/tree/tests/house"
cp "$root/tools/test" "$root/tools/setup" "$scratch/tree/tools/"
cp "$root/tests/CMakeLists.txt" "$scratch/tree/tests/"
cp "$root"/tests/house/*.awk "$scratch/tree/tests/house/"
plant src/base/one.c <<'END'
#include "idem.h"
const char *idem_version(void)
{
    return "0";
}
END
cmocka_head='#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>
#include "idem.h"
/* tsan */'
# plant_test NAME BODY: a cmocka test of two; BODY is what the second does.
plant_test() {
    plant "tests/unit/test_$1.c" <<END
$cmocka_head
static int shared;
static void *race(void *p)
{
    shared++;
    return p;
}
static void first(void **state)
{
    (void)state;
    (void)race;
    assert_string_equal(idem_version(), "0");
}
static void second(void **state)
{
    (void)state;
    shared = 1;
    $2
}
int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(first), cmocka_unit_test(second)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
END
}
# run ARGUMENTS...: tools/test of the small tree; sets said, status, last. Other tests use /dev/shm at the same time.
busy=1
run() {
    said=$(env -u IDEM -u IDEM_BUILD CI=true IDEM_TEST_SHM_BUSY=$busy IDEM_NO_SETUP=1 IDEM_BUILD_DIR="$scratch/build" \
        bash "$scratch/tree/tools/test" "$@" 2>&1)
    status=$?
    last=$(tail -n 1 <<<"$said")
}
# says NAME PATTERN: what tools/test printed has a line with PATTERN.
says() { grep -qE -- "$2" <<<"$said"; report "$1" $? "no line with '$2' in: $said"; }

plant_test fine ''
plant tests/cli/fine.sh <<<'echo "ok - one"; if [ -z "$IDEM_TEST_LONG" ]; then echo "ok - two"; fi'
run
[[ $status -eq 0 && $last == "10 passed, 0 failed, 0 skipped" ]]
report "all passed: exit status 0 and the one line, over all three builds" $? "status $status, $said"
run --only 'nothing is called so'
report "a pattern that matches nothing is an error" $((status == 0)) "$said"
run --only '^release:cli/' --long
[[ $status -eq 0 && $last == "1 passed, 0 failed, 0 skipped" ]]
report "--only chooses, --long is passed on" $? "status $status, $said"

# Everything that can go wrong, one test each.
plant_test fails 'assert_int_equal(1, 2);'
plant_test aborts 'abort();'
plant_test exits 'exit(0);'
plant_test hangs 'sleep(60);'
sed -i '1i /* timeout: 2 s */' "$scratch/tree/tests/unit/test_hangs.c"
plant_test child_undefined 'pid_t c = fork(); if (c == 0) { volatile int n = 2147483647; n = n + 1; _exit(0); } waitpid(c, NULL, 0);'
plant_test child_overflow 'pid_t c = fork(); if (c == 0) { volatile int n = 0; char *p = malloc(4); FILE *f = fopen("/dev/null", "w"); fwrite(p, 1, (size_t)(5 + n), f); fclose(f); _exit(0); } waitpid(c, NULL, 0);'
plant_test races 'pthread_t a; pthread_create(&a, NULL, race, NULL); race(NULL); pthread_join(a, NULL);'
plant_test skips 'print_message("skipped: no such tool\n"); skip();'
plant_test skips_kernel 'print_message("skipped (kernel): no such call\n"); skip();'
plant tests/cli/left_file.sh <<<"echo 'ok - one'; mkdir -p /dev/shm/idem-test-left-$$"
plant tests/cli/left_process.sh <<<'echo "ok - one"; sleep 60 &'
plant tests/cli/silent.sh <<<'exit 0'
plant tests/model/run.sh <<<'echo "not ok - one"; exit 1'
plant src/base/faults.h <<<'/* IDEM_FAULT("one.caught") IDEM_FAULT("one.missed") IDEM_FAULT("one.caught_by_who_fails") */'
plant_test catches 'print_message("caught: one.caught: it shows\n");'
plant_test catches_nothing 'print_message("caught: one.caught_by_who_fails: it shows\n"); assert_int_equal(1, 2);'
run
report "something failed: exit status 1" $((status != 1)) "status $status"
says "the last line counts" '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$'
says "a failed assertion is named" '^  release:unit/test_fails: second$'
says "its output is shown" '0x1 != 0x2'
says "an abort half way is a failure" '^  asan:unit/test_aborts: 2 checks were announced, 1 reported'
says "exit(0) half way is a failure" '^  asan:unit/test_exits: 2 checks were announced, 1 reported'
says "a hanging test is ended" '^  asan:unit/test_hangs: still ran after 2 s and was ended'
says "an overflow in a child that nobody asks is a failure" '^  asan:unit/test_child_overflow: a sanitizer reported something'
says "undefined behaviour in a child is a failure" '^  asan:unit/test_child_undefined: a sanitizer reported something'
says "a data race is a failure" '^  tsan:unit/test_races: a sanitizer reported something'
says "a process left behind is a failure" '^  release:cli/left_process.sh: left processes running'
says "a seeded fault that nobody catches is a failure" '^  seeded fault one.missed: no test catches it'
says "a seeded fault that only a failing test catches is a failure" '^  seeded fault one.caught_by_who_fails: no test catches it'
says "seeded faults are counted" '^3 seeded faults, 1 caught: '
grep -qxF '| one.caught | unit/test_catches | second | it shows |' "$scratch/build/faults.md"
report "who caught a seeded fault is told" $? "$(cat "$scratch/build/faults.md")"
says "silence is a failure" '^  asan:cli/silent.sh: reported no check at all'
says "a failed model check is a failure" '^  model:run.sh: one'
says "the kernel's skip is said aloud" 'skipped: release:unit/test_skips_kernel: second: \(kernel\) no such call'
if ((EUID == 0)); then
    says "as root in CI a skip is a failure" '^  release:unit/test_skips: second: skipped, which is not accepted here: no such tool'
fi
grep -qE '^  [a-z]+:(unit/test_fine|cli/fine)' <<<"$said"
report "what is fine is not blamed" $(($? == 0)) "$said"
rm -rf /dev/shm/idem-test-left-"$$"
busy=""
run --only '^release:cli/left_file'
says "a file left in /dev/shm is a failure" 'left in /dev/shm.*idem-test-left'
rm -rf /dev/shm/idem-test-left-"$$"
busy=1

# A build that fails counts, and what it didn't build is not run from an older build.
plant_test fine 'int unused;'
run --only 'asan:unit/test_(fine|fails)'
says "in CI a warning is an error" '^  build asan$'
says "a test that no longer compiles is not run in its old form" '^  asan:unit/test_fine: was not built$'
says "the other tests still run" '^  asan:unit/test_fails: second$'
finish
