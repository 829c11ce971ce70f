#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Counts the results in meson's JSON test logs.

Usage: tally.py [--strict] ALLOWED_SKIPS testlog-SUITE.json...

Prints "PASSED FAILED SKIPPED" on one line; on stderr one line for every test that failed, or that was skipped
without being named in ALLOWED_SKIPS. With --strict such a skip counts as a failure.
"""

import json
import os
import sys


def allowed_skips(path):
    """The tests that may be skipped: SUITE/NAME, each with a reason."""
    names = set()
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            words = line.split(None, 1)
            if not words or words[0].startswith("#"):
                continue
            if len(words) < 2:
                sys.exit(f"{path}:{number}: {words[0]} has no reason")
            names.add(words[0])
    return names


def main(args):
    strict = args[:1] == ["--strict"]
    if strict:
        args = args[1:]
    if len(args) < 2:
        sys.exit(__doc__)
    allowed = allowed_skips(args[0])
    passed = failed = skipped = 0
    for path in args[1:]:
        suite = os.path.basename(path).removeprefix("testlog-").split(".")[0]
        with open(path, encoding="utf-8") as lines:
            tests = [json.loads(line) for line in lines]
        for test in tests:
            name = f'{suite}/{test["name"].rsplit(" / ", 1)[-1]}'
            result = test["result"]
            if result in ("OK", "EXPECTEDFAIL"):
                passed += 1
            elif result == "SKIP":
                known = name in allowed
                if not known:
                    print(f"skipped for no listed reason: {name}", file=sys.stderr)
                if strict and not known:
                    failed += 1
                else:
                    skipped += 1
            else:
                failed += 1
                print(f"{result.lower()}: {name}", file=sys.stderr)
    print(passed, failed, skipped)


if __name__ == "__main__":
    main(sys.argv[1:])
