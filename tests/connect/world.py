"""A Kafka, an InfluxDB and a Kafka Connect of the test's own, and genwatch beside them. Every wait has a deadline."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
CONFIGURATION = ROOT / "deploy/connect/camel-influxdb.json"
TOPIC = "emergency_generators"
DEAD_LETTERS = "emergency_generators_connect_dlq"
CONNECTOR = "influx"
PARTITIONS = 6

Point = tuple[str, str]  # generator, time
Fields = dict[str, float]


class World:
    """Starts everything on entry, and stops what it started on exit."""

    def __init__(self, out: Path, binary: Path, workers: int):
        self.out, self.binary, self.workers = out, binary, workers
        self.children: list[subprocess.Popen] = []

    def __enter__(self) -> "World":
        shutil.rmtree(self.out / "logs", ignore_errors=True)
        (self.out / "logs").mkdir(parents=True)
        try:
            self.brokers = self.script("kafka", "start", "--fresh").strip()
            self.start_database("--fresh")
            for bucket in ("connect", "native"):
                self.create_bucket(bucket)
            self.genwatch("topics", "create", "--partitions", str(PARTITIONS))
            began = time.monotonic()
            self.urls = self.script(
                "connect", "start", "--fresh", "--brokers", self.brokers, "--workers", str(self.workers)
            ).split()
            self.connect_seconds = time.monotonic() - began
            (self.out / "connect/secrets/token").write_text(self.token)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for child in self.children:
            if child.poll() is None:
                child.kill()
                child.wait(10)
        for name in ("connect", "influxdb", "kafka"):
            subprocess.run([ROOT / "scripts" / name, "stop", "--dir", self.out / name], check=False, timeout=120)

    # ---- programs

    def script(self, name: str, command: str, *options: str, timeout: float = 300) -> str:
        line = [str(ROOT / "scripts" / name), command, *options, "--dir", str(self.out / name)]
        return subprocess.run(line, check=True, stdout=subprocess.PIPE, text=True, timeout=timeout).stdout

    def kafka_tool(self, main: str, *arguments: str, text: str = "", timeout: float = 60) -> str:
        line = [str(ROOT / "scripts/kafka"), "tool", main, *arguments]
        with open(self.out / "logs" / f"{main.rsplit('.', 1)[-1]}.log", "a") as log:
            return subprocess.run(
                line, check=True, input=text, stdout=subprocess.PIPE, stderr=log, text=True, timeout=timeout
            ).stdout

    def start(self, *arguments: str, log: str) -> subprocess.Popen:
        with open(self.out / "logs" / f"{log}.log", "a") as file:
            child = subprocess.Popen(
                [self.binary, *arguments], env=self.environment(), stdout=subprocess.PIPE, stderr=file, text=True
            )
        self.children.append(child)
        return child

    def genwatch(self, *arguments: str, timeout: float = 90) -> str:
        child = self.start(*arguments, log=arguments[0])
        out, _ = child.communicate(timeout=timeout)
        if child.returncode != 0:
            raise AssertionError(f"genwatch {' '.join(arguments)} ended with {child.returncode}: see {self.out}/logs")
        return out

    def environment(self) -> dict[str, str]:
        others = {name: value for name, value in os.environ.items() if not name.startswith("GENWATCH_")}
        return {**others, "GENWATCH_BROKERS": self.brokers}

    def simulate(self, count: int, seed: int, *options: str) -> None:
        said = json.loads(self.genwatch("simulate", "--count", str(count), "--seed", str(seed), *options))
        assert said["delivered"] == count, said

    def produce(self, records: list[tuple[str, str]]) -> None:
        """Key and value; the value NULL is a tombstone."""
        self.kafka_tool(
            "org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", self.brokers, "--topic", TOPIC,
            *properties("--reader-property", "parse.key=true", "key.separator=|", "null.marker=NULL"),
            text="".join(f"{key}|{value}\n" for key, value in records),
        )  # fmt: skip

    def dead_letters(self, count: int) -> list[dict[str, str]]:
        """That many dead letters, as their headers, key and value."""
        lines = self.kafka_tool(
            "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", self.brokers, "--topic", DEAD_LETTERS,
            "--from-beginning", "--max-messages", str(count), "--timeout-ms", "20000",
            # Control characters, as one of the headers is a stack trace.
            *properties("--formatter-property", "print.headers=true", "print.key=true", "key.separator=\x1d"),
            *properties("--formatter-property", "headers.separator=\x1e", "line.separator=\x1f"),
        ).split("\x1f")  # fmt: skip
        letters = []
        for line in lines[:-1]:
            headers, key, value = line.split("\x1d")
            letters.append({**dict(header.split(":", 1) for header in headers.split("\x1e")), "key": key, "value": value})
        return letters

    def skip_to_the_end(self, group: str) -> None:
        """So that a new group begins with the next reading."""
        self.kafka_tool(
            "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--bootstrap-server", self.brokers, "--group", group,
            "--reset-offsets", "--to-latest", "--topic", TOPIC, "--execute",
        )  # fmt: skip

    def ends(self, topic: str) -> dict[int, int]:
        """The offsets at which its partitions end."""
        lines = self.kafka_tool(
            "org.apache.kafka.tools.GetOffsetShell", "--bootstrap-server", self.brokers, "--topic", topic
        ).split()
        return {int(partition): int(end) for _, partition, end in (line.rsplit(":", 2) for line in lines)}

    # ---- InfluxDB

    def start_database(self, *options: str) -> None:
        settings = dict(line.split("=", 1) for line in self.script("influxdb", "start", *options).split())
        self.url, self.org, self.token = (settings[f"GENWATCH_{name}"] for name in ("URL", "ORG", "TOKEN"))

    def ask_database(self, path: str, body: dict | None = None) -> str:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Token {self.token}", "Content-Type": "application/json"}
        return http(self.url + path, data, headers)

    def create_bucket(self, name: str) -> None:
        org = json.loads(self.ask_database("/api/v2/orgs?org=" + self.org))["orgs"][0]["id"]
        self.ask_database("/api/v2/buckets", {"orgID": org, "name": name})

    def write(self, bucket: str, line: str) -> None:
        headers = {"Authorization": f"Token {self.token}"}
        http(f"{self.url}/api/v2/write?org={self.org}&bucket={bucket}", line.encode(), headers)

    def flux(self, bucket: str, then: str) -> Iterator[dict[str, str]]:
        query = f'from(bucket: "{bucket}") |> range(start: 0, stop: 2200-01-01T00:00:00Z) {then}'
        text = self.ask_database("/api/v2/query?org=" + self.org, {"query": query})
        return csv.DictReader(io.StringIO(text.replace("\r\n\r\n", "\r\n")))

    def count(self, bucket: str) -> int:
        found = list(self.flux(bucket, '|> filter(fn: (r) => r._field == "fuel") |> group() |> count()'))
        return int(found[0]["_value"]) if found else 0

    def staleness(self, bucket: str) -> float:
        """The age of the newest point of the generator that has waited longest, in seconds."""
        newest = '|> filter(fn: (r) => r._field == "fuel") |> last() |> group() |> min(column: "_time")'
        found = list(self.flux(bucket, newest + '|> map(fn: (r) => ({_value: int(v: r._time)}))'))
        return time.time() - int(found[0]["_value"]) / 1e9

    def points(self, bucket: str) -> dict[Point, Fields]:
        points: dict[Point, Fields] = {}
        columns = '["_time", "_measurement", "_field", "_value", "generatorID"]'
        for row in self.flux(bucket, f'|> group() |> keep(columns: {columns})'):
            assert row["_measurement"] == TOPIC, row
            fields = points.setdefault((row["generatorID"], row["_time"]), {})
            assert row["_field"] not in fields, f"twice: {row}"
            fields[row["_field"]] = float(row["_value"])
        return points

    def native_sink(self, bucket: str = "native") -> dict:
        """Writes all that isn't written yet, and returns the summary."""
        out = self.genwatch("sink", "influx", "--exit-at-end", *self.sink_options(bucket))
        return json.loads(out)

    def sink_options(self, bucket: str) -> list[str]:
        return ["--url", self.url, "--org", self.org, "--bucket", bucket, "--token-file", str(self.out / "connect/secrets/token")]

    # ---- Connect

    def rest(self, path: str, body: dict | None = None, method: str | None = None) -> dict | list:
        data = None if body is None else json.dumps(body).encode()
        text = http(self.urls[-1] + path, data, {"Content-Type": "application/json"}, method)
        return json.loads(text) if text else {}

    def configuration(self, **changes: str) -> dict:
        """The committed configuration, for this world's addresses."""
        text = CONFIGURATION.read_text()
        for committed, ours in (
            ("http://influxdb:8086", self.url),
            ("org=genwatch", f"org={self.org}"),
            ("bucket=generators", "bucket=connect"),
            ("/run/influxdb", str(self.out / "connect/secrets")),
        ):
            assert committed in text, f"{CONFIGURATION} has no {committed}"
            text = text.replace(committed, ours)
        return {**json.loads(text), "errors.deadletterqueue.topic.replication.factor": "1", **changes}

    def put_connector(self, name: str, configuration: dict) -> None:
        self.rest(f"/connectors/{name}/config", configuration, "PUT")
        wait_for(f"the tasks of {name} run", 60, lambda: self.all_tasks_run(name))

    def tasks(self, name: str) -> list[tuple[str, str]]:
        """Each task's state, and the URL of its worker."""
        try:
            status = self.rest(f"/connectors/{name}/status")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return []
            raise
        return [(task["state"], "http://" + task["worker_id"]) for task in status["tasks"]]

    def committed(self, name: str) -> int:
        """The sum of a connector's offsets."""
        return sum(int(one["offset"]["kafka_offset"]) for one in self.rest(f"/connectors/{name}/offsets")["offsets"])

    def all_tasks_run(self, name: str, without: str = "") -> bool:
        tasks = self.tasks(name)
        failed = [state for state, _ in tasks if state == "FAILED"]
        assert not failed, self.rest(f"/connectors/{name}/status")
        return len(tasks) == 3 and all(state == "RUNNING" and url != without for state, url in tasks)

    def connect_logs(self) -> str:
        return "".join(log.read_text(errors="replace") for log in (self.out / "connect").glob("worker-*/connect.log"))

    def rss_mib(self, pid: int) -> float:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024

    def worker_pids(self) -> list[int]:
        return [int(file.read_text()) for file in sorted((self.out / "connect").glob("worker-*/pid"))]


def properties(option: str, *pairs: str) -> list[str]:
    return [word for pair in pairs for word in (option, pair)]


def http(url: str, data: bytes | None = None, headers: dict | None = None, method: str | None = None) -> str:
    request = urllib.request.Request(url, data, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        error.msg += ": " + error.read().decode(errors="replace")[:2000]
        raise


def wait_for(what: str, seconds: float, is_so: Callable[[], bool]) -> float:
    """Waits until it is so; returns the seconds that took."""
    began = time.monotonic()
    while not is_so():
        if time.monotonic() - began > seconds:
            raise AssertionError(f"not within {seconds} s: {what}")
        time.sleep(0.2)
    return time.monotonic() - began


def differences(ours: dict[Point, Fields], theirs: dict[Point, Fields]) -> list[str]:
    """What differs between two sets of points, in words."""
    found = [f"only in the first: {point}" for point in ours.keys() - theirs.keys()]
    found += [f"only in the second: {point}" for point in theirs.keys() - ours.keys()]
    found += [f"{point}: {ours[point]} and {theirs[point]}" for point in ours.keys() & theirs.keys() if ours[point] != theirs[point]]
    return sorted(found)


def terminate(child: subprocess.Popen) -> dict:
    """Ends a service as SIGTERM does, and returns its summary."""
    child.send_signal(signal.SIGTERM)
    out, _ = child.communicate(timeout=30)
    assert child.returncode == 0, f"it ended with {child.returncode}"
    return json.loads(out)
