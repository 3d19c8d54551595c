"""Kafka Connect beside the native sink, on a real Kafka and a real InfluxDB. scripts/connect runs it."""

import argparse
import signal
import sys
import time
import traceback
from pathlib import Path

import compare
import story
from world import World


def test(world: World) -> int:
    """Runs the tests in their order; prints a line for each and cargo's line of results."""
    the_story = story.Story(world)
    passed = 0
    for one in story.TESTS:
        name, began = one.__name__, time.monotonic()
        try:
            one(the_story)
        except Exception:
            traceback.print_exc()
            print(f"test {name} ... FAILED\n\ntest result: FAILED. {passed} passed; 1 failed; 0 ignored;", flush=True)
            return 1
        passed += 1
        print(f"test {name} ... ok ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"\ntest result: ok. {passed} passed; 0 failed; 0 ignored;", flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/connect", description=__doc__)
    parser.add_argument("what", choices=["test", "compare"])
    parser.add_argument("--binary", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--repetitions", type=int, default=3)
    options = parser.parse_args()
    # An exception, so that what runs is stopped.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    signal.signal(signal.SIGHUP, lambda *_: sys.exit(143))
    with World(options.out.resolve(), options.binary.resolve(), workers=2) as world:
        if options.what == "test":
            return test(world)
        compare.run(world, options.count, options.repetitions)
        return 0


sys.exit(main())
