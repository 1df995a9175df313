"""Decimals, fractions, statistics, large numbers, bisection, heaps."""

import bisect
import decimal
import fractions
import heapq
import itertools
import math
import statistics

EXPECTED = {"decimal": "0.3", "fraction": "1/2", "median": 2, "digits": 2568, "heap": [1, 2], "pairs": 3, "at": 1}


def run(params):
    return {
        "decimal": str(decimal.Decimal("0.1") + decimal.Decimal("0.2")),
        "fraction": str(fractions.Fraction(1, 3) + fractions.Fraction(1, 6)),
        "median": statistics.median([1, 2, 3]),
        "digits": len(str(math.factorial(1000))),
        "heap": heapq.nsmallest(2, [3, 1, 2]),
        "pairs": len(list(itertools.combinations("abc", 2))),
        "at": bisect.bisect([1, 3], 2),
    }
