# shellcheck shell=bash
# The plain stack: scaled out, broken, and compared with a serial evaluation.

# Lag, and how fast it grows, over some seconds.
measure() { # REPLICAS SECONDS
    local before after slope
    before=$(lag)
    sleep "$2"
    after=$(lag)
    slope=$(((after - before) / $2))
    printf '| %s | %s | %s | %+d |\n' "$1" "$before" "$after" "$slope" | tee -a "$scratch/table" >&2
    echo "$slope"
}

scale_to() {
    bring_up "scaling failed" --no-recreate --scale "worker=$1" worker
    until_is 60 "$1" "workers with partitions" owners
}

scale_out() {
    say "1,000 readings a second, 2 ms each, one after the other: what one worker can't hold"
    printf '| workers | lag before | lag after | grows by, a second |\n' >&2
    local one two three
    until_is 60 1 "workers with partitions" owners
    one=$(measure 1 10)
    scale_to 2
    two=$(measure 2 10)
    scale_to 3
    three=$(measure 3 10)
    ((one > 200)) || die "one worker should fall behind by about 500 a second, not $one"
    ((two < one)) || die "two workers should fall behind less than one ($two, $one)"
    ((three < 0 && three < one - 400)) || die "three workers should catch up, and fall behind by $three a second"
}

metrics_of_all() { # JOB
    curl -sf --max-time 5 -G "http://$(address_of "$(container prometheus)"):9090/api/v1/query" --data-urlencode "query=count(up{job=\"$1\"} == 1)" |
        sed -n 's/.*"value":\[[0-9.]*,"\([0-9]*\)"\].*/\1/p'
}

break_brokers() {
    say "one of three brokers is killed: the work goes on"
    trouble_begins
    docker kill "$(container kafka-2)" >/dev/null
    until_is 60 yes "commits go on without a broker" commits_go_on
    say "a second one: nothing can be acknowledged twice, so nothing is committed"
    docker kill "$(container kafka-3)" >/dev/null
    local deadline=$((SECONDS + 60)) before
    while before=$(commits); sleep 5; (($(commits) != before)); do
        ((SECONDS < deadline)) || die "commits go on with one broker of three"
    done
    say "one returns: all goes on by itself"
    docker start "$(container kafka-3)" >/dev/null
    until_is 120 yes "commits go on again" commits_go_on
    docker start "$(container kafka-2)" >/dev/null
    until_is 90 healthy "kafka-2" healthy kafka-2
}

break_worker() {
    say "a worker is killed, and half of those that make aggregates: their partitions move"
    local began=$SECONDS
    docker kill "$(workers | tail -n 1)" "$(compose ps -q downsample | tail -n 1)" >/dev/null
    until_is 60 2 "workers with partitions" owners
    until_is 60 0 "partitions without a worker" unowned
    until_is 30 "12 by 2" "partitions on the page" seen_on_the_page "$root/deploy/compose/dashboard.token"
    until_is 60 1 "members of the group of aggregates" owners --group genwatch_1m
    until_is 60 0 "partitions without aggregates" unowned --group genwatch_1m
    say "moved within $((SECONDS - began)) s"
    until_is 60 0 "partitions whose aggregates are behind" aggregates_behind
    trouble_ends
}

# Readings reach the brokers through MQTT, while the bridge is killed.
by_mqtt() {
    local wanted
    wanted=$(($(committed) + 10000))
    say "10,000 readings by MQTT, the bridge killed meanwhile"
    trouble_begins
    bring_up "the bridge doesn't come up" mosquitto bridge
    until_is 60 yes "the bridge's subscription" bridge_listens
    inside simulate --to mqtt --mqtt mqtt://mosquitto:1883 --generators 200 --count 10000 --rate 4000 >"$scratch/simulated" 2>&1 &
    local simulating=$!
    until_is 30 yes "readings by MQTT" more_than $((wanted - 10000))
    docker kill "$(container bridge)" >/dev/null
    wait "$simulating" || { cat "$scratch/simulated" >&2; die "not all readings were delivered to the MQTT broker"; }
    docker start "$(container bridge)" >/dev/null
    until_is 90 yes "all readings that came by MQTT" more_than $((wanted - 1))
    trouble_ends
}

bridge_listens() { compose logs bridge | grep -c "connected to the MQTT broker" >/dev/null && echo yes; }

more_than() { (($(committed) > $1)) && echo yes; }

# All verified data arrives in the database, once, while the sink is killed.
by_sink() {
    if [[ $have_influxdb == no ]]; then
        say "NOT TESTED: the sink, as there is no InfluxDB (no Go to build it with)"
        return
    fi
    say "the database without its password: a clear line, and nothing starts"
    if compose up -d --no-build influxdb-setup >"$scratch/up.log" 2>&1; then die "influxdb-setup starts without its secrets"; fi
    grep -q 'influxdb\.\(password\|token\)' "$scratch/up.log" || { cat "$scratch/up.log" >&2; die "nothing says that influxdb.password is missing"; }
    say "$records readings and $alerts alerts go to a database, the sink killed meanwhile"
    "$root/scripts/certs" --out "$SECRETS_DIR" --passwords
    bring_up "the sink doesn't come up" influxdb sink
    until_is 60 yes "points of the sink" sink_has_written
    docker kill "$(container sink)" >/dev/null
    docker start "$(container sink)" >/dev/null
    until_is 90 "$records" "readings in the database" stored emergency_generators fuel
    until_is 30 "$alerts" "alerts in the database" stored emergency_generators_alerts value
    until_is 30 0 "lag of the sink" sink_lag
}

stop_orderly() {
    local worker code
    worker=$(workers | sed -n 1p)
    docker stop -t 30 "$worker" >/dev/null
    code=$(docker inspect -f '{{.State.ExitCode}}' "$worker")
    [[ $code == 0 ]] || die "a worker that is stopped ends with code $code"
}

# As a person at this machine would, with tools of Kafka's ecosystem.
look_from_the_host() {
    if ! command -v kcat >/dev/null; then
        say "NOT TESTED: the brokers' ports on this machine, as there is no kcat"
        return
    fi
    say "kcat on this machine sees three brokers and the alerts"
    local brokers
    brokers=$(kcat -b "localhost:$KAFKA_1_PORT" -L -m 10 | grep -c " broker [0-9]* at localhost:\($KAFKA_1_PORT\|$KAFKA_2_PORT\|$KAFKA_3_PORT\)")
    [[ $brokers == 3 ]] || die "kcat sees $brokers brokers"
    kcat -b "localhost:$KAFKA_2_PORT" -C -t emergency_generators_alerts -o beginning -c 1 -e -q -m 20 >"$scratch/alert" && grep -q generatorID "$scratch/alert" ||
        die "kcat reads no alert"
}

# Each alarm fires when it should, and none when all is well.
check_alarms() {
    docker run --rm --entrypoint promtool -v "$root/deploy/compose/prometheus:/etc/prometheus:ro" --workdir /etc/prometheus \
        "$PROMETHEUS_IMAGE" test rules alerts.test.yml >"$scratch/alarms" 2>&1 || { cat "$scratch/alarms" >&2; die "the alarms aren't what their test says"; }
}

test_plain() {
    local began=$SECONDS
    check_alarms
    # Of readings that come late, as brokers are away, none is missing in the end.
    export GENWATCH_CONCURRENCY=1 GENWATCH_TO=kafka GENWATCH_LATE=correct
    bring_up "the stack doesn't come up" --scale downsample=2 kafka-1 kafka-2 kafka-3 topics simulator worker downsample prometheus dashboard
    say "up after $((SECONDS - began)) s"
    stranger=$(docker run -d --network "${COMPOSE_PROJECT_NAME}_default" local/clients sleep infinity)
    watch_aggregates -b kafka-1:9092,kafka-2:9092,kafka-3:9092
    scale_out
    until_is 60 healthy "prometheus" healthy prometheus
    until_is 60 3 "workers that Prometheus has found" metrics_of_all worker
    until_is 60 2 "services of aggregates that Prometheus has found" metrics_of_all downsample
    until_is 60 healthy "downsample" healthy downsample
    until_is 60 healthy "dashboard" healthy dashboard
    until_is 30 "12 by 3" "partitions on the page" seen_on_the_page "$root/deploy/compose/dashboard.token"
    dashboard_is_shut
    break_brokers
    break_worker
    compose stop simulator >/dev/null 2>&1
    say "the two remaining workers are replaced by ones that handle 64 generators at once: the backlog is soon processed"
    export GENWATCH_CONCURRENCY=64
    bring_up "the workers don't return" --no-deps --scale worker=2 --scale downsample=2 worker downsample
    verify
    look_from_the_host
    # Before readings that a bridge may repeat: InfluxDB keeps a point written twice once.
    by_sink
    by_source
    by_mqtt
    verify
    verify_aggregates
    verify_source
    all_are_confined
    stop_orderly
    say "the plain stack: $((SECONDS - began)) s"
}
