"""One run from nothing, in a process of its own: `python -m shoal.bench.peers.cell SAMPLER POSTERIOR SEED LIMIT BEGAN`.

Its last line is a JSON object. `BEGAN` is when the process was asked for, by `time.monotonic`. A peer's clock stands
still while the model is built, which is Shoal's way to write one, and while its draws are judged; Shoal's never does.
"""

import json
import sys
from typing import Any

GROWTH = 1.1  # of a peer's draws, before they are looked at again


def run(sampler: str, posterior: str, seed: int, limit: float, began: float) -> dict[str, Any]:
    """The row of a run."""
    try:
        return _shoal(posterior, seed, began) if sampler == "shoal" else _peer(sampler, posterior, seed, limit, began)
    except ModuleNotFoundError as error:
        return {"status": "missing", "why": str(error)}


def _shoal(posterior: str, seed: int, began: float) -> dict[str, Any]:
    import shoal
    from shoal.bench.peers.posteriors import load

    model = load(posterior)
    imported = _since(began)
    result = shoal.sample(model, seed=seed, progress_bar=False)
    seconds, cpu_seconds = _since(began), _cpu_seconds()
    from shoal.bench.peers.judging import Judge

    found = Judge().judged({name: result.draws[name] for name in model.parameter_names}, whole=True)
    took = result.timing
    return {
        "status": "reached" if result.converged and found.enough else "not reached",
        "why": "" if result.converged else result.findings[0].words,
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        **found._asdict(),
        "chains": result.num_chains,
        "draws": result.num_draws,
        "stages": {"imported": imported, "compile": took.compile, "warmup": took.warmup, "sampling": took.sampling},
    }


def _since(began: float) -> float:
    from time import monotonic

    return monotonic() - began


def _cpu_seconds() -> float:
    from time import process_time

    return process_time()


def _peer(sampler: str, posterior: str, seed: int, limit: float, began: float) -> dict[str, Any]:
    import importlib
    import importlib.util

    package = sampler.partition("_")[0]
    importlib.import_module("jax")
    # A package that is missing is told of where the peer asks for it.
    if importlib.util.find_spec(package) is not None:
        importlib.import_module(package)
    from shoal.bench.peers.rounds import Clock, Task, peers

    clock = Clock(began)
    clock.mark("imported")
    # Starting devices is a part of everybody's time.
    importlib.import_module("jax").devices()
    with clock.paused():
        import numpy as np

        from shoal.bench.peers.judging import Judge, Judged
        from shoal.bench.peers.posteriors import load

        model = load(posterior)
        target = model.target(np.dtype(np.float32))
        judge = Judge()
    task = Task(lambda z: target.log_density(z, target.data), target.dim, seed, clock)
    seconds, cpu_seconds, made, wanted, found, blocks = 0.0, 0.0, 0, 1, Judged(0.0, float("nan")), []
    for position, anew in peers()[sampler](task):
        seconds, cpu_seconds = clock.now
        with clock.paused():
            blocks = [*([] if anew else blocks), model.constrain(position)]
            made = sum(next(iter(block.values())).shape[1] for block in blocks)
            if made >= wanted or seconds >= limit:
                found = judge.judged(joined(blocks))
                wanted = int(GROWTH * made) + 1
        if found.enough or seconds >= limit:
            break
    clock.mark("drawn")
    return {
        "status": "reached" if found.enough else "not reached",
        "why": "" if found.enough else f"not in {limit:.0f} s",
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        **found._asdict(),
        "chains": next(iter(blocks[0].values())).shape[0],
        "draws": made,
        "stages": clock.stages,
    }


def joined(blocks: list[Any]) -> dict[str, Any]:
    """Blocks of draws `{name: [chain, draw, *shape]}` as one."""
    import numpy as np

    return {name: np.concatenate([block[name] for block in blocks], axis=1) for name in blocks[0]}


if __name__ == "__main__":
    name, of, number, most, asked = sys.argv[1:]
    print(json.dumps(run(name, of, int(number), float(most), float(asked))))
