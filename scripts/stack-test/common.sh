# shellcheck shell=bash
# Shared by all parts of `scripts/stack test`: an engine, the test's own stack, and queries to it.

engine_pid=
scratch=
records=
alerts=
operator=
stranger=
scheme=http
have_influxdb=no

# Exit code 3: there is no engine, and none can be started.
no_engine() {
    say "NOT TESTED: $1"
    exit 3
}

# The existing engine, or one of the test's own.
have_engine() {
    if docker version >/dev/null 2>&1; then return; fi
    [[ -z ${DOCKER_HOST:-} ]] || no_engine "no Docker engine answers at $DOCKER_HOST"
    ((EUID == 0)) || no_engine "no Docker engine answers, and starting one takes root"
    if ! command -v dockerd >/dev/null || ! command -v docker-compose >/dev/null || ! command -v debootstrap >/dev/null; then
        command -v apt-get >/dev/null || no_engine "no Docker engine answers, and there is no apt-get to install one"
        say "installing docker.io, docker-compose and debootstrap"
        { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends \
            docker.io docker-compose debootstrap iptables; } >"$scratch/apt.log" 2>&1 ||
            { tail -n 5 "$scratch/apt.log" >&2; no_engine "docker.io can't be installed (apt-get's last words are above)"; }
    fi
    # Images outlive a checkout: they are made again when their inputs have changed. One engine at a time.
    local data=$target/docker images=${XDG_CACHE_HOME:-$HOME/.cache}/genwatch/docker
    mkdir -p "$data" "$images"
    exec 8>"$images.lock"
    flock -n 8 || { say "waiting for another scripts/stack test"; flock 8; }
    say "starting a Docker engine for this test"
    dockerd --data-root "$images" --exec-root "$data/exec" --pidfile "$data/pid" --host "unix://$data/socket" \
        >"$data/log" 2>&1 </dev/null 8>&- &
    engine_pid=$!
    export DOCKER_HOST=unix://$data/socket
    local deadline=$((SECONDS + 60))
    until docker version >/dev/null 2>&1; do
        if ! kill -0 "$engine_pid" 2>/dev/null || ((SECONDS > deadline)); then
            tail -n 10 "$data/log" >&2
            engine_pid=
            no_engine "a Docker engine can't be started here (its last words are above)"
        fi
        sleep 0.2
    done
}

finish_test() {
    local status=$?
    trap '' INT TERM
    if [[ $status != 0 && $status != 3 ]]; then
        inside status >&2 2>/dev/null || true
        inside status --group genwatch_1m >&2 2>/dev/null || true
        compose ps >&2 2>/dev/null || true
        compose logs --no-color --tail 15 >&2 2>/dev/null || true
        # The reason, once more: it was far above.
        [[ ! -s $scratch/reason ]] || cat "$scratch/reason" >&2
    fi
    take_down
    if [[ -n $engine_pid ]]; then
        # Images whose name moved to a newer one.
        docker system prune --force >/dev/null 2>&1 || true
        kill "$engine_pid" 2>/dev/null || true
        wait "$engine_pid" 2>/dev/null || true
    fi
    rm -rf "$scratch"
    exit "$status"
}

take_down() {
    [[ -z $stranger ]] || docker rm -f "$stranger" >/dev/null 2>&1 || true
    [[ -z $operator ]] || docker rm -f "$operator" >/dev/null 2>&1 || true
    stranger=
    operator=
    down --volumes --timeout 5 >/dev/null 2>&1 || true
    # Compose 1.29 leaves the volumes where it can't remove the network.
    docker volume ls -q --filter "label=com.docker.compose.project=${COMPOSE_PROJECT_NAME:-genwatch-test}" 2>/dev/null |
        xargs -r docker volume rm >/dev/null 2>&1 || true
}

bring_up() { # COMPLAINT ARGUMENTS...
    compose up -d --no-build "${@:2}" >"$scratch/up.log" 2>&1 || {
        cat "$scratch/up.log" >&2
        die "$1"
    }
}

# A free one. Brokers tell clients on this machine the port, so it has to be known beforehand.
free_port() {
    local port
    while port=$((20000 + RANDOM % 12000)); (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
    echo "$port"
}

# Stopped ones too, which Compose v2 omits by default.
container() { compose ps -a -q "$1" | sed -n 1p; }

workers() { compose ps -q worker; }

# In a container that knows the brokers already: the operator's, if there is one, else a worker's.
inside() { docker exec "${operator:-$(workers | sed -n 1p)}" /usr/local/bin/genwatch "$@"; }

lag() { inside status | sed -n 's/^lag in all: //p'; }

committed() { inside status | awk '$1 ~ /^[0-9]+$/ { sum += $3 } END { print sum + 0 }'; }

# How many workers own partitions.
owners() { inside status "$@" | awk '$1 ~ /^[0-9]+$/ && $2 != "-" { owner[$2] } END { n = 0; for (o in owner) n++; print n }'; }

unowned() { inside status "$@" | awk '$1 ~ /^[0-9]+$/ && $2 == "-" { n++ } END { print n + 0 }'; }

# Waits until a command prints the wanted text; on failure says what it printed last.
until_is() { # SECONDS WANTED WHAT COMMAND...
    local deadline=$((SECONDS + $1)) wanted=$2 what=$3 found=
    shift 3
    while found=$("$@" 2>/dev/null) || true; [[ $found != "$wanted" ]]; do
        ((SECONDS < deadline)) || die "$what: wanted $wanted, still ${found:-nothing}"
        sleep 0.5
    done
}

address_of() { docker inspect -f '{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}' "$1"; }

# The sum of a worker's metrics of this name.
metric() {
    curl -sf --max-time 5 "http://$(address_of "$1"):8080/metrics" | awk -v name="$2" 'index($1, name) == 1 { sum += $2 } END { printf "%d\n", sum }'
}

commits() {
    local worker sum=0
    for worker in $(workers); do sum=$((sum + $(metric "$worker" genwatch_commit_seconds_count))); done
    echo "$sum"
}

commits_go_on() {
    local before
    before=$(commits)
    sleep 1
    (($(commits) > before + 2)) && echo yes
}

# What the dashboard answers by its token.
dashboard() { # PATH
    printf 'Authorization: Bearer %s\n' "$(<"$1")" >"$scratch/bearer"
    curl -sf --max-time 10 --header "@$scratch/bearer" "http://$(address_of "$(container dashboard)"):8080$2"
}

# The partitions that the dashboard shows as processed, and the workers that process them.
seen_on_the_page() { # TOKEN-FILE
    dashboard "$1" /api/partitions | python3 -c 'import json, sys
shown = json.load(sys.stdin)
owners = [of["owner"] for of in shown["partitions"] if of["phase"] == "active"]
print(len(owners), "by", len(set(owners)))'
}

# Without the token there is a login page, and no data.
dashboard_is_shut() {
    local address
    address=$(address_of "$(container dashboard)"):8080
    [[ $(curl -s -o /dev/null -w '%{http_code}' "http://$address/api/fleet") == 401 ]] || die "the dashboard gives the fleet to anybody"
    [[ $(curl -s -o /dev/null -w '%{http_code} %{redirect_url}' "http://$address/") == 303*"/login" ]] || die "the dashboard's page asks for no token"
}

healthy() { docker inspect -f '{{.State.Health.Status}}' "$(container "$1")"; }

# Sets `records` and `alerts`: how many there are.
verify() {
    say "the rest is processed, and all alerts are compared with a serial evaluation"
    until_is 180 0 "lag" lag
    local verdict
    records=$(committed)
    verdict=$(inside bench verify) || die "the alerts are not those that the readings call for"
    say "$records readings processed: $verdict"
    [[ $verdict == *'"verified":true'* && $verdict != *'"alerts":0,'* ]] || die "there were no alerts to compare"
    alerts=$(sed -n 's/.*"alerts":\([0-9]*\).*/\1/p' <<<"$verdict")
}

stored() { # MEASUREMENT FIELD
    stored_where "r._measurement == \"$1\" and r._field == \"$2\""
}

# How many values InfluxDB has: Flux, and of its table the last row's last column.
stored_where() { # FILTER
    local address
    address=$(address_of "$(container influxdb)")
    influxdb --data-binary "from(bucket: \"generators\") |> range(start: -1d) |> filter(fn: (r) => $1) |> group() |> count()" \
        --header 'Content-Type: application/vnd.flux' "$scheme://influxdb:8086/api/v2/query?org=genwatch" \
        --resolve "influxdb:8086:$address" | tr -d '\r' | awk -F, 'NF > 1 { value = $NF } END { if (value ~ /^[0-9]+$/) print value }'
}

# The first user's token goes in a file, because arguments are visible to everybody.
influxdb() {
    printf 'Authorization: Token %s\n' "$(<"$SECRETS_DIR/influxdb.token")" >"$scratch/authorization"
    curl -sf --max-time 20 --cacert "$SECRETS_DIR/ca.pem" --header "@$scratch/authorization" "$@"
}

sink_has_written() { (($(metric "$(container sink)" genwatch_sink_points_total) > 0)) && echo yes; }

sink_lag() { inside status --group genwatch_influx | sed -n 's/^lag in all: //p'; }

# Each service can't write to its image, has no capability, is no privileged user, and has limits; it sees only its own
# secrets.
all_are_confined() {
    local id name limits
    for id in $(compose ps -a -q); do
        name=$(docker inspect -f '{{.Name}}' "$id")
        limits=$(docker inspect -f '{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}' "$id")
        [[ $limits =~ ^true\ \[ALL\]\ \[no-new-privileges:true\]\ [1-9][0-9]*\ [1-9][0-9]*$ ]] || die "$name isn't confined: $limits"
        [[ $(docker inspect -f '{{.Config.User}}' "$id") =~ ^(appuser|[1-9][0-9]*(:[0-9]+)?)$ ]] || die "$name runs as root"
        [[ $(docker inspect -f '{{range .Mounts}}{{.Source}} {{end}}' "$id") != *ca.key* ]] || die "$name sees the CA's key"
        if docker inspect -f '{{range .Mounts}}{{.Source}} {{end}}' "$id" | tr ' ' '\n' | grep -qxF "$SECRETS_DIR"; then
            die "$name sees the secrets of all"
        fi
        [[ $(docker inspect -f '{{.State.Running}}' "$id") == true ]] || continue
        docker exec "$id" sh -c '[ "$(id -u)" != 0 ]' || die "$name runs as root"
        ! docker exec -u 0 "$id" sh -c ': >/written' 2>/dev/null || die "$name can write to its root file system"
    done
}

# Rust is built once, outside the Dockerfile. So the test tries at least how its builder stage begins: whether Cargo
# finds everything that Cargo.toml names.
check_builder() {
    local tree=$scratch/builder placeholders
    placeholders=$(sed -n 's/^RUN \(mkdir -p src.*\)/\1/p' "$root/Dockerfile")
    [[ -n $placeholders ]] || die "the Dockerfile's builder stage makes no placeholders any more; check_builder looks for them"
    mkdir "$tree"
    cp "$root"/Cargo.{toml,lock} "$tree"
    (cd "$root" && cp --parents crates/*/Cargo.toml "$tree")
    local argument
    for argument in BUILDER BASE; do
        grep -qx "ARG $argument=$(sed -n "s/^${argument}_IMAGE=//p" "$root/.env")" "$root/Dockerfile" ||
            die "the Dockerfile's $argument isn't the image that .env names"
    done
    (cd "$tree" && bash -c "$placeholders" && cargo metadata --no-deps --offline --format-version 1 >/dev/null) ||
        die "the Dockerfile's builder stage can't read Cargo.toml"
}

test_stack() {
    local began=$SECONDS variables half halves=(plain secure)
    if [[ ${1:-} == plain || ${1:-} == secure || ${1:-} == connect ]]; then
        halves=("$1")
        shift
    fi
    scratch=$(mktemp -d)
    trap finish_test EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    compose=(false)
    check_builder
    have_engine
    find_compose
    variables=$("$root/scripts/images/make" "$@") || die "the images can't be made"
    # shellcheck disable=SC2086 # one word is one variable
    export ${variables?} COMPOSE_PROJECT_NAME=genwatch-test COMPOSE_PROFILES=mqtt,influx SECRETS_DIR=$scratch/secrets
    [[ $variables != *INFLUXDB_IMAGE=* ]] || have_influxdb=yes
    export GENWATCH_WORK=2ms GENWATCH_RATE=1000 GENWATCH_PARTITIONS=12 GENWATCH_GENERATORS=1000
    export KAFKA_HEAP_OPTS='-Xms128m -Xmx256m' PROMETHEUS_PORT=0 MQTT_PORT=0 MQTTS_PORT=0 MQTT_DEVICES_PORT=0 INFLUXDB_PORT=0 DASHBOARD_PORT=0
    KAFKA_1_PORT=$(free_port) KAFKA_2_PORT=$(free_port) KAFKA_3_PORT=$(free_port)
    export KAFKA_1_PORT KAFKA_2_PORT KAFKA_3_PORT
    say "images are there after $((SECONDS - began)) s; NOT TESTED: Grafana, of which no image can be made"
    for half in "${halves[@]}"; do
        take_down
        "test_$half"
    done
    say "passed, $((SECONDS - began)) s"
}
