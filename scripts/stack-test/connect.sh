# shellcheck shell=bash
# `scripts/stack test connect`: the profile connect, with a killed worker of Kafka Connect. Only by name, as the step connect
# of scripts/test has the same without containers.

test_connect() {
    local began=$SECONDS
    if [[ $have_influxdb == no ]]; then
        say "NOT TESTED: Kafka Connect, as there is no InfluxDB (no Go to build it with)"
        return
    fi
    CONNECT_PLUGIN_DIR=$("$root/scripts/connect" plugin) || die "the plugin can't be built (see above)"
    export CONNECT_PLUGIN_DIR COMPOSE_PROFILES=connect
    "$root/scripts/certs" --out "$SECRETS_DIR" --passwords
    bring_up "Kafka Connect doesn't come up" --scale connect=2 kafka-1 kafka-2 kafka-3 topics influxdb influxdb-setup connect connect-setup
    until_is 120 0 "the end of connect-setup" exit_code_of connect-setup
    say "up after $((SECONDS - began)) s; 20,000 readings go to InfluxDB, a worker killed meanwhile"
    genwatch simulate --generators 100 --count 10000 --rate 0 >/dev/null
    until_is 60 10000 "readings in the database" stored emergency_generators fuel
    docker kill "$(container connect)" >/dev/null
    genwatch simulate --generators 100 --count 10000 --rate 1000 --seed 2 >/dev/null
    until_is 90 20000 "readings in the database after a worker was killed" stored emergency_generators fuel
    compose logs connect 2>/dev/null | grep -qF "$(<"$SECRETS_DIR/influxdb.token")" && die "the token is in Connect's log"
    all_are_confined
    say "Kafka Connect: $((SECONDS - began)) s"
}

exit_code_of() { docker inspect -f '{{if .State.Running}}running{{else}}{{.State.ExitCode}}{{end}}' "$(container "$1")"; }
