"""The tests: one story on one Kafka, one InfluxDB and one Connect, in this order."""

import time

from world import CONNECTOR, DEAD_LETTERS, TOPIC, World, differences, terminate, wait_for

READING = '{"generatorID":"%s","lat":40.65995,"lon":-111.99633,"temperature":74,"pressure":198,"fuel":%s}'

# Readings that are unlike those of the simulator.
ODD = [
    ("a,b=c d", '{"generatorID":"a,b=c d","lat":-0.0,"lon":180,"temperature":1e2,"pressure":0.1,"fuel":1E-7}'),
    ("Zürich ☃", '{"generatorID":"Z\\u00fcrich ☃","lat":90,"lon":-180,"temperature":-40,"pressure":1,"fuel":12345678901234567890}'),
    ("full", '{"generatorID":"full","lat":1,"lon":2,"temperature":3,"pressure":4,"fuel":5,"load":80,"power":123.25}'),
    ("null", '{"generatorID":"null","lat":1,"lon":2,"temperature":3,"pressure":4,"fuel":5,"load":null}'),
]
# Not readings, with the code of the worker's dead letters.
BAD = [
    ("not_json", "bad1", '{"generatorID":"bad1",'),
    ("missing_field", "bad2", '{"generatorID":"bad2","lat":1,"lon":2,"temperature":3,"pressure":4}'),
    ("wrong_type", "bad3", READING % ("bad3", '"901"')),
    ("key_mismatch", "bad4", READING % ("generator1", "1")),
]


class Story:
    def __init__(self, world: World):
        self.world = world
        self.readings = 0

    def everything_is_written(self, seconds: float = 60) -> float:
        return wait_for(
            f"{self.readings} readings are in InfluxDB", seconds, lambda: self.world.count("connect") >= self.readings
        )

    def compare_with_the_native_sink(self) -> dict:
        summary = self.world.native_sink()
        ours, native = self.world.points("connect"), self.world.points("native")
        found = differences(ours, native)
        assert not found, f"{len(found)} differences between Connect's points and the native sink's, such as {found[:3]}"
        assert len(ours) == self.readings, f"{self.readings} readings are {len(ours)} points"
        return summary

    def a_comparison_notices_a_missing_a_strange_and_a_changed_point(self) -> None:
        right = {("g", "1"): {"fuel": 1.0}, ("g", "2"): {"fuel": 2.0}}
        assert differences(right, dict(right)) == []
        assert differences(right, {("g", "1"): {"fuel": 1.0}}) == ["only in the first: ('g', '2')"]
        assert differences({("g", "1"): {"fuel": 1.0}}, right) == ["only in the second: ('g', '2')"]
        assert len(differences(right, {**right, ("g", "2"): {"fuel": 2.5}})) == 1
        assert len(differences(right, {**right, ("g", "2"): {}})) == 1

    def each_reading_is_one_point_equal_to_the_native_sinks(self) -> None:
        self.world.put_connector(CONNECTOR, self.world.configuration())
        self.world.simulate(6000, 1, "--rate", "0", "--generators", "50")
        self.world.produce(ODD)
        self.readings += 6000 + len(ODD)
        self.everything_is_written()
        summary = self.compare_with_the_native_sink()
        assert summary["points"] == self.readings, summary

    def a_bad_record_is_a_dead_letter_with_its_context(self) -> None:
        self.world.produce([(key, value) for _, key, value in BAD] + [("full", "NULL")])
        # The readings behind them are written: none of them holds up its partition.
        self.world.produce([(key, READING % (key, "7")) for _, key, _ in BAD])
        self.readings += len(BAD)
        self.everything_is_written()
        letters = {letter["key"]: letter for letter in self.world.dead_letters(len(BAD))}
        assert len(letters) == len(BAD), letters
        for code, key, value in BAD:
            letter = letters[key]
            assert letter["value"] == value, letter
            assert letter["__connect.errors.topic"] == TOPIC, letter
            assert letter["__connect.errors.connector.name"] == CONNECTOR, letter
            assert letter["__connect.errors.stage"] == "TRANSFORMATION", letter
            assert letter["__connect.errors.exception.message"].startswith(code), letter
            assert int(letter["__connect.errors.offset"]) >= 0 and int(letter["__connect.errors.partition"]) >= 0, letter
        # A tombstone is neither a point nor a dead letter.
        assert sum(self.world.ends(DEAD_LETTERS).values()) == len(BAD)
        summary = self.compare_with_the_native_sink()
        assert summary["skipped"] == len(BAD) + 1, summary

    def a_point_that_influxdb_refuses_holds_up_no_other(self) -> None:
        self.world.create_bucket("refused")
        # A field keeps its first type, so readings with a number there are refused. Not all have one.
        self.world.write("refused", f'{TOPIC},generatorID=other power="a text" {time.time_ns()}')
        fit = sum("power" not in fields for fields in self.world.points("connect").values())
        assert 0 < fit < self.readings, fit
        url = self.world.configuration()["camel.sink.url"].replace("bucket=connect", "bucket=refused")
        changes = {"camel.sink.url": url, "errors.deadletterqueue.topic.name": "refused_dlq"}
        self.world.put_connector("refused", self.world.configuration(**changes))
        wait_for("all other readings are written", 60, lambda: self.world.count("refused") >= fit)
        end = sum(self.world.ends(TOPIC).values())
        wait_for("nothing is behind", 20, lambda: self.world.committed("refused") == end)
        assert self.world.count("refused") == fit
        assert sum(self.world.ends("refused_dlq").values()) == len(BAD), "a refused reading is a dead letter"
        self.world.rest("/connectors/refused", method="DELETE")

    def a_killed_worker_loses_no_reading(self) -> None:
        simulator = self.world.start(
            "simulate", "--count", "9000", "--rate", "600", "--seed", "2", "--generators", "50", log="simulate"
        )
        wait_for("readings flow", 30, lambda: self.world.count("connect") > self.readings + 600)
        # The last worker answers the test's questions.
        worker, victim = next(
            (number, url) for number, url in enumerate(self.world.urls, 1)
            if url != self.world.urls[-1] and url in [url for _, url in self.world.tasks(CONNECTOR)]
        )  # fmt: skip
        self.world.script("connect", "kill-worker", str(worker))
        moved = wait_for("its tasks run elsewhere", 60, lambda: self.world.all_tasks_run(CONNECTOR, without=victim))
        simulator.communicate(timeout=60)
        self.readings += 9000
        written = self.everything_is_written()
        print(f"its tasks moved after {moved:.1f} s; all was written {written:.1f} s after the last reading", flush=True)
        self.compare_with_the_native_sink()
        self.world.script("connect", "start-worker", str(worker))

    def an_outage_of_influxdb_delays_readings_and_makes_no_dead_letter(self) -> None:
        self.world.script("influxdb", "kill")
        self.world.simulate(1000, 3, "--rate", "0", "--generators", "50")
        self.readings += 1000
        time.sleep(3)
        self.world.start_database()
        self.everything_is_written()
        assert sum(self.world.ends(DEAD_LETTERS).values()) == len(BAD)
        self.compare_with_the_native_sink()

    def the_token_is_in_no_log_and_no_answer(self) -> None:
        answers = [self.world.rest(path) for path in (f"/connectors/{CONNECTOR}", f"/connectors/{CONNECTOR}/tasks")]
        assert self.world.token not in str(answers)
        assert self.world.token not in self.world.connect_logs()

    def the_native_sink_continues_where_connect_stopped_and_connect_where_it_stopped(self) -> None:
        self.world.rest(f"/connectors/{CONNECTOR}/stop", method="PUT")
        wait_for("no task is left", 30, lambda: not self.world.tasks(CONNECTOR))
        self.carry_offsets(f"connect-{CONNECTOR}", "moved_influx")
        self.world.simulate(1000, 4, "--rate", "0", "--generators", "50")
        self.readings += 1000
        sink = self.world.start("sink", "influx", "--group", "moved", *self.world.sink_options("connect"), log="sink")
        self.everything_is_written()
        summary = terminate(sink)
        # It wrote what Connect had not written, and nothing else.
        assert summary["points"] == 1000, summary

        self.carry_offsets("moved_influx", f"connect-{CONNECTOR}", only=TOPIC)
        self.world.simulate(1000, 5, "--rate", "0", "--generators", "50")
        self.readings += 1000
        self.world.rest(f"/connectors/{CONNECTOR}/resume", method="PUT")
        self.everything_is_written()
        self.compare_with_the_native_sink()
        assert sum(self.world.ends(DEAD_LETTERS).values()) == len(BAD), "Connect has read bad records again"

    def carry_offsets(self, from_group: str, to_group: str, only: str = "") -> None:
        """As docs/connect.md describes it. Both groups must be without members."""
        groups = ("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", "--bootstrap-server", self.world.brokers)
        topics = ["--topic", only] if only else ["--all-topics"]
        exported = self.world.kafka_tool(
            *groups, "--group", from_group, "--reset-offsets", "--to-current", *topics, "--dry-run", "--export"
        )
        file = self.world.out / "offsets.csv"
        file.write_text("".join(line + "\n" for line in exported.splitlines() if line.startswith(TOPIC)))
        self.world.kafka_tool(*groups, "--group", to_group, "--reset-offsets", "--from-file", str(file), "--execute")


TESTS = [test for name, test in vars(Story).items() if name.startswith(("a_", "an_", "each_", "the_"))]
