"""Runs the scenarios: run.py PORT LEVEL SHARDS [NAME...] [-NAME...], those or all but those. Prints `ok NAME` or `FAILED NAME: why`."""

import os
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor

import basics
import heavy
import history
import sessions
import version5


class Run:
    """What a scenario is given: where the broker is, and names of its own."""

    def __init__(self, port, version, shards, scenario):
        self.port, self.version, self.shards = port, version, shards
        self.scenario = scenario

    def name(self, text):
        return f"paho{self.version}-{self.scenario}-{text}"


def one(port, version, shards, scenario):
    name = scenario.__name__
    try:
        scenario(Run(port, version, shards, name))
    except Exception as error:  # every failure of a scenario is reported by its name
        where = traceback.extract_tb(error.__traceback__)
        here = next((f for f in reversed(where) if "/clients/paho/" in f.filename
                     and not f.filename.endswith("client.py")), where[-1])
        print(f"FAILED {name}: {type(error).__name__}: {error} (line {here.lineno}: {here.line})")
        return False
    print(f"ok {name}")
    return True


def main():
    port, version, shards = (int(text) for text in sys.argv[1:4])
    wanted = [name for name in sys.argv[4:] if not name.startswith("-")]
    unwanted = [name[1:] for name in sys.argv[4:] if name.startswith("-")]
    results = []
    # Where the broker keeps history of `+/kept/#`.
    kept = ((history, 1),) if os.environ.get("SHARDMQ_TEST_HISTORY") else ()
    for module, workers in ((basics, 6), (sessions, 8), (version5, 6), *kept, (heavy, 1)):
        chosen = [s for s in module.SCENARIOS
                  if version in s.versions and (not wanted or s.__name__ in wanted)
                  and s.__name__ not in unwanted]
        with ThreadPoolExecutor(workers) as pool:
            results += pool.map(lambda s: one(port, version, shards, s), chosen)
    print(f"{results.count(True)} passed, {results.count(False)} failed")
    sys.exit(0 if all(results) else 1)


main()
