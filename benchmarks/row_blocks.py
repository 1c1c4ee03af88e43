"""What blocks of rows buy: milliseconds of the processor per gradient of 32 chains, by rows at once.

    taskset -c 0 python benchmarks/row_blocks.py [--rows 1e5 1e6] [--blocks 1024 4096 8192 16384 65536]
                                                 [--repeats 3] [--out benchmarks/results]

A logistic regression of 50 columns whose likelihood is in the spellings of `spellings.py`, first with all rows at once,
then in blocks. One device; the best of the repeats, since whatever else the machine does only takes time.
"""

import argparse
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from spellings import SPELLINGS

import shoal
from shoal.bench import record

COLUMNS, CHAINS, SEED = 50, 32, 0
LIKELIHOODS = ("plain", "stated", "structured")
# Rows that a measurement goes over, each chain once.
ROWS = 2_000_000


def model_of(log_prob, rows: int) -> shoal.Model:
    """The regression of so many simulated rows."""
    rng = np.random.default_rng(SEED)
    x = rng.standard_normal((rows, COLUMNS), np.float32)
    return shoal.Model(
        params={"w": shoal.real(COLUMNS)},
        log_prior=lambda p: -0.5 * jnp.sum(jnp.square(p["w"])),
        log_likelihood=lambda p, rows: log_prob(rows["y"], rows["x"], p["w"]),
        data={"x": x, "y": (rng.random(rows) < 0.5).astype(np.float32)},
    )


def milliseconds(model: shoal.Model, repeats: int) -> float:
    """Of the processor, per gradient of all chains."""
    times = max(1, ROWS // model.number_of_rows)
    position = 0.1 * np.random.default_rng(SEED).standard_normal((CHAINS, COLUMNS), np.float32)

    @jax.jit
    def loop(position, target, times):
        # Every turn needs the one before it, or one would be enough.
        turn = lambda _, at: at + 1e-9 * target.gradient(at)
        return jax.lax.fori_loop(0, times, turn, position)

    def seconds() -> float:
        began = time.process_time()
        jax.block_until_ready(loop(position, model.target(np.float32), jnp.int32(times)))
        return time.process_time() - began

    seconds()
    return 1e3 * min(seconds() for _ in range(repeats)) / times


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rows", type=float, nargs="+", default=[1e5, 1e6])
    parser.add_argument("--blocks", type=int, nargs="+", default=[1024, 4096, 8192, 16_384, 65_536])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    found = []
    print(f"{'rows':>9} {'likelihood':>11} {'at once':>9}" + "".join(f"{block:9,d}" for block in arguments.blocks))
    for rows in map(int, arguments.rows):
        for likelihood in LIKELIHOODS:
            model = model_of(SPELLINGS[likelihood], rows)
            print(f"{rows:9,d} {likelihood:>11}", end="", flush=True)
            for block in (rows, *arguments.blocks):
                taken = milliseconds(model.with_row_block(block), arguments.repeats)
                print(f"{taken:9.1f}", end="", flush=True)
                what = f"{rows:,} rows, {likelihood}, {block:,} at once"
                found.append({"what": what, "chains": CHAINS, "rate": 1e3 * CHAINS / taken, "unit": "gradients/s"})
            print(flush=True)
    if arguments.out:
        settings = {"repeats": arguments.repeats, "columns": COLUMNS}
        record.write(record.record("row_blocks", SEED, settings, found), record.place(str(arguments.out)))


if __name__ == "__main__":
    main()
