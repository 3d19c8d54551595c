# shellcheck shell=bash
# The way back: what the sink has written is read from the database to a topic, each row once.

# Rows in the topic of the source, by series and time, and how many of them came twice. (A corrected aggregate comes again,
# with another value.)
rows_of_the_source() {
    records_of emergency_generators_influx -e | python3 -c 'import json, sys
rows, all = set(), []
for line in sys.stdin:
    _, _, at, key, value = line.rstrip("\n").split("\t")
    value = json.loads(value)
    assert value["generatorID"] == key and value["_measurement"] == "emergency_generators_1m", line
    rows.add((key, value["_field"], at))
    all.append((key, value["_field"], at, value["_value"]))
print(len(rows), len(all) - len(set(all)))'
}

# Yes, if these are all means of the database, each once. (Some generators have more fields than others.)
all_is_back() {
    local wanted
    wanted=$(stored_where 'r._measurement == "emergency_generators_1m" and r._field =~ /^fields_.*_mean/')
    [[ $(rows_of_the_source) == "$wanted 0" ]] && echo yes
}

verify_source() {
    [[ $have_influxdb == yes ]] || return 0
    until_is 60 yes "whether all means of the database are in the topic, each once" all_is_back
    say "back from the database: $(rows_of_the_source | sed 's/ 0$/ means of minutes, each once/')"
}

# After the sink has written what there is.
by_source() {
    [[ $have_influxdb == yes ]] || return 0
    say "the means of minutes come back from the database, the source killed meanwhile"
    bring_up "the source doesn't come up" source
    until_is 60 yes "a row of the source" a_row_is_back
    docker kill "$(container source)" >/dev/null
    docker start "$(container source)" >/dev/null
    verify_source
    until_is 60 healthy "source" healthy source
}

a_row_is_back() { [[ $(rows_of_the_source) == [1-9]* ]] && echo yes; }
