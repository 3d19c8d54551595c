# shellcheck shell=bash
# The secured stack: it works, and refuses every client the rights of others.

# In the stack's network, with all secrets: the test checks what each of them opens.
in_network() { docker exec "$stranger" timeout 25 "$@"; }

# Each refusal is paired with an accepted request by the same means; otherwise any outage would pass.
let_in() { # WHAT COMMAND...
    local deadline=$((SECONDS + 60))
    until in_network "${@:2}" >"$scratch/tried" 2>&1; do
        ((SECONDS < deadline)) || {
            cat "$scratch/tried" >&2
            die "$1 isn't let in"
        }
    done
}

refused() { # WHAT WORDS COMMAND...
    if in_network "${@:3}" >"$scratch/tried" 2>&1 && ! grep -qiE "$2" "$scratch/tried"; then
        cat "$scratch/tried" >&2
        die "$1 is let in"
    fi
    grep -qiE "$2" "$scratch/tried" || {
        cat "$scratch/tried" >&2
        die "$1 fails, but not with $2"
    }
    say "refused: $1"
}

# genwatch, because kcat's library may be older than 2.6.1, which can't log in to Kafka 4 by password.
by_password() { # PRINCIPAL COMMAND...
    echo "genwatch $2 --brokers kafka-1:9094 -X @/run/secrets/$1.properties ${*:3}"
}

by_certificate() { # FILE KCAT-ARGUMENTS...
    echo "kcat -m 20 -b kafka-2:9095 -X security.protocol=ssl -X ssl.ca.location=/run/secrets/ca.pem -X ssl.certificate.location=/run/secrets/$1 -X ssl.key.location=/run/secrets/$1 ${*:2}"
}

# TLS 1.2, in which the client's certificate is checked before the handshake ends.
handshake() { # OPTIONS...
    echo "openssl s_client -connect kafka-2:9095 -servername kafka-2 -tls1_2 -brief -CAfile /run/secrets/ca.pem $*"
}

strangers_at_kafka() {
    local read='-C -o beginning -c 1 -e -q -t emergency_generators' write='-P -k rogue-1 -t emergency_generators /etc/hostname'
    local no_rights='authorization failed|not authorized'
    # shellcheck disable=SC2046,SC2086 # lists of words
    {
        let_in "the operator" $(by_password operator alerts --exit-at-end)
        let_in "a sink by its certificate" $(by_certificate sink.pem $read)
        let_in "the one who makes aggregates, by its certificate" $(by_certificate downsample.pem $read)
        [[ $have_influxdb == no ]] || let_in "the source, by its certificate" $(by_certificate source.pem -C -o beginning -c 1 -e -q -t genwatch_sources)
        let_in "a sink's key" $(handshake -cert /run/secrets/sink.pem -key /run/secrets/sink.pem)
        refused "no credentials" 'no broker answers' genwatch alerts --brokers kafka-1:9094
        refused "the port of the health check" 'connection refused' bash -c 'exec 3<>/dev/tcp/kafka-1/9092'
        refused "another's password" 'authentication failed' $(by_password worker alerts -X "sasl.password=$(<"$SECRETS_DIR/sink.password")")
        refused "no certificate" 'alert' $(handshake)
        refused "Mosquitto's key" 'alert' $(handshake -cert /run/secrets/mosquitto.pem -key /run/secrets/mosquitto.pem)
        refused "InfluxDB's key" 'alert' $(handshake -cert /run/secrets/influxdb.pem -key /run/secrets/influxdb.pem)
        refused "alerts, as the simulator" "$no_rights" $(by_password simulator alerts --exit-at-end)
        refused "a reading written by the sink" "$no_rights" $(by_password sink simulate --count 1)
        refused "a reading written by the sink's certificate" "$no_rights" $(by_certificate sink.pem $write)
        refused "an aggregate written by the sink's certificate" "$no_rights" $(by_certificate sink.pem -P -k rogue-1 -t emergency_generators_1m /etc/hostname)
        refused "alarm states, as the one who makes aggregates" "$no_rights" $(by_certificate downsample.pem -C -o beginning -c 1 -e -q -t genwatch_state)
        refused "a reading written by the source" "$no_rights" $(by_password source simulate --count 1)
        refused "readings, as the source" "$no_rights" $(by_certificate source.pem $read)
        refused "the source's cursor, as the sink" "$no_rights" $(by_certificate sink.pem -C -o beginning -c 1 -e -q -t genwatch_sources)
        refused "a row written by the sink's certificate" "$no_rights" $(by_certificate sink.pem -P -k rogue-1 -t emergency_generators_influx /etc/hostname)
        refused "an alert written by the one who makes aggregates" "$no_rights" $(by_certificate downsample.pem -P -k rogue-1 -t emergency_generators_alerts /etc/hostname)
        refused "readings, by a device named as a broker" "$no_rights" $(by_certificate devices/kafka-1.pem $read)
    }
    # Rights of a super user only, which `principals` used with the admin's key.
    local device
    for device in kafka-1 admin; do
        sed "s:/admin.pem:/devices/$device.pem:" "$SECRETS_DIR/admin.properties" >"$SECRETS_DIR/rogue.properties"
        if docker run --rm --network "${COMPOSE_PROJECT_NAME}_default" -v "$SECRETS_DIR:/run/secrets:ro" --user 0 "$KAFKA_IMAGE" \
            java -Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp '/opt/kafka/libs/*' org.apache.kafka.tools.AclCommand \
            --bootstrap-server kafka-3:9095 --command-config /run/secrets/rogue.properties --list >"$scratch/tried" 2>&1 ||
            ! grep -q ClusterAuthorizationException "$scratch/tried"; then
            grep -q ClusterAuthorizationException "$scratch/tried" || { cat "$scratch/tried" >&2; die "a device named $device is a super user"; }
        fi
        say "refused: the rights of a super user, by a device named $device"
    done
}

mqtt_by_password() { # PROGRAM USER PASSWORD-OF ARGUMENTS...
    echo "$1 -V 5 -h mosquitto -p 8883 --cafile /run/secrets/ca.pem -u $2 -P $(<"$SECRETS_DIR/$3.password") ${*:4}"
}

mqtt_by_certificate() { # DEVICE ARGUMENTS...
    echo "mosquitto_pub -V 5 -q 1 -h mosquitto -p 8884 --cafile /run/secrets/ca.pem --cert /run/secrets/devices/$1.pem --key /run/secrets/devices/$1.pem ${*:2}"
}

strangers_at_mqtt() {
    local no='not authori[sz]ed|connection refused|bad user'
    local reading='{"generatorID":"rogue-1","lat":0,"lon":0,"temperature":80,"pressure":200,"fuel":900}'
    # shellcheck disable=SC2046 # lists of words
    {
        let_in "the bridge" $(mqtt_by_password mosquitto_sub bridge bridge -t 'generators/+/telemetry' -C 1 -W 20)
        refused "MQTT without a name" "$no" mosquitto_sub -V 5 -h mosquitto -p 8883 --cafile /run/secrets/ca.pem -t 'generators/#' -C 1 -W 5
        refused "MQTT without TLS" "$no|lost|error" mosquitto_sub -V 5 -h mosquitto -p 1883 -t 'generators/#' -C 1 -W 5
        refused "MQTT with another's password" "$no" $(mqtt_by_password mosquitto_sub bridge simulator -t 'generators/#' -C 1 -W 5)
        refused "a device's port without a certificate" "$no|lost|error|certificate" \
            mosquitto_pub -V 5 -h mosquitto -p 8884 --cafile /run/secrets/ca.pem -t generators/rogue-1/telemetry -m x -q 1
        refused "another generator's topic" "$no" $(mqtt_by_certificate rogue-1 -t generators/rogue-2/telemetry -m rogue)
        let_in "a device in its own topic" $(mqtt_by_certificate rogue-1 -t generators/rogue-1/telemetry -m "$reading")
    }
}

token_of() { # HOLDER
    echo "Authorization: Token $(docker run --rm -v "${COMPOSE_PROJECT_NAME}_$1-token:/token:ro" --entrypoint cat "$GENWATCH_IMAGE" /token/token)"
}

# By the tokens of sink and source, each in a volume that only its holder mounts.
strangers_at_influxdb() {
    local url=https://influxdb:8086/api/v2 answer token readers organization
    local code=(curl -s --cacert /run/secrets/ca.pem --output /dev/null --write-out '%{http_code}\n')
    token=$(token_of sink)
    readers=$(token_of source)
    local query=(--header 'Content-Type: application/vnd.flux' --data 'from(bucket: "generators") |> range(start: -1d) |> limit(n: 1)')
    answer=$(in_network "${code[@]}" --header "$token" --data 'rogue,of=sink value=1' "$url/write?org=genwatch&bucket=generators")
    [[ $answer == 204 ]] || die "the sink's token doesn't write: $answer"
    refused "a query without a token" '^40[13]' "${code[@]}" "${query[@]}" "$url/query?org=genwatch"
    refused "a write without a token" '^40[13]' "${code[@]}" --data 'rogue value=1' "$url/write?org=genwatch&bucket=generators"
    answer=$(in_network "${code[@]}" --header "$readers" "${query[@]}" "$url/query?org=genwatch")
    [[ $answer == 200 ]] || die "the source's token doesn't read: $answer"
    refused "a write by the source's token" '^40[134]' "${code[@]}" --header "$readers" --data 'rogue value=1' "$url/write?org=genwatch&bucket=generators"
    refused "a query by the sink's token" '^40[134]' "${code[@]}" --header "$token" "${query[@]}" "$url/query?org=genwatch"
    organization=$(influxdb "https://influxdb:8086/api/v2/orgs?org=genwatch" --resolve "influxdb:8086:$(address_of "$(container influxdb)")" |
        grep -o '"id": *"[0-9a-f]*"' | tail -n 1)
    refused "a token made by the sink's token" '^40[13]' "${code[@]}" --header "$token" --header 'Content-Type: application/json' \
        --data "{\"orgID\":${organization#*:},\"permissions\":[{\"action\":\"read\",\"resource\":{\"type\":\"buckets\"}}]}" "$url/authorizations"
    refused "a user's name without a password" '^401' "${code[@]}" --user genwatch: --request POST "$url/signin"
    refused "InfluxDB without TLS" '^400|^000' "${code[@]}" http://influxdb:8086/api/v2/setup
}

test_secure() {
    local began=$SECONDS services=(kafka-1 kafka-2 kafka-3 principals topics simulator worker downsample mosquitto bridge dashboard)
    files+=(-f "$root/docker-compose.secure.yml")
    scheme=https
    # A hundred generators: each is a connection by TLS.
    export GENWATCH_CONCURRENCY=64 GENWATCH_TO=mqtt GENWATCH_RATE=200 GENWATCH_GENERATORS=100 GENWATCH_LATE=drop
    "$root/scripts/certs" --out "$SECRETS_DIR" --at /run/secrets --device rogue-1 --device kafka-1 --device admin
    [[ $have_influxdb == no ]] || services+=(influxdb sink source)
    bring_up "the secured stack doesn't come up" "${services[@]}"
    say "the secured stack is up after $((SECONDS - began)) s"
    operator=$(compose --profile tools run -d --entrypoint sleep genwatch infinity)
    stranger=$(docker run -d --network "${COMPOSE_PROJECT_NAME}_default" --user 0 -v "$SECRETS_DIR:/run/secrets:ro" local/clients sleep infinity)
    docker cp "$operator:/usr/local/bin/genwatch" "$scratch/genwatch" && docker cp "$scratch/genwatch" "$stranger:/usr/local/bin/"
    # shellcheck disable=SC2046 # a list of words: kcat, and options
    watch_aggregates $(by_certificate sink.pem | sed 's/^kcat //')
    until_is 120 yes "readings" more_than 3000
    local service
    for service in worker downsample mosquitto bridge dashboard $([[ $have_influxdb == no ]] || echo influxdb sink source); do
        until_is 60 healthy "$service" healthy "$service"
    done
    until_is 60 "12 by 1" "partitions on the page" seen_on_the_page "$SECRETS_DIR/dashboard.token"
    dashboard_is_shut
    strangers_at_kafka
    strangers_at_mqtt
    if [[ $have_influxdb == yes ]]; then
        until_is 60 yes "points of the sink" sink_has_written
        strangers_at_influxdb
    fi
    "$scratch/genwatch" alerts --from beginning --exit-at-end --json --brokers "localhost:$KAFKA_1_PORT" -X "@$SECRETS_DIR/operator.properties" \
        -X "ssl.ca.location=$SECRETS_DIR/ca.pem" >"$scratch/alerts" || die "the operator isn't let in from this machine"
    grep -q generatorID "$scratch/alerts" || die "the operator sees no alert from this machine"
    all_are_confined
    first_window_is_due
    compose stop simulator >/dev/null 2>&1
    verify
    verify_aggregates
    [[ $have_influxdb == no ]] || until_is 60 "$records" "readings in the database" stored emergency_generators fuel
    # The rows are nobody's yet: only a super user may read them.
    # shellcheck disable=SC2207 # a list of words: options
    consumer=($(by_certificate admin.pem | sed 's/^kcat //'))
    verify_source
    say "the secured stack: $((SECONDS - began)) s"
}
