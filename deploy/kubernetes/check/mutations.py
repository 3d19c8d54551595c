"""Proves that each check works: breaks one thing in a rendering, and the check has to complain."""

import copy

import checks

ABSENT = object()
POD = "spec/template/spec"
WORKER = f"{POD}/containers/0"
TRIGGER = "spec/triggers/0"
ACL = "spec/authorization/acls"
CA = f"{POD}/volumes/0/projected/sources/2/secret"

ALL = "managed with all"
SERVICES = "strimzi with bridge, sink and source"
AGGREGATES = "strimzi with aggregates"
CONNECT = "strimzi with connect"

NAMED_ONLY = {"matchLabels": {"app.kubernetes.io/name": "genwatch"}}
OTHERS = {"matchLabels": {"app": "genwatch"}}

# Check, rendering, kind (and name), path in the object, new value.
MUTATIONS = [
    (checks.every_object_is_valid_by_its_schema, "base", "Deployment", f"{POD}/terminationGracePeriod", 45),
    (checks.every_object_is_valid_by_its_schema, "base", "NetworkPolicy", "spec/egress/1/ports/0/endPort", "9098"),
    (checks.every_object_is_valid_by_its_schema, "base", "PodDisruptionBudget", "apiVersion", "policy/v1beta1"),
    (checks.every_object_is_valid_by_its_schema, "managed with keda", "ScaledObject", "spec/poolingInterval", 15),
    (checks.every_object_is_valid_by_its_schema, "managed with keda", "ScaledObject", "spec/pollingInterval", "15"),
    (checks.every_object_is_valid_by_its_schema, "managed with keda", "ScaledObject", f"{TRIGGER}/type", ABSENT),
    (checks.every_object_is_valid_by_its_schema, "managed with keda", "ScaledObject", f"{TRIGGER}/metadata/lagThreshold", 5),
    (checks.every_object_is_valid_by_its_schema, "managed with keda", "TriggerAuthentication", "spec/secretTargetRef/0/ky", "a"),
    (checks.every_object_is_valid_by_its_schema, "README.md", "PodMonitor", "spec/selector", ABSENT),
    (checks.every_object_is_valid_by_its_schema, "README.md", "PodMonitor", "spec/podMetricsEndpoints/0/paths", "/metrics"),
    (checks.every_object_is_valid_by_its_schema, "strimzi", "KafkaTopic genwatch-state", "spec/partition", 12),
    (checks.every_object_is_valid_by_its_schema, "strimzi", "KafkaTopic genwatch-state", "spec/partitions", 0),
    (checks.every_object_is_valid_by_its_schema, "strimzi", "KafkaTopic genwatch-state", "apiVersion", "kafka.strimzi.io/v1beta2"),
    (checks.every_object_is_valid_by_its_schema, "strimzi", "KafkaUser", f"{ACL}/0/operations/0", "read"),
    (checks.every_object_is_valid_by_its_schema, "strimzi", "KafkaUser", f"{ACL}/0/operation", "Read"),
    (checks.every_object_is_valid_by_its_schema, "strimzi", "KafkaUser", "metadata/labels", {}),
    (checks.the_grace_period_outlasts_draining, "base", "Deployment", f"{POD}/terminationGracePeriodSeconds", 30),
    (checks.the_grace_period_outlasts_draining, "base", "ConfigMap", "data/GENWATCH_DRAIN_TIMEOUT", "1m"),
    (checks.the_start_is_waited_for, "base", "Deployment", f"{WORKER}/startupProbe/failureThreshold", 12),
    (checks.probes_ask_what_the_worker_serves, "base", "Deployment", f"{WORKER}/livenessProbe/httpGet/path", "/healthz"),
    (checks.probes_ask_what_the_worker_serves, "base", "Deployment", f"{WORKER}/readinessProbe/httpGet/port", 8081),
    (checks.image_and_ports_are_those_of_the_dockerfile, "base", "Deployment", f"{WORKER}/image", "genwatcher"),
    (checks.image_and_ports_are_those_of_the_dockerfile, "base", "Deployment", f"{WORKER}/args/2", "0.0.0.0:8081"),
    (checks.image_and_ports_are_those_of_the_dockerfile, "base", "Deployment", f"{WORKER}/ports/0/containerPort", 80),
    (checks.image_and_ports_are_those_of_the_dockerfile, "base", "NetworkPolicy", "spec/ingress/0/ports/0/port", 80),
    (checks.image_and_ports_are_those_of_the_dockerfile, "managed", "Job", f"{WORKER}/args/0", "topic"),
    (checks.every_container_is_confined, "managed", "Job", f"{POD}/securityContext/runAsNonRoot", False),
    (checks.every_container_is_confined, "managed", "Job", f"{WORKER}/securityContext/runAsUser", 1000),
    (checks.every_container_is_confined, "base", "Deployment", f"{WORKER}/securityContext/readOnlyRootFilesystem", ABSENT),
    (checks.every_container_is_confined, "base", "Deployment", f"{WORKER}/securityContext/capabilities", ABSENT),
    (checks.every_container_is_confined, "base", "Deployment", f"{POD}/securityContext/seccompProfile/type", "Unconfined"),
    (checks.every_container_is_confined, "base", "Deployment", f"{POD}/automountServiceAccountToken", ABSENT),
    (checks.every_container_is_confined, "base", "Deployment", f"{POD}/enableServiceLinks", ABSENT),
    (checks.no_secret_is_said_aloud, "base", "ConfigMap", "data/GENWATCH_X", "sasl.password=hunter2"),
    (checks.no_secret_is_said_aloud, "strimzi", "ConfigMap genwatch-client", "data/user.key", "-----BEGIN PRIVATE KEY-----"),
    (checks.no_secret_is_said_aloud, "base", "Deployment", f"{WORKER}/args/4", "sasl.password=hunter2"),
    (checks.no_secret_is_said_aloud, "base", "Deployment", f"{WORKER}/env", [{"name": "KAFKA_PASSWORD", "value": "hunter2"}]),
    (checks.no_secret_is_said_aloud, "base", "ServiceAccount", "kind", "Secret"),
    (checks.options_are_known, "base", "ConfigMap", "data/GENWATCH_CONCURENCY", "64"),
    (checks.files_that_are_named_are_mounted, "base", "Deployment", f"{WORKER}/volumeMounts/0/mountPath", "/etc/kafka"),
    (checks.files_that_are_named_are_mounted, "base", "Deployment", f"{POD}/volumes/0/secret/defaultMode", 0o444),
    (checks.files_that_are_named_are_mounted, "strimzi", "Deployment", f"{CA}/items/0/path", "a.crt"),
    (checks.what_is_referred_to_is_there, "base", "ServiceAccount", "metadata/name", "worker"),
    (checks.what_is_referred_to_is_there, "managed", "Job", f"{WORKER}/envFrom/0/configMapRef/name", "genwatch"),
    (checks.what_is_referred_to_is_there, "base", "Deployment", f"{POD}/volumes/0/secret/secretName", "client"),
    (checks.what_is_referred_to_is_there, "strimzi with keda", "TriggerAuthentication", "spec/secretTargetRef/0/name", "ca"),
    (checks.selectors_find_what_they_are_for, "managed", "PodDisruptionBudget", "spec/selector", NAMED_ONLY),
    (checks.selectors_find_what_they_are_for, "README.md", "PodMonitor", "spec/selector", OTHERS),
    (checks.selectors_find_what_they_are_for, "managed", "NetworkPolicy", "spec/podSelector", OTHERS),
    (checks.network_policies_let_out_to_what_is_needed_only, "base", "NetworkPolicy", "spec/egress/1", {}),
    (checks.network_policies_let_out_to_what_is_needed_only, "base", "NetworkPolicy", "spec/ingress/0/from", ABSENT),
    (checks.network_policies_let_out_to_what_is_needed_only, "base", "NetworkPolicy", "spec/policyTypes", ["Ingress"]),
    (checks.network_policies_let_out_to_what_is_needed_only, "base", "ConfigMap", "data/GENWATCH_BROKERS", "kafka:19092"),
    (checks.partitions_are_the_same_everywhere, "managed with keda", "ScaledObject", "spec/maxReplicaCount", 13),
    (checks.partitions_are_the_same_everywhere, "managed with keda", "Deployment", "spec/replicas", 2),
    (checks.partitions_are_the_same_everywhere, "strimzi", "KafkaTopic genwatch-state", "spec/partitions", 6),
    (checks.partitions_are_the_same_everywhere, "base", "ConfigMap", "data/GENWATCH_PARTITIONS", "1"),
    (checks.keda_measures_a_backlog, "managed with keda", "ScaledObject", "spec/pollingInterval", 1),
    (checks.keda_measures_a_backlog, "managed with keda", "ScaledObject", "spec/minReplicaCount", 0),
    (checks.keda_measures_a_backlog, "managed with keda", "ScaledObject", f"{TRIGGER}/metadata/lagTreshold", "1"),
    (checks.keda_measures_a_backlog, "managed with keda", "ScaledObject", f"{TRIGGER}/metadata/allowIdleConsumers", "true"),
    (checks.keda_measures_a_backlog, "managed with keda", "ScaledObject", f"{TRIGGER}/authenticationRef", ABSENT),
    (checks.keda_measures_a_backlog, "strimzi with keda", "TriggerAuthentication", "spec/secretTargetRef/1/parameter", "crt"),
    (checks.metrics_are_asked_for_where_they_are, "README.md", "PodMonitor", "spec/podMetricsEndpoints/0/port", "metrics"),
    (checks.the_topics_are_those_that_genwatch_uses, "strimzi", "KafkaTopic genwatch-state", "spec/config/cleanup.policy", "delete"),
    (checks.the_topics_are_those_that_genwatch_uses, "strimzi", "KafkaTopic genwatch-state", "spec/topicName", "genwatch-state"),
    (checks.the_topics_are_those_that_genwatch_uses, "managed", "Job", "spec/ttlSecondsAfterFinished", ABSENT),
    (checks.each_user_may_do_its_service_s_job_and_nothing_else, "strimzi", "KafkaUser", f"{ACL}/0/operations/0", "All"),
    (checks.each_user_may_do_its_service_s_job_and_nothing_else, "strimzi", "KafkaUser", f"{ACL}/5/resource/name", "genwatch_"),
    (checks.each_user_may_do_its_service_s_job_and_nothing_else, "strimzi", "ConfigMap genwatch-", "data/GENWATCH_GROUP", "other"),
    # For the other services.
    (checks.every_object_is_valid_by_its_schema, ALL, "PrometheusRule", "spec/groups/0/rules/0/expression", "1"),
    (checks.the_grace_period_outlasts_draining, ALL, "Deployment genwatch-bridge", f"{POD}/terminationGracePeriodSeconds", 20),
    (checks.the_grace_period_outlasts_draining, ALL, "Deployment genwatch-sink", f"{POD}/terminationGracePeriodSeconds", 15),
    (checks.probes_ask_what_the_worker_serves, ALL, "Deployment genwatch-sink", f"{WORKER}/livenessProbe/httpGet/path", "/readyz"),
    (checks.image_and_ports_are_those_of_the_dockerfile, ALL, "Deployment genwatch-bridge", f"{WORKER}/args/2", "127.0.0.1:8080"),
    (checks.every_container_is_confined, ALL, "Deployment genwatch-sink", f"{WORKER}/resources/limits", {}),
    (checks.no_secret_is_said_aloud, ALL, "ConfigMap genwatch-sink", "data/GENWATCH_TOKEN", "hunter2"),
    (checks.no_secret_is_said_aloud, ALL, "ConfigMap genwatch-bridge", "data/GENWATCH_MQTT_PASSWORD_FILE", "hunter2"),
    (checks.options_are_known, ALL, "ConfigMap genwatch-bridge", "data/GENWATCH_MQTT_URL", "mqtt://mosquitto"),
    (checks.files_that_are_named_are_mounted, ALL, "ConfigMap genwatch-sink", "data/GENWATCH_CA_FILE", "/etc/ssl/ca.crt"),
    (checks.what_is_referred_to_is_there, ALL, "Deployment genwatch-bridge", f"{POD}/volumes/1/secret/secretName", "mqtt"),
    (checks.selectors_find_what_they_are_for, ALL, "NetworkPolicy genwatch-sink", "spec/podSelector", NAMED_ONLY),
    (checks.selectors_find_what_they_are_for, ALL, "PodMonitor", "spec/selector/matchExpressions/0/values", ["worker"]),
    (checks.network_policies_let_out_to_what_is_needed_only, ALL, "NetworkPolicy genwatch-bridge", "spec/egress/0/ports/1/port", 8884),
    (checks.network_policies_let_out_to_what_is_needed_only, ALL, "ConfigMap genwatch-sink", "data/GENWATCH_URL", "https://influxdb:9999"),
    (checks.network_policies_let_out_to_what_is_needed_only, ALL, "NetworkPolicy genwatch-sink", "spec/egress/0", {}),
    (checks.metrics_are_asked_for_where_they_are, ALL, "PodMonitor", "spec/jobLabel", ABSENT),
    (checks.alarms_are_those_of_the_compose_stack, ALL, "PrometheusRule", "spec/groups/0/rules/0/for", "2m"),
    (checks.alarms_are_those_of_the_compose_stack, ALL, "PrometheusRule", "spec/groups/1/rules/0/labels", ABSENT),
    (checks.alarms_are_those_of_the_compose_stack, ALL, "PrometheusRule", "spec/groups/2/rules/1/expr", "genwatch_sink_retry > 0"),
    (checks.the_topics_are_those_that_genwatch_uses, "strimzi", "KafkaTopic emergency-generators-1m", "kind", "KafkaTable"),
    (checks.the_topics_are_those_that_genwatch_uses, "strimzi", "KafkaTopic emergency-generators-status", "spec/config/cleanup.policy", "delete"),
    (checks.the_topics_are_those_that_genwatch_uses, "strimzi", "KafkaTopic emergency-generators-dlq", "spec/config/message.timestamp.after.max.ms", ABSENT),
    (checks.the_topics_are_those_that_genwatch_uses, "strimzi", "KafkaTopic genwatch-state", "spec/config/message.timestamp.type", "LogAppendTime"),
    (checks.the_topics_are_those_that_genwatch_uses, "strimzi", "KafkaTopic genwatch-state", "spec/config/segment.ms", ABSENT),
    (checks.the_topics_are_those_that_genwatch_uses, "strimzi", "KafkaTopic emergency-generators-dlq", "spec/config/retention.ms", ABSENT),
    (checks.each_user_may_do_its_service_s_job_and_nothing_else, SERVICES, "KafkaUser genwatch-bridge", f"{ACL}/0/operations", ["Read"]),
    (checks.each_user_may_do_its_service_s_job_and_nothing_else, SERVICES, "KafkaUser genwatch-sink", f"{ACL}/4/resource/name", "genwatch"),
    (checks.each_user_may_do_its_service_s_job_and_nothing_else, SERVICES, "KafkaUser genwatch-sink", f"{ACL}/3/operations", ["Describe"]),
    (checks.each_user_may_do_its_service_s_job_and_nothing_else, SERVICES, "KafkaUser genwatch-sink", "kind", "KafkaUsers"),
    # For aggregates.
    (checks.the_grace_period_outlasts_draining, ALL, "Deployment genwatch-downsample", f"{POD}/terminationGracePeriodSeconds", 30),
    (checks.every_container_is_confined, ALL, "Deployment genwatch-downsample", f"{POD}/automountServiceAccountToken", True),
    (checks.image_and_ports_are_those_of_the_dockerfile, ALL, "Deployment genwatch-downsample", f"{WORKER}/args/0", "downsampler"),
    (checks.options_are_known, ALL, "ConfigMap genwatch-downsample", "data/GENWATCH_WINDOWS", "1m"),
    (checks.what_is_referred_to_is_there, ALL, "Deployment genwatch-downsample", f"{POD}/volumes/0/secret/secretName", "genwatch-1m"),
    (checks.selectors_find_what_they_are_for, ALL, "PodDisruptionBudget genwatch-downsample", "spec/selector/matchLabels", {"app.kubernetes.io/component": "worker"}),
    (checks.selectors_find_what_they_are_for, ALL, "PodDisruptionBudget genwatch-downsample", "metadata/name", "genwatch"),
    (checks.selectors_find_what_they_are_for, ALL, "Deployment genwatch-downsample", f"{POD}/topologySpreadConstraints/0/labelSelector", OTHERS),
    (checks.selectors_find_what_they_are_for, ALL, "PodMonitor", "spec/selector/matchExpressions/0/values", ["worker", "bridge", "sink", "source"]),
    (checks.partitions_are_the_same_everywhere, ALL, "ScaledObject genwatch-downsample", "spec/maxReplicaCount", 3),
    (checks.partitions_are_the_same_everywhere, ALL, "Deployment genwatch-downsample", "spec/replicas", 2),
    (checks.partitions_are_the_same_everywhere, AGGREGATES, "KafkaTopic genwatch-1m-state", "spec/partitions", 1),
    (checks.keda_measures_a_backlog, ALL, "ScaledObject genwatch-downsample", f"{TRIGGER}/metadata/consumerGroup", "genwatch"),
    (checks.keda_measures_a_backlog, ALL, "ScaledObject genwatch-downsample", "spec/scaleTargetRef/name", "genwatch"),
    (checks.keda_measures_a_backlog, ALL, "ScaledObject genwatch-downsample", "spec/pollingInterval", 15),
    (checks.keda_measures_a_backlog, AGGREGATES, "TriggerAuthentication genwatch-downsample", "spec/secretTargetRef/1/parameter", "crt"),
    (checks.aggregates_are_committed_at_their_own_pace, ALL, "ConfigMap genwatch-downsample", "data/GENWATCH_COMMIT_INTERVAL", "100ms"),
    (checks.the_topics_are_those_that_genwatch_uses, AGGREGATES, "KafkaTopic genwatch-1m-state", "spec/topicName", "genwatch_1m"),
    (checks.the_topics_are_those_that_genwatch_uses, AGGREGATES, "KafkaTopic genwatch-1m-state", "spec/config/cleanup.policy", "delete"),
    (checks.each_user_may_do_its_service_s_job_and_nothing_else, AGGREGATES, "KafkaUser genwatch-downsample", f"{ACL}/1/operations", ["Read", "Write"]),
    (checks.each_user_may_do_its_service_s_job_and_nothing_else, AGGREGATES, "KafkaUser genwatch-downsample", f"{ACL}/4/resource/name", "genwatch"),
    # For the source.
    (checks.the_grace_period_outlasts_draining, ALL, "Deployment genwatch-source", f"{POD}/terminationGracePeriodSeconds", 5),
    (checks.options_are_known, ALL, "ConfigMap genwatch-source", "data/GENWATCH_TOPIC_TO", "rows"),
    (checks.what_is_referred_to_is_there, ALL, "Deployment genwatch-source", f"{POD}/volumes/1/secret/secretName", "influxdb"),
    (checks.files_that_are_named_are_mounted, ALL, "ConfigMap genwatch-source", "data/GENWATCH_TOKEN_FILE", "/etc/genwatch-influxdb/token"),
    (checks.selectors_find_what_they_are_for, ALL, "PodMonitor", "spec/selector/matchExpressions/0/values", ["worker", "downsample", "bridge", "sink"]),
    (checks.network_policies_let_out_to_what_is_needed_only, ALL, "ConfigMap genwatch-source", "data/GENWATCH_URL", "https://influxdb:9999"),
    (checks.a_source_never_runs_twice, ALL, "Deployment genwatch-source", "spec/replicas", 2),
    (checks.a_source_never_runs_twice, ALL, "Deployment genwatch-source", "spec/strategy", {"rollingUpdate": {"maxSurge": 1}}),
    (checks.a_source_asks_what_is_tested, ALL, "ConfigMap genwatch-source", "data/GENWATCH_QUERY", "from(bucket: \"generators\")"),
    (checks.partitions_are_the_same_everywhere, SERVICES, "KafkaTopic emergency-generators-influx", "spec/partitions", 1),
    (checks.the_topics_are_those_that_genwatch_uses, SERVICES, "KafkaTopic genwatch-sources", "spec/topicName", "genwatch_cursors"),
    (checks.the_topics_are_those_that_genwatch_uses, SERVICES, "ConfigMap genwatch-source", "data/GENWATCH_TO_TOPIC", "rows"),
    (checks.each_user_may_do_its_service_s_job_and_nothing_else, SERVICES, "KafkaUser genwatch-source", f"{ACL}/2/resource/name", "genwatch-"),
    # For Kafka Connect.
    (checks.every_object_is_valid_by_its_schema, CONNECT, "KafkaConnect", "spec/groupID", "genwatch-connect"),
    (checks.every_object_is_valid_by_its_schema, CONNECT, "KafkaConnect", "spec/groupId", ABSENT),
    (checks.every_object_is_valid_by_its_schema, CONNECT, "KafkaConnect", "metadata/annotations", {}),
    (checks.every_object_is_valid_by_its_schema, CONNECT, "KafkaConnect", "spec/template/connectContainer/volumeMounts/0/mountPath", "/run/influxdb"),
    (checks.every_object_is_valid_by_its_schema, CONNECT, "KafkaConnector", "spec/tasksMax", "3"),
    (checks.every_object_is_valid_by_its_schema, CONNECT, "KafkaConnector", "metadata/labels", {}),
    (checks.each_user_may_do_its_service_s_job_and_nothing_else, CONNECT, "KafkaConnect", "spec/statusStorageTopic", "status"),
    (checks.each_user_may_do_its_service_s_job_and_nothing_else, CONNECT, "KafkaConnector", "metadata/name", "influxdb"),
    (checks.the_connector_is_the_one_that_is_tested, CONNECT, "KafkaConnector", "spec/tasksMax", 4),
    (checks.the_connector_is_the_one_that_is_tested, CONNECT, "KafkaConnector", "spec/config/transforms.line.precision", "ms"),
    (checks.the_connector_is_the_one_that_is_tested, CONNECT, "KafkaConnector", "spec/config/errors.tolerance", ABSENT),
    (checks.the_connector_is_the_one_that_is_tested, CONNECT, "KafkaConnector", "metadata/labels", {"strimzi.io/cluster": "my-cluster"}),
    (checks.the_connector_is_the_one_that_is_tested, CONNECT, "KafkaConnect", "spec/template/connectContainer/volumeMounts/0/mountPath", "/mnt/token"),
    (checks.the_connector_is_the_one_that_is_tested, CONNECT, "KafkaConnect", "spec/logging/loggers/logger.camel.level", "INFO"),
]


def unnoticed(renderings: dict) -> list[str]:
    """The mutations that their checks miss, and the checks without any."""
    found = [f"no mutation breaks '{one.__name__}'" for one in checks.CHECKS if one not in {what[0] for what in MUTATIONS}]
    for notices, name, kind, path, value in MUTATIONS:
        broken = copy.deepcopy(renderings[name])
        thing = _break(broken.objects, kind, path, value)
        if notices is checks.every_object_is_valid_by_its_schema:
            broken.objects = [thing]
        if not list(notices(broken)):
            found.append(f"{name}: '{notices.__name__}' misses {kind} {path} = {'absent' if value is ABSENT else value}")
    return found


def _break(objects: list[dict], kind: str, path: str, value) -> dict:
    kind, _, prefix = kind.partition(" ")
    thing = next(one for one in objects if one["kind"] == kind and one["metadata"]["name"].startswith(prefix))
    *way, last = [int(step) if step.isdigit() else step for step in path.split("/")]
    parent = thing
    for step in way:
        parent = parent[step]
    if value is ABSENT:
        del parent[last]
    else:
        parent[last] = value
    return thing
