"""Compares one-minute aggregates with a batch over the readings, and says how soon they were visible.

Nothing here is shared with genwatch: it follows docs/formats.md. A line is partition, offset, timestamp, key and value,
with tabs between them, as kcat prints it.
"""

import argparse
import bisect
import json
import math
import sys
import time
from collections import defaultdict
from pathlib import Path

WINDOW = 60_000
# How long after it is due an aggregate may take to be visible: in half of the windows, and in any. A machine that is
# busy with something else stalls the brokers for seconds now and then; an aggregate that is slow by itself is always so.
SOON = 5_000
AT_LAST = 20_000
FIELDS = ("temperature", "pressure", "fuel", "load", "power")


def watch() -> None:
    for line in sys.stdin:
        print(int(time.time() * 1000), line, sep="\t", end="", flush=True)


def records(path: Path):
    for line in path.open():
        partition, offset, at, key, value = line.rstrip("\n").split("\t", 4)
        yield int(partition), int(offset), int(at), key, value


def batch(path: Path):
    """The readings of each generator in each window, in the order of the log, and the times of each partition."""
    windows, times = defaultdict(list), defaultdict(list)
    for partition, _, at, key, value in records(path):
        times[partition].append(at)
        if value:
            windows[key, at // WINDOW * WINDOW].append((at, partition, json.loads(value)))
    return windows, {partition: sorted(those) for partition, those in times.items()}


def differences(readings: list, aggregate: dict):
    if aggregate["count"] != len(readings):
        yield f"count is {aggregate['count']}, not {len(readings)}"
    for field in FIELDS:
        those = [(at, reading[field]) for at, _, reading in readings if reading.get(field) is not None]
        found = aggregate["fields"].get(field)
        if not those or found is None:
            if bool(those) != (found is not None):
                yield f"{field} is {found}, of {len(those)} readings"
            continue
        values = sorted(value for _, value in those)
        latest = max(at for at, _ in those)
        wanted = {"min": values[0], "max": values[-1], "last": [value for at, value in those if at == latest][-1]}
        for name, value in wanted.items():
            if found[name] != value:
                yield f"{field}.{name} is {found[name]}, not {value}"
        mean = math.fsum(values) / len(values)
        if not math.isclose(found["mean"], mean, rel_tol=1e-12, abs_tol=1e-12):
            yield f"{field}.mean is {found['mean']}, not {mean}"
        for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
            exact = values[math.floor(share * (len(values) - 1))]
            if abs(found[name] - exact) > 0.01 * abs(exact) + 1e-12:
                yield f"{field}.{name} is {found[name]}, {exact} is more than 1 % away"


def due(times: list, end: int, grace: int) -> float:
    """When a window is to be closed: by the partition's next reading, or by the clock when the partition is quiet."""
    behind = bisect.bisect_left(times, end + grace)
    quiet = max(end + grace, times[behind - 1] + grace)
    return min(times[behind], quiet) if behind < len(times) else quiet


def compare(arguments) -> int:
    windows, times = batch(arguments.readings)
    troubles = [tuple(map(int, one.split("-"))) for one in arguments.trouble]
    complaints, found, revisions = [], {}, 0
    for partition, offset, at, key, value in records(arguments.aggregates):
        aggregate = json.loads(value)
        window = key, aggregate["window"]["start"]
        where = f"aggregate {partition}/{offset} of {key}, window {window[1]}"
        if window not in windows:
            complaints.append(f"{where}: there is no such reading")
            continue
        if (aggregate["generatorID"], aggregate["window"]["end"], aggregate["final"]) != (key, window[1] + WINDOW, True):
            complaints.append(f"{where}: {value}")
        if at != window[1] + WINDOW or partition != windows[window][0][1]:
            complaints.append(f"{where}: its time is {at}, its readings are in partition {windows[window][0][1]}")
        wanted = None if window not in found else found[window].get("revision", 0) + 1
        if aggregate.get("revision") != wanted:
            complaints.append(f"{where} has revision {aggregate.get('revision')}, not {wanted}")
        revisions += wanted is not None
        found[window] = aggregate

    compared = 0
    for (key, start), readings in sorted(windows.items()):
        if due(times[readings[0][1]], start + WINDOW, arguments.grace) + SOON >= arguments.now:
            continue
        if (key, start) not in found:
            complaints.append(f"{key}, window {start}: {len(readings)} readings, and no aggregate")
            continue
        compared += 1
        complaints += [f"{key}, window {start}: {one}" for one in differences(readings, found[key, start])]

    behind_end, worst = [], {}
    for line in arguments.seen.open():
        seen, _, _, _, key, value = line.rstrip("\n").split("\t", 5)
        aggregate = json.loads(value)
        window = key, aggregate["window"]["start"]
        if "revision" in aggregate or window not in windows:
            continue
        end = aggregate["window"]["end"]
        at = due(times[windows[window][0][1]], end, arguments.grace)
        if any(low - SOON <= at <= high for low, high in troubles):
            continue
        worst[end] = max(worst.get(end, 0), int(seen) - at)
        if int(seen) - at > AT_LAST:
            complaints.append(f"{key}, window {window[1]}: visible {int(seen) - at} ms after it was due")
        if at < end + arguments.grace + 1_000:
            behind_end.append(int(seen) - end)
    late = [one for one in worst.values() if one > SOON]
    if 2 * len(late) > len(worst):
        complaints.append(f"{len(late)} of {len(worst)} windows were not visible {SOON} ms after they were due: {sorted(late)} ms")
    if not behind_end:
        complaints.append("no window was closed by the next readings: nothing was measured")
    if compared == 0:
        complaints.append("no window is due: nothing was compared")
    for one in complaints[:20]:
        print(one)
    if complaints:
        print(f"{len(complaints)} complaints")
        return 1
    seconds = lambda those, share: sorted(those)[math.floor(share * (len(those) - 1))] / 1000
    closed = len({window for _, window in found})
    behind_due = ", ".join(f"{one / 1000:.1f}" for _, one in sorted(worst.items()))
    print(
        f"{compared} aggregates of {closed} windows equal the batch, {revisions} revisions; {len(behind_end)} were visible "
        f"{seconds(behind_end, 0.5):.1f} s (half of them) to {seconds(behind_end, 1):.1f} s (all) after their window's end; "
        f"the last of each window {behind_due} s after it was due"
    )
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("watch", help="prints each line of the input behind the time at which it came")
    comparing = commands.add_parser("compare")
    for name in ("readings", "aggregates", "seen"):
        comparing.add_argument(f"--{name}", type=Path, required=True)
    comparing.add_argument("--now", type=int, required=True, help="before the readings were read")
    comparing.add_argument("--grace", type=int, required=True)
    comparing.add_argument("--trouble", action="append", default=[], metavar="FROM-TO")
    arguments = parser.parse_args()
    return watch() or 0 if arguments.command == "watch" else compare(arguments)


sys.exit(main())
