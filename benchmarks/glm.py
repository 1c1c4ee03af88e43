"""What a structured likelihood buys: gradients per second through Shoal's program, and the share of the machine used.

    taskset -c 0 python benchmarks/glm.py [--chains 128 1024 16384] [--repeats 7] [--out benchmarks/results/glm.json]

Two logistic posteriors, the founding one (569 rows, 30 columns, sparse prior, 61 dimensions) and a simulated one (1,000
rows, 25 columns, normal prior), with the likelihood in the spellings of `spellings.py`. Then every family of
`shoal.glm` against NumPyro's distribution, at the first number of chains.

Whole HMC draws of 20 leapfrog steps, as in `throughput.py`, in turns, per second of the processor: a busy machine then
gives nearly the same numbers as an idle one. The ceiling is XLA's product of two square matrices of 512, measured in
the same turns; the share of it that is used counts the two products of a gradient, 4 · rows · columns operations (times
the classes of a categorical law), and nothing else. Ratios are medians over repeats of ratios within a repeat.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from spellings import SPELLINGS, founding
from throughput import shoal_draws

import shoal
from shoal.bench.ceilings import matrix_product
from shoal.bench.draws import STEPS
from shoal.bench.machine import about

SEED, SECONDS, SIDE, CLASSES = 0, 0.5, 512, 4


def simulated(rows: int = 1_000, columns: int = 25) -> dict[str, np.ndarray]:
    """Labels of a logistic regression."""
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(rows, columns))
    y = rng.random(rows) < 1 / (1 + np.exp(-x @ rng.normal(0.0, 0.5, columns)))
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}


def founding_target(log_prob):
    """The founding posterior with a likelihood of data and coefficients."""
    return founding(log_prob).target(np.float32)


def normal_target(log_prob, data, **params):
    """The same with a standard normal prior of all parameters, which are arguments of the likelihood by name."""
    return shoal.Model(
        params=params,
        log_prior=lambda p: -0.5 * sum(jnp.sum(jnp.square(value)) for value in p.values()),
        log_likelihood=lambda p, rows: log_prob(rows["y"], rows["x"], **p),
        data=data,
    ).target(np.float32)


def simulated_target(log_prob):
    """The simulated logistic posterior."""
    return normal_target(log_prob, simulated(), w=shoal.real(25))


def families():
    """Name: the two targets, plain and structured, of simulated data of 1,000 rows and 25 columns."""
    x = 0.3 * simulated()["x"]
    label = np.random.default_rng(SEED).integers(0, CLASSES, len(x)).astype(np.int32)
    counts, classes = {"x": x, "y": label.astype(np.float32)}, {"x": x, "y": label}
    w, scale, cutpoints = shoal.real(25), shoal.positive(), shoal.ordered(CLASSES - 1)
    pairs = {
        "poisson": (
            lambda y, x, w: dist.Poisson(jnp.exp(x @ w)).log_prob(y).sum(),
            shoal.glm.poisson_log,
            counts,
            {"w": w},
        ),
        "normal": (
            lambda y, x, w, scale: dist.Normal(x @ w, scale).log_prob(y).sum(),
            shoal.glm.normal_identity,
            counts,
            {"w": w, "scale": scale},
        ),
        "categorical": (
            lambda y, x, w: dist.Categorical(logits=x @ w).log_prob(y).sum(),
            shoal.glm.categorical_logit,
            classes,
            {"w": shoal.real((25, CLASSES))},
        ),
        "ordered": (
            lambda y, x, w, cutpoints: dist.OrderedLogistic(x @ w, cutpoints).log_prob(y).sum(),
            shoal.glm.ordered_logistic,
            classes,
            {"w": w, "cutpoints": cutpoints},
        ),
    }
    return {
        name: {
            "plain": normal_target(plain, data, **params),
            "structured": normal_target(structured, data, **params),
        }
        for name, (plain, structured, data, params) in pairs.items()
    }


def rate(work, amount: int) -> float:
    """What `work` says it did, per second of the processor."""
    began = time.process_time()
    return work(amount) / (time.process_time() - began)


def measure(targets, chains: int, repeats: int, products_of: int = 1) -> dict:
    """Rates of all targets and the ceiling, in turns."""
    works = {}
    for name, target in targets.items():
        position = np.random.default_rng(SEED).normal(0.0, 0.1, (chains, target.dim)).astype(np.float32)
        works[name] = shoal_draws(target, position)
        works[name](1)
    operations = 4 * target.data["x"].size * products_of
    draws = {name: max(2, int(SECONDS * rate(work, 2) / work(1))) for name, work in works.items()}
    products = matrix_product(jax.local_devices()[:1], SIDE)
    works["ceiling"], draws["ceiling"] = products, int(SECONDS * rate(products, 50) / products(1))
    rows = [{name: rate(work, draws[name]) for name, work in works.items()} for _ in range(repeats)]
    median = lambda value: statistics.median(map(value, rows))
    share = lambda name: round(median(lambda row: row[name] * operations / row["ceiling"]), 3)
    return {
        "chains": chains,
        "gradients_per_second": {name: round(median(lambda row, name=name: row[name])) for name in targets},
        "share_of_ceiling": {name: share(name) for name in targets},
        "structured_to_plain": round(median(lambda row: row["structured"] / row["plain"]), 3),
        "ceiling_gflops": round(median(lambda row: row["ceiling"]) / 1e9, 1),
    }


def shown(row: dict) -> None:
    """One line of the table."""
    rates, shares = row["gradients_per_second"], row["share_of_ceiling"]
    cells = "  ".join(f"{name} {rates[name] / 1e3:.0f} ({shares[name]:.2f})" for name in rates)
    print(f"{row['posterior']:14} {row['chains']:6d}  {cells}  ratio {row['structured_to_plain']:.2f}", flush=True)


def main() -> None:
    """Measure, print the table, write it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--chains", type=int, nargs="+", default=[128, 1024, 16_384])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    print("thousand gradients per processor second (share of the ceiling)")
    rows = []
    for name, make in {"breast_cancer": founding_target, "simulated": simulated_target}.items():
        targets = {spelling: make(log_prob) for spelling, log_prob in SPELLINGS.items()}
        for chains in arguments.chains:
            rows.append({"posterior": name, **measure(targets, chains, arguments.repeats)})
            shown(rows[-1])
    for name, targets in families().items():
        classes = CLASSES if name == "categorical" else 1
        rows.append({"posterior": name, **measure(targets, arguments.chains[0], arguments.repeats, classes)})
        shown(rows[-1])
    if arguments.out:
        settings = {"leapfrog_steps": STEPS, "repeats": arguments.repeats, "precision": "float32, one device"}
        settings["ceiling"] = f"product of square matrices of {SIDE}, XLA, per processor second"
        about_it = {**about(SEED), "settings": settings}
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps({**about_it, "rows": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
