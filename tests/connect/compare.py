"""Both sinks in turns, in one run: the same readings, the same InfluxDB, the same three consumers."""

import json
import statistics
import subprocess
import time

from world import TOPIC, World, terminate, wait_for

AGGREGATE = {
    "camel.beans.aggregate": "#class:org.apache.camel.kafkaconnector.aggregator.StringAggregator",
    "camel.aggregation.timeout": "1000",
}
VARIANTS = ("native", "connect", "connect, aggregated")
LIVE_RATE = 300
LIVE_SECONDS = 40
# The native sink waits up to a second for a batch to fill.
FRESH_SECONDS = 2.5


class Turn:
    """One sink on one bucket of its own."""

    def __init__(self, world: World, variant: str, number: int):
        self.world, self.variant = world, variant
        self.name = f"{variant.split(',')[0]}{'-aggregated' if ',' in variant else ''}-{number}"
        world.create_bucket(self.name)
        self.processes: list[subprocess.Popen] = []

    @property
    def group(self) -> str:
        return f"{self.name}_influx" if self.variant == "native" else f"connect-{self.name}"

    def start(self, aggregation: str = "1000") -> None:
        if self.variant == "native":
            self.start_native()
            return
        more = {**AGGREGATE, "camel.aggregation.size": aggregation} if "aggregated" in self.variant else {}
        configuration = self.world.configuration(**more)
        configuration["camel.sink.url"] = configuration["camel.sink.url"].replace("bucket=connect", f"bucket={self.name}")
        self.world.rest(f"/connectors/{self.name}/config", configuration, "PUT")

    def start_native(self) -> None:
        self.processes.append(
            self.world.start("sink", "influx", "--group", self.name, *self.world.sink_options(self.name), log="sink")
        )

    def stop(self) -> None:
        for process in self.processes:
            terminate(process)
        if self.variant != "native":
            self.world.rest(f"/connectors/{self.name}", method="DELETE")

    def pids(self) -> list[int]:
        return [one.pid for one in self.processes] if self.processes else self.world.worker_pids()

    def first_point(self) -> float:
        return wait_for("a first point is there", 90, lambda: self.world.count(self.name) > 0)

    def cpu_seconds(self) -> float:
        return sum(cpu_seconds(pid) for pid in self.pids())


def cpu_seconds(pid: int) -> float:
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def backlog(turn: Turn, count: int) -> dict[str, float]:
    """Drains what is in the topic already."""
    connect = turn.variant != "native"
    cpu_before = turn.cpu_seconds() if connect else 0.0
    began = time.monotonic()
    turn.start()
    first = turn.first_point()
    wait_for("all is written", 300, lambda: turn.world.count(turn.name) >= count)
    seconds = time.monotonic() - began
    # The sink's own start counts; a worker of Connect runs already.
    result = {
        "first_point_s": first,
        "seconds": seconds,
        "records_per_s": count / seconds,
        # Of one sink, or of one of the two workers.
        "rss_mib": statistics.mean(turn.world.rss_mib(pid) for pid in turn.pids()),
        "cpu_us_per_record": (turn.cpu_seconds() - cpu_before) / count * 1e6,
    }
    turn.stop()
    return result


def fault(world: World, variant: str, number: int) -> dict[str, float]:
    """Kills one of two native sinks, or one of two workers, while readings come; how long until none is behind?"""
    turn = Turn(world, variant, number)
    world.skip_to_the_end(turn.group)
    # Batches that fill in about a second.
    turn.start(aggregation="100")
    if variant == "native":
        turn.start_native()
    else:
        wait_for("tasks run", 60, lambda: world.all_tasks_run(turn.name))
    count = LIVE_RATE * LIVE_SECONDS
    simulator = world.start("simulate", "--count", str(count), "--rate", str(LIVE_RATE), "--generators", "50",
                            "--seed", str(100 + number), log="simulate")  # fmt: skip
    wait_for("readings flow", 30, lambda: world.count(turn.name) >= 5 * LIVE_RATE)
    if variant == "native":
        victim = turn.processes.pop(0)
        victim.kill()
        victim.wait(10)
    else:
        world.script("connect", "kill-worker", "1")
    began = time.monotonic()
    # Caught up: every generator's newest point is fresh, and stays so.
    caught_up = None
    while simulator.poll() is None:
        now = time.monotonic()
        if world.staleness(turn.name) > FRESH_SECONDS:
            caught_up = None
        elif caught_up is None:
            caught_up = now - began
        time.sleep(0.2)
    assert caught_up is not None, f"{variant} did not catch up while readings came"
    missing = 0
    try:
        wait_for("all is written", 20, lambda: world.count(turn.name) >= count)
    except AssertionError:
        missing = count - world.count(turn.name)
    if variant != "native":
        world.script("connect", "start-worker", "1")
    turn.stop()
    return {"catch_up_s": caught_up, "missing": missing}


def run(world: World, count: int, repetitions: int) -> None:
    print(json.dumps({"workers_start_s": round(world.connect_seconds, 1)}), flush=True)
    world.simulate(count, 1, "--rate", "0", "--generators", "50")
    results: dict[str, dict[str, list[float]]] = {variant: {} for variant in VARIANTS}

    def note(variant: str, figures: dict[str, float]) -> None:
        print(json.dumps({"variant": variant, **{name: round(value, 2) for name, value in figures.items()}}), flush=True)
        for name, value in figures.items():
            results[variant].setdefault(name, []).append(value)

    for repetition in range(repetitions):
        for variant in VARIANTS:
            note(variant, backlog(Turn(world, variant, repetition), count))
    for repetition in range(repetitions, 2 * repetitions):
        for variant in VARIANTS:
            note(variant, fault(world, variant, repetition))
    report(results, count, repetitions)


def report(results: dict[str, dict[str, list[float]]], count: int, repetitions: int) -> None:
    print(f"\n{TOPIC}: {count} readings, 6 partitions, medians of {repetitions} turns (all turns)\n")
    names = list(results["native"])
    print("| | " + " | ".join(names) + " |\n|---|" + "---|" * len(names))
    for variant, figures in results.items():
        cells = [f"{statistics.median(figures[name]):.4g} ({', '.join(f'{one:.4g}' for one in figures[name])})" for name in names]
        print(f"| {variant} | " + " | ".join(cells) + " |")
    for variant in VARIANTS[1:]:
        ratios = [statistics.median(results[variant][name]) / (statistics.median(results["native"][name]) or 1) for name in names]
        print(f"| {variant}, relative to native | " + " | ".join(f"{ratio:.2g}" for ratio in ratios) + " |")
