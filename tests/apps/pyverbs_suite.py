#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-3-Clause
"""Runs rdma-core's own run_tests.py and notes each test's result; judges the results by a list of skips.

  pyverbs_suite.py --run OPTIONS...     in the directory of tests/: run_tests.py with these options; $PYVERBS_RESULTS
                                        gets a line a test: result, name, the skip's reason
  pyverbs_suite.py --judge LIST RESULTS no failure, no error, every skip in the list, and all that it lists skipped
  pyverbs_suite.py --judge-strictly ... the same, and no difference either

A line of the list: a pattern of names, words of the test's own reason, and why it may be so, with tabs between them.
A pattern that begins with ? is of tests that are skipped on some machines and not on others, one with ! of tests that fail
for a difference that is known and documented, ?! of tests that may fail for want of waiting.
"""
import fnmatch
import os
import sys
import unittest


class Recorder(unittest.TextTestResult):
    """Notes every result. A test with sub-tests fails by each of them."""

    file = None

    def note(self, result, test, reason=""):
        print(result, test.id(), " ".join(str(reason).split()), sep="\t", file=Recorder.file, flush=True)

    def addSuccess(self, test):
        super().addSuccess(test)
        self.note("ok", test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note("skipped", test, reason)

    def addError(self, test, err):
        super().addError(test, err)
        self.note("error", test, err[1])

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note("failed", test, err[1])

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.note("failed", test, err[1])

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.note("ok", test)

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.note("failed", test, "succeeded unexpectedly")


def run(options):
    import runpy

    Recorder.file = open(os.environ["PYVERBS_RESULTS"], "w", encoding="utf-8")
    unittest.TextTestRunner.resultclass = Recorder
    script = os.path.abspath("tests/run_tests.py")
    sys.argv = [script, *options]
    sys.path[0] = os.path.dirname(script)
    runpy.run_path(script, run_name="__main__")


def read_list(path):
    rows = []
    with open(path, encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            line = line.rstrip("\n")
            if not line or line.startswith("#"):
                continue
            fields = line.split("\t")
            if len(fields) != 3 or not all(fields):
                sys.exit(f"{path}:{number}: not PATTERN, REASON and WHY with tabs between: {line}")
            rows.append({"pattern": fields[0].lstrip("?!"), "sometimes": fields[0].startswith("?"),
                         "result": "failed" if "!" in fields[0][:2] else "skipped",
                         "reason": fields[1], "line": number, "seen": 0})
    return rows


def judge(list_path, results_path, strictly):
    rows = [r for r in read_list(list_path) if r["result"] == "skipped" or r["sometimes"] or not strictly]
    counts = {"ok": 0, "skipped": 0, "failed": 0}
    bad = []
    with open(results_path, encoding="utf-8") as lines:
        for line in lines:
            result, name, reason = line.rstrip("\n").split("\t", 2)
            counts[result] = counts.get(result, 0) + 1
            mine = [r for r in rows if fnmatch.fnmatch(name, r["pattern"])]
            if result == "ok":
                bad += [f"{name} passes, and not as line {r['line']} says" for r in mine if not r["sometimes"]]
                continue
            hits = [r for r in mine if r["result"] == result and r["reason"] in reason]
            for r in hits:
                r["seen"] += 1
            if not hits:
                bad.append(f"{name}: {result}, which is not listed: {reason}")
    bad += [f"line {r['line']}: no test {r['pattern']} is {r['result']} for: {r['reason']}"
            for r in rows if not r["seen"] and not r["sometimes"]]
    differ = f", {counts['failed']} differ" if counts["failed"] else ""
    print("\n".join(bad) or f"NOTE: {counts['ok']} passed, {counts['skipped']} skipped{differ}, all of them listed")
    return 1 if bad or counts["ok"] < 50 else 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        run(sys.argv[2:])
    elif sys.argv[1:2] in (["--judge"], ["--judge-strictly"]) and len(sys.argv) == 4:
        sys.exit(judge(sys.argv[2], sys.argv[3], sys.argv[1] == "--judge-strictly"))
    else:
        sys.exit(__doc__)
