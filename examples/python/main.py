"""Reads a JSON list of numbers on stdin and prints its statistics as JSON."""

import json
import statistics
import sys

numbers = json.load(sys.stdin)
if not isinstance(numbers, list) or not numbers:
    sys.exit("the payload is a JSON list of numbers, such as [1, 2, 3]")
summary = {"count": len(numbers), "mean": statistics.fmean(numbers), "median": statistics.median(numbers)}
print(json.dumps(summary))
