# shellcheck shell=bash
# The loop is closed: the aggregates of each minute are back in Kafka, soon, once, and equal to a batch over the readings.

# `downsample` in the stack has this --grace.
grace_ms=10000
# How a consumer in the stack's network reaches the brokers.
consumer=()
# Periods in which brokers or members of the group are away: how soon an aggregate comes isn't judged.
trouble=()

milliseconds() { date +%s%3N; }

trouble_begins() { trouble+=("$(milliseconds)"); }

trouble_ends() { trouble[-1]+=-$(milliseconds); }

# Starts a consumer of committed records, which notes when it sees each aggregate.
watch_aggregates() { # KCAT-OPTIONS...
    consumer=("$@")
    trouble=()
    records_of emergency_generators_1m -E -u 2>"$scratch/watching" | python3 "$root/scripts/stack-test/aggregates.py" watch >"$scratch/seen" &
}

records_of() { # TOPIC KCAT-OPTIONS...
    docker exec "$stranger" kcat "${consumer[@]}" -C -t "$1" -o beginning -q -X isolation.level=read_committed "${@:2}" -f '%p\t%o\t%T\t%k\t%s\n'
}

aggregates_behind() { inside status --group genwatch_1m | awk '$1 ~ /^[0-9]+$/ && $NF != "OK" { n++ } END { print n + 0 }'; }

# Waits for the first window to be due: a minute, the grace, and what it may take.
first_window_is_due() {
    local first
    first=$(records_of emergency_generators -c 1 | cut -f 3)
    until (($(milliseconds) > first / 60000 * 60000 + 60000 + grace_ms + 6000)); do sleep 0.5; done
}

verify_aggregates() {
    say "all windows that are due are compared with a batch over the readings"
    local now
    now=$(milliseconds)
    records_of emergency_generators -e >"$scratch/readings" && records_of emergency_generators_1m -e >"$scratch/aggregates" ||
        die "kcat can't read readings and aggregates"
    python3 "$root/scripts/stack-test/aggregates.py" compare --readings "$scratch/readings" --aggregates "$scratch/aggregates" \
        --seen "$scratch/seen" --now "$now" --grace "$grace_ms" "${trouble[@]/#/--trouble=}" >"$scratch/compared" ||
        { cat "$scratch/compared" "$scratch/watching" >&2; die "the aggregates aren't what the readings come to"; }
    say "$(<"$scratch/compared")"
    [[ $have_influxdb == no ]] || until_is 60 yes "aggregates in the database" are_stored "$(sed 's/ .*//' "$scratch/compared")"
}

# The sink goes on, so there may be more by now.
are_stored() { # AGGREGATES
    (($(stored emergency_generators_1m count) >= $1)) && echo yes
}
