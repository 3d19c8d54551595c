"""The checks. Each is a statement about one rendering, and yields its contradictions.

Facts about genwatch come from its sources and its Dockerfile, so that a change there is noticed here.
"""

import json
import re
import sys
from pathlib import Path
from typing import Iterator

import yaml

import schemas

ROOT = Path(__file__).resolve().parents[3]

# KEDA's schema accepts any metadata of a trigger, and its scaler ignores unknown keys. For the kafka scaler:
TRIGGER_METADATA = {
    *("bootstrapServers", "consumerGroup", "topic", "lagThreshold", "activationLagThreshold", "offsetResetPolicy"),
    *("bootstrapServersFromEnv", "consumerGroupFromEnv", "topicFromEnv", "partitionLimitation", "version"),
    *("allowIdleConsumers", "scaleToZeroOnInvalidOffset", "excludePersistentLag", "limitToPartitionsWithLag"),
    *("ensureEvenDistributionOfPartitions", "tls", "sasl", "unsafeSsl"),
}

# Settings that name a file with a secret, and the file.
SECRET_FILE = re.compile(r"GENWATCH_\w+_FILE=/etc/genwatch[\w./-]*")
SECRET_LIKE = re.compile(r"passw|secret|token|jaas|credential|api.?key|BEGIN [A-Z ]*PRIVATE KEY", re.IGNORECASE)


# ---------------------------------------------------------------------------------------------------------------------
# genwatch, by its own sources


def fact(place: str, pattern: str) -> str:
    """The first match in a file, or in the files of a folder."""
    path = ROOT / place
    text = path.read_text() if path.is_file() else "".join(one.read_text() for one in sorted(path.rglob("*.rs")))
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        sys.exit(f"manifests: error: {place} has nothing like {pattern}; if the code has moved, change checks.py too")
    return found[1]


def constant(folder: str, name: str) -> int:
    return int(fact(folder, rf"^(?:pub(?:\(\w+\))? )?const {name}: .*?(?:from_secs\(|= )(\d+)"))


def seconds(text: str) -> float:
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60}[unit]


DRAIN_TIMEOUT = fact("src/cli/member.rs", r'default_value = "(\w+)".*GENWATCH_DRAIN_TIMEOUT')
COMMIT_INTERVAL = fact("src/cli/worker.rs", r'default_value = "(\w+)".*GENWATCH_COMMIT_INTERVAL')
TRANSACTION_SECONDS = constant("crates/kafka/src", "TRANSACTION_TIMEOUT")
BRIDGE_SECONDS = constant("src/mqtt", "DRAIN_TIMEOUT")
SOURCE_SECONDS = constant("src/source", "STOP_TIMEOUT")
SINK_SECONDS = constant("src/sink", "DRAIN_TIMEOUT") + constant("src/sink", "COMMIT_TIMEOUT")
START_SECONDS = constant("crates/kafka/src", "START_TIMEOUT") + constant("crates/kafka/src", "CONNECT_TIMEOUT")
ROUTES = set(re.findall(r'\.route\("(/\w+)"', (ROOT / "src/service/http/mod.rs").read_text()))
OPTIONS = {name for file in (ROOT / "src/cli").rglob("*.rs") for name in re.findall(r'env = "(GENWATCH_\w+)"', file.read_text())}
COMMANDS = set(re.findall(r"^    (\w+)\(\w+::Options\)", (ROOT / "src/cli/mod.rs").read_text(), re.MULTILINE))
USER, GROUP = fact("Dockerfile", r"^USER (\d+:\d+)").split(":")
PORT = int(fact("Dockerfile", r"^EXPOSE (\d+)"))
IMAGE = fact("Dockerfile", r"docker build -t (\S+)")
MAX_RECORD_BYTES = constant("crates/kafka/src", "MAX_RECORD_BYTES") << 20
MORE_LETTER_BYTES = 1 << 20
SEGMENT_MS = 3_600_000


# ---------------------------------------------------------------------------------------------------------------------
# A rendering


class Rendering:
    def __init__(self, objects: list[dict]):
        self.objects = objects

    def all(self, kind: str) -> list[dict]:
        return [one for one in self.objects if one["kind"] == kind]

    def one(self, kind: str) -> dict:
        (only,) = self.all(kind)
        return only

    def pods(self) -> Iterator[tuple[str, dict]]:
        """Name and template of each Deployment and Job."""
        for one in self.all("Deployment") + self.all("Job"):
            yield label(one), one["spec"]["template"]

    def containers(self) -> Iterator[tuple[str, dict, dict]]:
        """Name, pod's spec and container."""
        for name, template in self.pods():
            for container in template["spec"].get("initContainers", []) + template["spec"]["containers"]:
                yield f"{name}, container {container['name']}", template["spec"], container

    def named(self, kind: str, name: str) -> dict:
        (only,) = [one for one in self.all(kind) if one["metadata"]["name"] == name]
        return only

    def worker(self) -> dict:
        return self.named("Deployment", "genwatch")

    def members(self) -> list[dict]:
        """The deployments whose replicas share the partitions of the readings, exactly once."""
        return [one for one in self.all("Deployment") if one["metadata"]["name"] in ("genwatch", "genwatch-downsample")]

    def sources(self) -> list[dict]:
        return [one for one in self.all("Deployment") if one["metadata"]["name"] == "genwatch-source"]

    def settings(self, deployment: dict | None = None) -> dict[str, str]:
        """The environment of a deployment, else of the worker."""
        (container,) = (deployment or self.worker())["spec"]["template"]["spec"]["containers"]
        maps = {one["metadata"]["name"]: one["data"] for one in self.all("ConfigMap")}
        found = {}
        for source in container["envFrom"]:
            found |= maps.get(source["configMapRef"]["name"], {})
        return found | {one["name"]: one.get("value", "") for one in container.get("env", [])}

    def partitions(self) -> int:
        return int(self.settings()["GENWATCH_PARTITIONS"])

    def group_of_aggregates(self) -> str:
        settings = self.settings(self.named("Deployment", "genwatch-downsample"))
        return f"{settings['GENWATCH_GROUP']}_{settings['GENWATCH_WINDOW']}"

    def topics(self) -> dict[str, str]:
        """All of them, with their cleanup policies, as crates/kafka/src/topics.rs has them."""
        derived = {"topic": self.settings()["GENWATCH_TOPIC"], "group": self.settings()["GENWATCH_GROUP"]}
        source = (ROOT / "crates/kafka/src/topics.rs").read_text()
        names = re.findall(r'format!\("(\{(?:topic|group)\}_\w+)"\)', source)
        compacted = fact("crates/kafka/src/topics.rs", r"((?:Role::\w+ \| )*Role::\w+) => Cleanup::Compact").lower()
        # Without a source nobody needs its cursors.
        names.remove("{group}_sources")
        more = {f"{self.group_of_aggregates()}_state": "compact"} if len(self.members()) > 1 else {}
        for source in self.sources():
            more |= {self.settings(source)["GENWATCH_TO_TOPIC"]: "delete", "{group}_sources".format(**derived): "compact"}
        return {"{topic}".format(**derived): "delete"} | more | {
            name.format(**derived): "compact" if f"role::{name.rpartition('_')[2]}" in compacted else "delete" for name in names
        }


def label(thing: dict) -> str:
    return f"{thing['kind']} {thing['metadata']['name']}"


def selects(selector: dict, template: dict) -> bool:
    labels = template["metadata"]["labels"]
    return selector["matchLabels"].items() <= labels.items() and all(
        one["operator"] == "In" and labels.get(one["key"]) in one["values"] for one in selector.get("matchExpressions", [])
    )


# ---------------------------------------------------------------------------------------------------------------------
# The checks


def every_object_is_valid_by_its_schema(r: Rendering):
    for thing in r.objects:
        yield from (f"{label(thing)}: {complaint}" for complaint in schemas.complaints(thing))


def the_grace_period_outlasts_draining(r: Rendering):
    drain = seconds(r.settings().get("GENWATCH_DRAIN_TIMEOUT", DRAIN_TIMEOUT))
    member = drain + TRANSACTION_SECONDS, "--drain-timeout and a transaction"
    needed = {
        "genwatch": member,
        "genwatch-downsample": member,
        "genwatch-bridge": (BRIDGE_SECONDS, "what a bridge waits for Kafka"),
        "genwatch-sink": (SINK_SECONDS, "what a sink waits for the database and for Kafka"),
        "genwatch-source": (SOURCE_SECONDS, "what a source waits for Kafka"),
    }
    for deployment in r.all("Deployment"):
        grace = deployment["spec"]["template"]["spec"].get("terminationGracePeriodSeconds", 30)
        takes, what = needed[deployment["metadata"]["name"]]
        if grace <= takes:
            yield f"{label(deployment)}: {grace} s are not more than {what} ({takes:g} s)"


def the_start_is_waited_for(r: Rendering):
    for name, _, container in r.containers():
        if probe := container.get("startupProbe"):
            waited = probe.get("periodSeconds", 10) * probe.get("failureThreshold", 3)
            if waited <= START_SECONDS:
                yield f"{name}: the startup probe gives up after {waited} s, a worker may need {START_SECONDS} s"


def probes_ask_what_the_worker_serves(r: Rendering):
    wanted = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    for deployment in r.all("Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        for probe, path in wanted.items():
            if path not in ROUTES:
                yield f"src/service/http doesn't serve {path}"
            asked = container.get(probe, {}).get("httpGet", {})
            if asked.get("path") != path:
                yield f"{label(deployment)}: {probe} asks {asked.get('path')}, not {path}"
            if asked.get("port") not in [*(port["name"] for port in container["ports"]), PORT]:
                yield f"{label(deployment)}: {probe} asks at port {asked.get('port')}, which the container doesn't name"


def image_and_ports_are_those_of_the_dockerfile(r: Rendering):
    for name, pod, container in r.containers():
        if container["image"] != IMAGE and not container["image"].startswith("registry.example.com/"):
            yield f"{name}: image {container['image']}, the Dockerfile makes {IMAGE}"
        if (command := container["args"][0]).capitalize() not in COMMANDS:
            yield f"{name}: genwatch has no command {command}"
        if "command" in container:
            yield f"{name}: has a command of its own; the image's entry point is genwatch"
    for deployment in r.all("Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        if [port["containerPort"] for port in container["ports"]] != [PORT]:
            yield f"{label(deployment)}: its ports are {container['ports']}, the Dockerfile exposes {PORT}"
        if f"0.0.0.0:{PORT}" not in container["args"]:
            yield f"{label(deployment)} doesn't serve at 0.0.0.0:{PORT}: {container['args']}"
    for rule in r.named("NetworkPolicy", "genwatch")["spec"]["ingress"]:
        if [port["port"] for port in rule["ports"]] != [PORT]:
            yield f"the network policy lets in {rule['ports']}, the worker serves {PORT}"


def every_container_is_confined(r: Rendering):
    for name, template in r.pods():
        if template["spec"].get("automountServiceAccountToken") is not False:
            yield f"{name}: mounts a token of its service account"
        if template["spec"].get("enableServiceLinks") is not False:
            yield f"{name}: a Service named genwatch would set GENWATCH_* in it"
    for name, pod, container in r.containers():
        # As Kubernetes does: the container's own value wins over the pod's.
        context = pod.get("securityContext", {}) | container.get("securityContext", {})
        wanted = {
            "runAsNonRoot": True,
            "runAsUser": int(USER),
            "runAsGroup": int(GROUP),
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        }
        for key, value in wanted.items():
            if context.get(key) != value:
                yield f"{name}: {key} is {context.get(key)}, not {value}"
        if "memory" not in container.get("resources", {}).get("limits", {}):
            yield f"{name}: has no memory limit"


def no_secret_is_said_aloud(r: Rendering):
    for thing in r.all("Secret"):
        yield f"{label(thing)}: secrets are made by hand or by an operator, not by these files"
    for thing in r.all("ConfigMap"):
        for key, value in thing.get("data", {}).items():
            if found := SECRET_LIKE.search(SECRET_FILE.sub("", f"{key}={value}")):
                yield f"{label(thing)}: {key} looks like a secret ({found[0]})"
    for name, _, container in r.containers():
        spoken = container.get("command", []) + container.get("args", [])
        spoken += [f"{one['name']}={one.get('value', one)}" for one in container.get("env", [])]
        spoken += [str(source) for source in container.get("envFrom", []) if "secretRef" in source]
        for words in spoken:
            if found := SECRET_LIKE.search(words):
                yield f"{name}: '{found[0]}' in arguments or environment; secrets are files"


def options_are_known(r: Rendering):
    for deployment in r.all("Deployment"):
        for key in r.settings(deployment):
            if key not in OPTIONS:
                yield f"{label(deployment)}: {key} is no option of genwatch"


def files_that_are_named_are_mounted(r: Rendering):
    maps = {one["metadata"]["name"]: one["data"] for one in r.all("ConfigMap")}
    for name, pod, container in r.containers():
        mounts = {one["mountPath"]: one for one in container.get("volumeMounts", [])}
        volumes = {one["name"]: one for one in pod.get("volumes", [])}
        given = [argument[1:] for argument in container["args"] if argument.startswith("@")]
        for source in container.get("envFrom", []):
            given += [value for key, value in maps.get(source["configMapRef"]["name"], {}).items() if key.endswith("_FILE")]
        for argument in given:
            folder, file = argument.rsplit("/", 1)
            if folder not in mounts:
                yield f"{name}: {argument} is in no volume"
                continue
            volume = volumes[mounts[folder]["name"]]
            if mode := set(_modes(volume)) - {0o440}:
                yield f"{name}: the files of volume {volume['name']} are readable by more than the group: {mode}"
            there, text = set(), ""
            for source in volume.get("projected", {}).get("sources", []):
                data = maps.get(source["configMap"]["name"], {}) if "configMap" in source else {}
                there |= set(data) | {item["path"] for item in source.get("secret", {}).get("items", [])}
                text += data.get(file, "")
            if "projected" in volume:
                for wanted in [file, *re.findall(rf"={folder}/(\S+)", text)]:
                    if wanted not in there:
                        yield f"{name}: {folder}/{wanted} is named, and isn't in volume {volume['name']}"


def _modes(volume: dict) -> list[int]:
    return [volume[kind].get("defaultMode", 0o644) for kind in ("secret", "projected", "configMap") if kind in volume]


def what_is_referred_to_is_there(r: Rendering):
    accounts = {one["metadata"]["name"] for one in r.all("ServiceAccount")}
    maps = {one["metadata"]["name"] for one in r.all("ConfigMap")}
    for name, template in r.pods():
        if template["spec"]["serviceAccountName"] not in accounts:
            yield f"{name}: there is no ServiceAccount {template['spec']['serviceAccountName']}"
    for name, _, container in r.containers():
        for source in container.get("envFrom", []):
            if source["configMapRef"]["name"] not in maps:
                yield f"{name}: there is no ConfigMap {source['configMapRef']['name']}"
    # The makers of the Secrets: a person, Strimzi's user operator, its cluster operator.
    known = {"genwatch-mqtt", "genwatch-influxdb", "genwatch-influxdb-source"}
    if r.all("KafkaUser"):
        known |= {user["metadata"]["name"] for user in r.all("KafkaUser")}
    else:
        known |= {"genwatch-client", "genwatch-downsample", "genwatch-bridge", "genwatch-sink", "genwatch-source"}
    known |= {f"{user['metadata']['labels']['strimzi.io/cluster']}-cluster-ca-cert" for user in r.all("KafkaUser")}
    for thing in r.objects:
        for secret in _secrets(thing):
            if secret not in known:
                yield f"{label(thing)}: nothing makes a Secret {secret}"


def _secrets(thing) -> Iterator[str]:
    if isinstance(thing, dict):
        for key, value in thing.items():
            if key == "secret" and value:
                yield value.get("secretName") or value["name"]
            elif key == "secretTargetRef":
                yield from (one["name"] for one in value)
            else:
                yield from _secrets(value)
    elif isinstance(thing, list):
        for one in thing:
            yield from _secrets(one)


def selectors_find_what_they_are_for(r: Rendering):
    templates = dict(r.pods())
    services = {label(one) for one in r.all("Deployment")}
    wanted = [(one, {label(one)}) for one in r.all("Deployment")]
    wanted += [(one, {f"Deployment {one['metadata']['name']}"}) for one in r.all("PodDisruptionBudget")]
    wanted += [(one, services) for one in r.all("PodMonitor")]
    for thing, those in wanted:
        found = {name for name, template in templates.items() if selects(thing["spec"]["selector"], template)}
        if found != those:
            yield f"{label(thing)} selects {sorted(found)}, not {sorted(those)}"
    for name, template in templates.items():
        for constraint in template["spec"].get("topologySpreadConstraints", []):
            if not selects(constraint["labelSelector"], template):
                yield f"{name}: the spread over {constraint['topologyKey']} doesn't count its own pods"
    budgets = {one["metadata"]["name"] for one in r.all("PodDisruptionBudget")}
    for member in r.members():
        if member["metadata"]["name"] not in budgets:
            yield f"{label(member)} has no disruption budget: all of its pods may be moved at once"
    for policy in r.all("NetworkPolicy"):
        name = policy["metadata"]["name"]
        those = set(templates) if name == "genwatch" else {f"Deployment {name}"}
        found = {one for one, template in templates.items() if selects(policy["spec"]["podSelector"], template)}
        if found != those:
            yield f"{label(policy)} holds for {sorted(found)}, not {sorted(those)}"


def network_policies_let_out_to_what_is_needed_only(r: Rendering):
    policy = r.named("NetworkPolicy", "genwatch")["spec"]
    if set(policy["policyTypes"]) != {"Ingress", "Egress"}:
        yield f"policyTypes are {policy['policyTypes']}: the other direction is open"
    for rule in policy["ingress"]:
        if not rule.get("from"):
            yield "a rule of the network policy names no source: everybody may come in"
    ports = {}
    for one in r.all("NetworkPolicy"):
        ports[one["metadata"]["name"]] = []
        for rule in one["spec"]["egress"]:
            if not rule.get("ports"):
                yield f"{label(one)}: a rule has no ports: everything may go out"
            ports[one["metadata"]["name"]] += [(port["port"], port.get("endPort", port["port"])) for port in rule.get("ports", [])]
        for low, high in ports[one["metadata"]["name"]]:
            if low != 53 and high - low > 10:
                yield f"{label(one)}: ports {low} to {high} are more than a server's"
    needed = [("genwatch", broker) for broker in r.settings()["GENWATCH_BROKERS"].split(",")]
    for deployment in r.all("Deployment"):
        settings = r.settings(deployment)
        urls = [settings[key] for key in ("GENWATCH_MQTT", "GENWATCH_URL") if key in settings]
        needed += [(deployment["metadata"]["name"], url) for url in urls]
    for name, server in needed:
        port = int(server.rsplit(":", 1)[1])
        if not any(low <= port <= high for low, high in ports.get(name, [])):
            yield f"{server} can't be reached: network policy {name} lets out to {ports.get(name)}"


def partitions_are_the_same_everywhere(r: Rendering):
    for scaled in r.all("ScaledObject"):
        if scaled["spec"]["maxReplicaCount"] != r.partitions():
            yield f"maxReplicaCount is {scaled['spec']['maxReplicaCount']}, GENWATCH_PARTITIONS {r.partitions()}"
    for topic in r.all("KafkaTopic"):
        wanted = 1 if topic["spec"]["topicName"].endswith(("_workers", "_sources")) else r.partitions()
        if topic["spec"]["partitions"] != wanted:
            yield f"{label(topic)} has {topic['spec']['partitions']} partitions, not {wanted}"
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in r.all("ScaledObject")}
    for member in r.members():
        replicas, is_scaled = member["spec"].get("replicas"), member["metadata"]["name"] in scaled
        if is_scaled and replicas is not None:
            yield f"KEDA sets the replicas, and so does the {label(member)} ({replicas})"
        if not is_scaled and not 1 <= replicas <= r.partitions():
            yield f"{label(member)}: {replicas} replicas share {r.partitions()} partitions"


def keda_measures_a_backlog(r: Rendering):
    members = {one["metadata"]["name"]: one for one in r.members()}
    for scaled in r.all("ScaledObject"):
        spec = scaled["spec"]
        target = spec["scaleTargetRef"]["name"]
        if target not in members or target != scaled["metadata"]["name"]:
            yield f"{label(scaled)} scales {target}, which isn't there, or isn't its own"
            continue
        settings = r.settings(members[target])
        is_worker = target == "genwatch"
        if not 1 <= spec["minReplicaCount"] <= spec["maxReplicaCount"]:
            yield f"{label(scaled)}: from {spec['minReplicaCount']} to {spec['maxReplicaCount']} replicas"
        interval = seconds(settings.get("GENWATCH_COMMIT_INTERVAL", COMMIT_INTERVAL))
        if spec["pollingInterval"] < (50 if is_worker else 10) * interval:
            yield f"{label(scaled)}: asks every {spec['pollingInterval']} s, offsets are committed every {interval:g} s"
        behavior = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        if behavior["scaleDown"]["stabilizationWindowSeconds"] < 60:
            yield f"{label(scaled)}: scales down at once, and each time is a rebalance"
        (trigger,) = spec["triggers"]
        metadata = trigger["metadata"]
        for key, value in metadata.items():
            if key not in TRIGGER_METADATA:
                yield f"{label(scaled)}: the kafka trigger has no '{key}'"
            if key.endswith("FromEnv") and value not in settings:
                yield f"{label(scaled)}: {target} has no variable {value}"
        group = {"consumerGroupFromEnv": "GENWATCH_GROUP"} if is_worker else {"consumerGroup": r.group_of_aggregates()}
        wanted = group | {
            "bootstrapServersFromEnv": "GENWATCH_BROKERS",
            "topicFromEnv": "GENWATCH_TOPIC",
            "allowIdleConsumers": "false",
            "limitToPartitionsWithLag": "true",
        }
        for key, value in wanted.items():
            if metadata.get(key) != value:
                yield f"{label(scaled)}: {key} is {metadata.get(key)}, not {value}"
        given = {one["metadata"]["name"]: one for one in r.all("TriggerAuthentication")}
        needed = {"tls": {"ca"}, "sasl": {"username", "password"}} if "sasl" in metadata else {"tls": {"ca", "cert", "key"}}
        for key, parameters in needed.items():
            if key not in metadata:
                continue
            by = given.get(trigger.get("authenticationRef", {}).get("name"))
            has = {one["parameter"] for one in by["spec"]["secretTargetRef"]} if by else set()
            if not parameters <= has:
                yield f"{label(scaled)}: {key} needs {sorted(parameters)}, it is given {sorted(has)}"


def aggregates_are_committed_at_their_own_pace(r: Rendering):
    for deployment in r.members():
        settings = r.settings(deployment)
        if deployment["metadata"]["name"] != "genwatch" and seconds(settings["GENWATCH_COMMIT_INTERVAL"]) < 1:
            yield f"{label(deployment)} writes all open windows every {settings['GENWATCH_COMMIT_INTERVAL']}: that is for workers"


def a_source_never_runs_twice(r: Rendering):
    for source in r.sources():
        spec = source["spec"]
        if spec["replicas"] != 1 or spec["strategy"] != {"type": "Recreate"}:
            yield f"{label(source)}: two of one name take over from each other, {spec['replicas']} by {spec['strategy']}"


def a_source_asks_what_is_tested(r: Rendering):
    """scripts/stack test runs the source of docker-compose.yml."""
    tested = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]["source"]["environment"]
    for source in r.sources():
        settings = r.settings(source)
        for name in ("GENWATCH_QUERY", "GENWATCH_FROM", "GENWATCH_KEY_COLUMN", "GENWATCH_TO_TOPIC", "GENWATCH_CREATE_TOPIC"):
            if settings.get(name) != tested[name]:
                yield f"{label(source)}: {name} is {settings.get(name)!r}, and {tested[name]!r} is tested"


def metrics_are_asked_for_where_they_are(r: Rendering):
    (container,) = r.worker()["spec"]["template"]["spec"]["containers"]
    for monitor in r.all("PodMonitor"):
        if monitor["spec"].get("jobLabel") != "app.kubernetes.io/component":
            yield f"{label(monitor)}: the alarms use job, which has to be the component"
        for endpoint in monitor["spec"]["podMetricsEndpoints"]:
            if endpoint["path"] not in ROUTES or endpoint["port"] not in [port["name"] for port in container["ports"]]:
                yield f"{label(monitor)} asks {endpoint}"


def alarms_are_those_of_the_compose_stack(r: Rendering):
    groups = yaml.safe_load((ROOT / "deploy/compose/prometheus/alerts.yml").read_text())["groups"]
    known = set(re.findall(r'"(genwatch_\w+)"', "".join(one.read_text() for one in (ROOT / "src").rglob("*.rs"))))
    for thing in r.all("PrometheusRule"):
        if thing["spec"]["groups"] != groups:
            yield f"{label(thing)} isn't deploy/compose/prometheus/alerts.yml"
        for rule in (rule for group in thing["spec"]["groups"] for rule in group["rules"]):
            if rule.get("labels", {}).get("severity") not in ("critical", "warning"):
                yield f"{label(thing)}: {rule['alert']} is neither critical nor a warning"
            for metric in re.findall(r"genwatch_\w+", rule["expr"]):
                if metric not in known | {"genwatch_ready"}:
                    yield f"{label(thing)}: {rule['alert']} uses {metric}, which no service has"


def the_topics_are_those_that_genwatch_uses(r: Rendering):
    declared = {topic["spec"]["topicName"]: topic["spec"] for topic in r.all("KafkaTopic")}
    if declared and r.all("Job"):
        yield "topics are declared, and made by a Job too"
    if declared and declared.keys() != r.topics().keys():
        yield f"topics {sorted(declared)} are declared, genwatch uses {sorted(r.topics())}"
    for name, cleanup in r.topics().items():
        if spec := declared.get(name):
            config = spec["config"]
            if config["cleanup.policy"] != cleanup:
                yield f"topic {name} has cleanup.policy {config['cleanup.policy']}, it needs {cleanup}"
            most = MAX_RECORD_BYTES + (MORE_LETTER_BYTES if name.endswith("_dlq") else 0)
            if int(config["max.message.bytes"]) != most:
                yield f"topic {name} takes records up to {config['max.message.bytes']} bytes, genwatch makes it {most}"
            if (config["cleanup.policy"] == "compact") != (int(config.get("segment.ms", 0)) == SEGMENT_MS):
                yield f"topic {name}: segments of {SEGMENT_MS} ms are for the compacted topics, as what is still written to isn't compacted"
            if (config.get("retention.ms") == -1) != name.endswith("_dlq"):
                yield f"topic {name}: dead letters alone are kept whatever their age"
            if config.get("message.timestamp.type") != "CreateTime":
                yield f"topic {name}: event time is the record's own timestamp, so message.timestamp.type is CreateTime"
            if config["min.insync.replicas"] >= spec["replicas"]:
                yield f"topic {name}: {config['min.insync.replicas']} of {spec['replicas']} replicas must be in sync"
            if ("message.timestamp.after.max.ms" in config) != name.endswith("_dlq"):
                yield f"topic {name}: dead letters alone keep a timestamp of the future"
    for job in r.all("Job"):
        if "ttlSecondsAfterFinished" not in job["spec"]:
            yield f"{label(job)} stays, so that the next change of it is refused"


def each_user_may_do_its_service_s_job_and_nothing_else(r: Rendering):
    topic, group = r.settings()["GENWATCH_TOPIC"], r.settings()["GENWATCH_GROUP"]
    wanted = {
        "genwatch": {
            ("topic", topic, "literal"): {"Read"},
            ("topic", f"{topic}_alerts", "literal"): {"Write"},
            ("topic", f"{topic}_dlq", "literal"): {"Write"},
            ("topic", f"{group}_state", "literal"): {"Read", "Write"},
            ("topic", f"{group}_workers", "literal"): {"Write"},
            ("group", group, "literal"): {"Read"},
            ("transactionalId", f"{group}-", "prefix"): {"Write"},
        },
        "genwatch-downsample": {
            ("topic", topic, "literal"): {"Read"},
            ("topic", f"{topic}_1m", "literal"): {"Write"},
            ("topic", f"{group}_1m_state", "literal"): {"Read", "Write"},
            ("topic", f"{group}_workers", "literal"): {"Write"},
            ("group", f"{group}_1m", "literal"): {"Read"},
            ("transactionalId", f"{group}_1m-", "prefix"): {"Write"},
        },
        "genwatch-bridge": {
            ("topic", topic, "literal"): {"Write"},
            ("topic", f"{topic}_status", "literal"): {"Write"},
            ("topic", f"{topic}_dlq", "literal"): {"Write"},
            ("topic", f"{group}_workers", "literal"): {"Write"},
        },
        "genwatch-sink": {
            ("topic", topic, "literal"): {"Read"},
            ("topic", f"{topic}_alerts", "literal"): {"Read"},
            ("topic", f"{topic}_1m", "literal"): {"Read"},
            ("topic", f"{topic}_dlq", "literal"): {"Write"},
            ("topic", f"{group}_workers", "literal"): {"Write"},
            ("group", f"{group}_influx", "literal"): {"Read"},
        },
        "genwatch-source": {
            ("topic", f"{topic}_influx", "literal"): {"Write"},
            ("topic", f"{group}_sources", "literal"): {"Read", "Write"},
            ("topic", f"{group}_workers", "literal"): {"Write"},
            ("transactionalId", f"{group}-source-{topic}_influx", "literal"): {"Write"},
        },
        "genwatch-connect": {
            ("topic", topic, "literal"): {"Read"},
            ("topic", f"{topic}_connect_dlq", "literal"): {"Create", "Write"},
            **{
                ("topic", one["spec"][name], "literal"): {"Create", "DescribeConfigs", "Read", "Write"}
                for one in r.all("KafkaConnect")
                for name in ("configStorageTopic", "offsetStorageTopic", "statusStorageTopic")
            },
            **{("group", one["spec"]["groupId"], "literal"): {"Read"} for one in r.all("KafkaConnect")},
            **{("group", f"connect-{one['metadata']['name']}", "literal"): {"Read"} for one in r.all("KafkaConnector")},
        },
    }
    for user in r.all("KafkaUser"):
        job, given = wanted[user["metadata"]["name"]], {}
        for acl in user["spec"]["authorization"]["acls"]:
            on = acl["resource"]
            key = on["type"], on.get("name"), on.get("patternType", "literal")
            given[key] = given.get(key, set()) | set(acl["operations"])
        for key in sorted(job.keys() | given.keys(), key=str):
            if job.get(key, set()) != given.get(key, set()):
                may, needs = sorted(given.get(key, [])), sorted(job.get(key, []))
                yield f"{label(user)} may {may} on {' '.join(map(str, key))}; it needs {needs}"
    if r.all("KafkaUser"):
        for deployment in r.all("Deployment"):
            if deployment["metadata"]["name"] not in {user["metadata"]["name"] for user in r.all("KafkaUser")}:
                yield f"{label(deployment)} has no user of its own"


def the_connector_is_the_one_that_is_tested(r: Rendering):
    """tests/connect runs deploy/connect/camel-influxdb.json."""
    for connector in r.all("KafkaConnector"):
        tested = json.loads((ROOT / "deploy/connect/camel-influxdb.json").read_text())
        spec = connector["spec"]
        ours = {"connector.class": spec["class"], "tasks.max": str(spec["tasksMax"]), **spec["config"]}
        for connect in r.all("KafkaConnect"):
            if connect["metadata"]["name"] != connector["metadata"]["labels"]["strimzi.io/cluster"]:
                yield f"{label(connector)}: {label(connect)} is another cluster"
            paths = connect["spec"]["config"]["config.providers.directory.param.allowed.paths"]
            mounts = [one["mountPath"] for one in connect["spec"]["template"]["connectContainer"]["volumeMounts"]]
            if mounts != [paths] or f"${{directory:{paths}:" not in ours["transforms.authorization.value.literal"]:
                yield f"{label(connector)}: the token isn't in the folder that is mounted and allowed ({mounts}, {paths})"
            if {connect["spec"]["logging"]["loggers"].get(f"logger.{one}.level") for one in ("camel", "values")} != {"WARN"}:
                yield f"{label(connect)}: Camel's and Kafka's loggers of settings print the token at INFO"
            ours = {name: value.replace(paths, "/run/influxdb") for name, value in ours.items()}
        for name in sorted(tested.keys() | ours.keys()):
            if tested.get(name) != ours.get(name):
                yield f"{label(connector)}: {name} is {ours.get(name)!r}, and {tested.get(name)!r} is tested"


CHECKS = [
    every_object_is_valid_by_its_schema,
    the_grace_period_outlasts_draining,
    the_start_is_waited_for,
    probes_ask_what_the_worker_serves,
    image_and_ports_are_those_of_the_dockerfile,
    every_container_is_confined,
    no_secret_is_said_aloud,
    options_are_known,
    files_that_are_named_are_mounted,
    what_is_referred_to_is_there,
    selectors_find_what_they_are_for,
    network_policies_let_out_to_what_is_needed_only,
    partitions_are_the_same_everywhere,
    keda_measures_a_backlog,
    aggregates_are_committed_at_their_own_pace,
    a_source_never_runs_twice,
    a_source_asks_what_is_tested,
    metrics_are_asked_for_where_they_are,
    alarms_are_those_of_the_compose_stack,
    the_topics_are_those_that_genwatch_uses,
    each_user_may_do_its_service_s_job_and_nothing_else,
    the_connector_is_the_one_that_is_tested,
]
