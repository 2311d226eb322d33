# table.awk - sets two storms side by side and judges them. Variables: with, without: files of NAME=VALUE lines made of the
# storm's summary, the pool's counters and the audit's counts. Exit status 0 only if nothing was charged twice or lost with
# idem, no answer differed, and the run was hard enough for that to mean something.

function load(file, into,    line, at) {
    while ((getline line < file) > 0) {
        at = index(line, "=")
        if (at) into[substr(line, 1, at - 1)] = substr(line, at + 1)
    }
    close(file)
}
function grouped(n,    s) {
    n = sprintf("%d", n)
    while (length(n) > 3) { s = "," substr(n, length(n) - 2) s; n = substr(n, 1, length(n) - 3) }
    return n s
}
function line(name, a, b) { printf "  %-46s %12s %12s\n", name, a, b }
function row(name, field) { line(name, grouped(A[field]), grouped(B[field])) }
function only(name, field) { line(name, grouped(A[field]), "-") }
function ms(us) { return sprintf("%.1f ms", us / 1000) }
# A figure that is missing is no zero: a run that left no summary must not pass.
function must_be(field, want, what) {
    if (!(field in A) || A[field] != want) bad(sprintf("%s: %s, not %s", what, (field in A) ? A[field] : "unknown", want))
}
function at_least(value, known, want, what) {
    if (!known || value + 0 < want) weak(sprintf("%s: %s, fewer than %d", what, known ? value : "unknown", want))
}
function bad(why) { print "NOT OK: " why; failed = 1 }
function weak(why) { print "NOT HARD ENOUGH: " why; failed = 1 }

BEGIN {
    load(with, A); load(without, B)
    print ""
    line("", "with idem", "--no-idem")
    row("requests sent", "storm_requests")
    row("keys (orders)", "storm_orders")
    row("charges in the ledger", "audit_charges")
    row("DOUBLE CHARGES", "audit_double")
    row("LOST CHARGES", "audit_lost")
    row("answers that differ from their key's first", "audit_different")
    line("changed bodies refused (422)", grouped(A["storm_changed_refused"]) " of " grouped(A["storm_changed_sent"]),
         grouped(B["storm_changed_refused"]) " of " grouped(B["storm_changed_sent"]))
    row("answers lost on purpose", "storm_lost_answers")
    only("replays", "pool_replays")
    only("waits for a running attempt", "pool_waits")
    only("takeovers", "pool_takeovers")
    only("  already charged, said the mark", "pool_by_mark")
    only("  already charged, said the ledger", "pool_by_ledger")
    only("  not charged yet", "pool_not_charged")
    only("late owners fenced", "pool_fenced")
    if (A["pool_unavailable"] + B["pool_unavailable"] > 0)
        row("requests refused for another reason (503)", "pool_unavailable")
    row("workers killed", "pool_killed")
    row("  between ledger write and complete", "pool_killed_between")
    row("workers stopped for longer than a lease", "pool_stopped")
    only("invariants of the store violated at the end", "pool_store_problems")
    line("p50", ms(A["storm_p50_us"]), ms(B["storm_p50_us"]))
    line("p99 (slow handlers and waits included)", ms(A["storm_p99_us"]), ms(B["storm_p99_us"]))
    row("requests/s", "storm_requests_per_second")
    print ""

    must_be("audit_double", 0, "double charges")
    must_be("audit_lost", 0, "lost charges")
    must_be("audit_wrong_charge", 0, "acknowledged charges that are not in the ledger")
    must_be("audit_wrong_amount", 0, "charges over a wrong amount")
    must_be("audit_different", 0, "answers that differ from their key's first")
    must_be("storm_different_bodies", 0, "answers that differ, as the storm saw them")
    must_be("audit_torn", 0, "torn lines")
    must_be("storm_wrong_answers", 0, "unexpected answers")
    must_be("storm_changed_accepted", 0, "changed bodies accepted")
    must_be("storm_unanswered", 0, "requests without a definite answer")
    must_be("audit_acknowledged", A["storm_orders"], "orders acknowledged")
    must_be("pool_store_problems", 0, "invariants of the store that do not hold (idem_verify)")
    must_be("pool_crashed", 0, "workers that ended by themselves")
    at_least(A["pool_takeovers"], "pool_takeovers" in A, 20, "takeovers")
    at_least(A["pool_killed_between"], "pool_killed_between" in A, 10, "workers killed between ledger write and complete")
    at_least(B["audit_double"], "audit_double" in B, 1, "double charges without idem")
    if (failed) exit 1

    printf "With idem each of %s orders was charged exactly once: %s requests, %s workers killed, %s of them after the\n",
        grouped(A["storm_orders"]), grouped(A["storm_requests"]), grouped(A["pool_killed"]),
        grouped(A["pool_killed_between"])
    printf "charge and before its answer was stored; %s takeovers then asked mark and ledger instead of charging again.\n",
        grouped(A["pool_takeovers"])
    printf "The same handler without idem charged %s times too often.\n", grouped(B["audit_double"])
}
