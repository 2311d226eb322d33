# table.awk - sets two storms side by side and judges them, for each act. Variables: with, without: act 1; logged, unlogged:
# act 2; gated, ungated: with nginx (empty: not played). Each is a file of NAME=VALUE lines made of the storm's summary, the pool's counters and the
# audit's counts. Exit status 0 only if in the left column nothing was charged twice or lost, no answer differed, and the run
# was hard enough for that to mean something.

# Returns how many values there are.
function load(file, into,    line, at, n) {
    delete into
    while ((getline line < file) > 0) {
        at = index(line, "=")
        if (at) into[substr(line, 1, at - 1)] = substr(line, at + 1)
        n += at > 0
    }
    close(file)
    return n
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
    if (!known || value + 0 < want + 0) weak(sprintf("%s: %s, fewer than %d", what, known ? value : "unknown", want))
}
function bad(why) { print "NOT OK: " why; failed = 1 }
function weak(why) { print "NOT HARD ENOUGH: " why; failed = 1 }

# What must hold in the left column of either act.
function none_wrong(proven) {
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
    must_be(proven, 0, "invariants of the store that do not hold (idem_verify)")
    must_be("pool_crashed", 0, "workers that ended by themselves")
}

# What either act is about.
function charged() {
    row("requests sent", "storm_requests")
    row("keys (orders)", "storm_orders")
    row("charges in the ledger", "audit_charges")
    row("DOUBLE CHARGES", "audit_double")
    row("LOST CHARGES", "audit_lost")
    row("answers that differ from their key's first", "audit_different")
}
function act_1() {
    if (!load(with, A)) { bad("the storm came to no end, so there is nothing to count"); return }
    load(without, B)
    print ""
    line("act 1: workers are killed", "with idem", "--no-idem")
    charged()
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

    none_wrong("pool_store_problems")
    at_least(A["pool_takeovers"], "pool_takeovers" in A, 20, "takeovers")
    at_least(A["pool_killed_between"], "pool_killed_between" in A, 10, "workers killed between ledger write and complete")
    at_least(B["audit_double"], "audit_double" in B, 1, "double charges without idem")
    if (failed) return
    printf "With idem each of %s orders was charged exactly once: %s requests, %s workers killed, %s of them after the\n",
        grouped(A["storm_orders"]), grouped(A["storm_requests"]), grouped(A["pool_killed"]),
        grouped(A["pool_killed_between"])
    printf "charge and before its answer was stored; %s takeovers then asked mark and ledger instead of charging again.\n",
        grouped(A["pool_takeovers"])
    printf "The same handler without idem charged %s times too often.\n", grouped(B["audit_double"])
}

# Answers to orders sent once more that did not come out of the store.
function fresh(counts) {
    if (("again_acknowledgements" in counts) && ("again_replays_seen" in counts))
        counts["again_fresh"] = counts["again_acknowledgements"] - counts["again_replays_seen"]
}
# Charges that were in the ledger when a reboot took their worker.
function cut_off(counts) { return counts["pool_by_mark"] + counts["pool_by_ledger"] }
function opening(counts) { return counts["pool_reboots"] > 0 ? ms(counts["pool_back_us"] / counts["pool_reboots"]) : "-" }
function act_2() {
    if (!load(logged, A)) { bad("the reboots came to no end, so there is nothing to count"); return }
    load(unlogged, B)
    fresh(A); fresh(B)
    print ""
    line("act 2: the machine reboots", "with a log", "without")
    charged()
    row("reboots: all killed, the store removed", "pool_reboots")
    row("  answers brought back, over all reboots", "pool_back_answers")
    row("  keys brought back as lost in the middle", "pool_back_running")
    line("  opening the store, mean", opening(A), opening(B))
    row("takeovers of keys lost in a reboot", "pool_after_crash")
    row("  already charged, said the mark", "pool_by_mark")
    row("  already charged, said the ledger", "pool_by_ledger")
    row("  not charged yet", "pool_not_charged")
    row("orders sent once more after the last reboot", "again_orders")
    row("  their requests that got a replay", "again_replays_seen")
    row("  their requests that got anything else", "again_fresh")
    row("invariants of the store violated at the end", "pool_store_problems")
    line("p50", ms(A["storm_p50_us"]), ms(B["storm_p50_us"]))
    line("p99 (slow handlers, waits, reboots included)", ms(A["storm_p99_us"]), ms(B["storm_p99_us"]))
    row("requests/s, the reboots included", "storm_requests_per_second")
    print ""

    none_wrong("pool_store_problems")
    must_be("again_different_bodies", 0, "answers that differ after the last reboot, as the storm saw them")
    must_be("again_unanswered", 0, "requests without a definite answer after the last reboot")
    must_be("again_changed_accepted", 0, "changed bodies accepted after the last reboot")
    must_be("again_fresh", 0, "orders not answered from the rebuilt store after the last reboot")
    must_be("again_acknowledged", A["storm_orders"], "orders answered once more")
    at_least(A["pool_reboots"], "pool_reboots" in A, 4, "reboots, the last one included")
    at_least(A["pool_back_answers"], "pool_back_answers" in A, A["storm_orders"], "answers brought back from the log")
    at_least(A["pool_after_crash"], "pool_after_crash" in A, 10, "keys taken over that were in progress at a reboot")
    at_least(cut_off(A), "pool_by_mark" in A, 1, "charges that a reboot cut off before completion")
    at_least(B["audit_double"], "audit_double" in B, 1, "double charges without a log")
    if (failed) return
    printf "With a log %s orders were charged exactly once over %s reboots: every answer came back, and so did %s keys that\n",
        grouped(A["storm_orders"]), grouped(A["pool_reboots"]), grouped(A["pool_after_crash"])
    printf "were in progress, %s of them with their charge made and not yet acknowledged.\n", grouped(cut_off(A))
    printf "The same pool without a log charged %s times too often.\n", grouped(B["audit_double"])
}

function act_nginx() {
    if (!load(gated, A)) { bad("the storm came to no end, so there is nothing to count"); return }
    load(ungated, B)
    print ""
    line("nginx before a plain service", "idem on", "idem off")
    charged()
    line("changed bodies refused (422)", grouped(A["storm_changed_refused"]) " of " grouped(A["storm_changed_sent"]),
         grouped(B["storm_changed_refused"]) " of " grouped(B["storm_changed_sent"]))
    row("answers lost on purpose", "storm_lost_answers")
    only("replays given out by nginx", "nginx_replayed")
    row("nginx's workers killed", "nginx_killed")
    row("  configuration read again", "nginx_reloads")
    row("the service's workers killed", "pool_killed")
    row("  between charge and answer", "pool_killed_between")
    only("requests told \"outcome unknown\" (409)", "nginx_unknown")
    line("keys held, their outcome not known", grouped(A["settle_charged"] + A["settle_uncharged"] + A["settle_left"]), "-")
    only("  charge found in the ledger: answer made of it", "settle_charged")
    only("  no charge, its deadline over: released", "settle_uncharged")
    only("  left held at the end", "settle_left")
    only("invariants of the store violated at the end", "nginx_store_verified")
    line("p50", ms(A["storm_p50_us"]), ms(B["storm_p50_us"]))
    line("p99 (slow handlers and waits included)", ms(A["storm_p99_us"]), ms(B["storm_p99_us"]))
    row("requests/s", "storm_requests_per_second")
    print ""

    none_wrong("nginx_store_verified")
    must_be("settle_left", 0, "keys held at the end")
    must_be("audit_unacknowledged", 0, "orders charged and never acknowledged")
    at_least(A["nginx_killed"], "nginx_killed" in A, 8, "workers of nginx killed")
    at_least(A["settle_charged"], "settle_charged" in A, 5, "keys settled because their charge was found")
    at_least(B["audit_double"], "audit_double" in B, 1, "double charges with idem off")
    if (failed) return
    printf "Behind nginx with idem each of %s orders was charged exactly once by a service that charges whenever it is asked:\n",
        grouped(A["storm_orders"])
    printf "%s requests, %s workers of nginx killed. Of %s keys nobody could know whether they were charged: nginx said so,\n",
        grouped(A["storm_requests"]), grouped(A["nginx_killed"]), grouped(A["settle_charged"] + A["settle_uncharged"])
    printf "and a look into the ledger settled them: %s were. With idem off the same service charged %s times too often.\n",
        grouped(A["settle_charged"]), grouped(B["audit_double"])
}

BEGIN {
    if (with == "" && logged == "" && gated == "") bad("nothing was played")
    if (with != "") act_1()
    if (logged != "") act_2()
    if (gated != "") act_nginx()
    exit failed
}
