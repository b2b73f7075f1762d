"""The generator's words under dieharder's battery (Brown, Eddelbuettel, Bauer), read in several orders.

    apt-get install dieharder && python bench/generator.py [--orders seed seeds ...] [--first N] [--log FOLDER]

Every p-value of a perfect generator is uniform on [0, 1], so of a hundred one is below 0.005 or above 0.995 ("weak" to
dieharder) by chance; a defect shows as a p-value that is nearly 0 or 1. `--emit ORDER` writes the words to stdout
without end, for any other battery that reads raw 32-bit words, such as PractRand's `RNG_test stdin32`.
"""

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from pipeline.runtime.noise import random_integers

Row = NDArray[np.int64]

DRAWS, ROWS = 16, 2**14
UNLIKELY = 1e-6
# dieharder's number of each test that it calls good, the quicker ones first, and the sizes (-n) of those that take one.
# Left out is the test of greatest common divisors (17), which alone takes minutes.
TESTS = (0, 2, 3, 8, 9, 15, 16, 100, 101, 4, 10, 11, 12, 13, 1, 205, 206, 207, 208, 204, 209, 102)
SIZED = {200: (1, 2, 4, 8), 202: (2, 3, 4, 5), 203: (0, 1), 201: (2, 3)}
COLUMNS = ("test_name", "ntuple", "tsamples", "psamples", "pvalues")


class Result(NamedTuple):
    """One p-value."""

    name: str
    size: int
    p: float

    @property
    def extreme(self) -> float:
        """How near to 0 or to 1 it is."""
        return min(self.p, 1 - self.p)


def _upper(seed: Row, index: Row) -> NDArray[np.uint32]:
    return (random_integers(seed, index, DRAWS) >> np.uint64(32)).astype(np.uint32)


def _reversed(seed: Row, index: Row) -> NDArray[np.uint32]:
    word = _upper(seed, index)
    for shift, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF), (16, 0x0000FFFF)):
        kept, by = np.uint32(mask), np.uint32(shift)
        word = ((word >> by) & kept) | ((word & kept) << by)
    return word


def _both_halves(seed: Row, index: Row) -> NDArray[np.uint32]:
    return random_integers(seed, index, DRAWS).view(np.uint32)


def _lower(seed: Row, index: Row) -> NDArray[np.uint32]:
    return random_integers(seed, index, DRAWS).astype(np.uint32)


# What an order makes of the numbers 0, 1, 2, ... of its rows: a seed and an index each, and which bits are read.
ORDERS = {
    "seed": (lambda row: (0 * row, row), _upper, "the images of seed 0, one after the other"),
    "seeds": (lambda row: (row, 0 * row), _upper, "the first image of seeds 0, 1, 2, ..."),
    "interleaved": (lambda row: (row % 64, row // 64), _upper, "64 seeds in turn"),
    "far": (lambda row: (row << 40, row << 20), _upper, "seeds and indices that differ in high bits"),
    "reversed": (lambda row: (0 * row, row), _reversed, "order `seed`, the bits of each word reversed"),
    "halves": (lambda row: (0 * row, row), _both_halves, "order `seed`, lower and upper halves in turn"),
    "lower": (lambda row: (0 * row, row), _lower, "order `seed`, lower halves alone, which no one is to use"),
}


def words(order: str) -> Iterator[bytes]:
    """The order's 32-bit words without end."""
    place, read, _ = ORDERS[order]
    row = np.arange(ROWS)
    while True:
        yield np.ascontiguousarray(read(*place(row))).tobytes()
        row += ROWS


def emit(order: str) -> None:
    """Write the words until the reader has enough."""
    with contextlib.suppress(BrokenPipeError):
        for part in words(order):
            sys.stdout.buffer.write(part)
    os._exit(0)  # Python would complain that stdout cannot be flushed


def battery() -> Iterator[list[str]]:
    """dieharder's arguments, test by test."""
    yield from (["-d", str(test)] for test in TESTS)
    yield from (["-d", str(test), "-n", str(size)] for test, sizes in SIZED.items() for size in sizes)


def run_test(order: str, arguments: list[str]) -> list[Result]:
    """The p-values of one test, on the order's first words."""
    with subprocess.Popen([sys.executable, __file__, "--emit", order], stdout=subprocess.PIPE) as emitter:
        shown = [flag for column in COLUMNS for flag in ("-D", column)]
        command = ["dieharder", "-g", "200", "-c", ",", *shown, *arguments]
        done = subprocess.run(command, stdin=emitter.stdout, capture_output=True, text=True, check=True)
        emitter.kill()
    return [result for line in done.stdout.splitlines() if (result := read_line(line))]


def read_line(line: str) -> Result | None:
    """`diehard_runs,0,100000,100,0.58` -> its name, size and p-value; None for other lines."""
    fields = [field.strip() for field in line.split(",")]
    try:
        return Result(fields[0], int(fields[1]), float(fields[4]))
    except (IndexError, ValueError):
        return None


def report(order: str, results: list[Result]) -> str:
    """One row of the table in docs/results.md."""
    worst = min(results, key=lambda result: result.extreme)
    weak = sum(result.extreme < 0.005 for result in results)
    failed = sum(result.extreme < UNLIKELY for result in results)
    uniform = stats.kstest([result.p for result in results], "uniform").pvalue
    most = f"{worst.extreme:.2g} ({worst.name} {worst.size})"
    return f"| {order}: {ORDERS[order][2]} | {len(results)} | {failed} | {weak} | {most} | {uniform:.2g} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--emit", choices=ORDERS, help="write the words to stdout instead")
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=list(ORDERS))
    parser.add_argument("--first", type=int, metavar="N", help="run the first N tests alone")
    parser.add_argument("--log", type=Path, help="a folder for every p-value, a file an order")
    asked = parser.parse_args()
    if asked.emit:
        emit(asked.emit)
    print("| order | p-values | beyond 1e-6 | weak | most extreme | KS of all |\n|---|---|---|---|---|---|")
    for order in asked.orders:
        results = [result for arguments in islice(battery(), asked.first) for result in run_test(order, arguments)]
        print(report(order, results), flush=True)
        if asked.log:
            lines = [f"{result.name},{result.size},{result.p}" for result in results]
            (asked.log / f"{order}.csv").write_text("\n".join(["test,size,p", *lines, ""]))


if __name__ == "__main__":
    main()
