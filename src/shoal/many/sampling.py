"""The front door: many data sets of one model, sampled side by side by one compiled program."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from shoal import compiling
from shoal.arguments import check_count, check_seed
from shoal.compile_cache import kept_programs
from shoal.many.blocks import Blocks
from shoal.many.data import read_many
from shoal.many.results import ManyResults
from shoal.many.work import Work
from shoal.models.model import Model
from shoal.progress import progress
from shoal.request import Request, check_superchains, checked, keeping
from shoal.samplers import SAMPLERS, Sampler
from shoal.samplers.staged import Staged
from shoal.starts import default_superchains


def sample_many(  # noqa: PLR0913  (a front door: each is a choice that users make)
    model: Model,
    datasets: Any,
    *,
    num_chains: int = 64,
    num_warmup: int | None = None,
    num_samples: int = 200,
    sampler: str | Sampler = "chees",
    seed: int = 0,
    progress_bar: bool = True,
    precision: str = "float32",
    num_superchains: int | None = None,
    keep: Sequence[str] | str | None = None,
    block: int | None = None,
    deterministic: bool = True,
) -> ManyResults:
    """Sample the posteriors of many data sets of one model: one compiled program, and one verdict for each.

    Each data set has its own chains, and its own step size, metric and trajectory, which are learned from all its
    chains and fixed before a draw counts. A data set that cannot be sampled says so in its own findings, and changes no
    draw of the others. What is drawn of a data set depends on the seed, its number and its data: bit by bit, whatever
    the other data sets are and how many, with the same `block` on the same kind of device.

    Args:
        model: what all have in common: a `shoal.Model` with data, which the data sets replace as by `with_data`.
        datasets: a list (or tuple) of data sets, each with the structure, shapes and types of `model.data`, or one such
            pytree whose leaves have a leading axis of data sets. Of a mapping entries may be left out: they are those
            of the model in all data sets.
        num_chains: chains of each data set. By default 64 in 8 superchains: few enough for hundreds of data sets, and
            enough to tune each from all its chains at once, to compare superchains of 8, and to tell the effective
            sample size by the spread of the chains' means.
        num_warmup: draws of every chain in which the sampler is tuned; 500 by default.
        num_samples: draws of every chain after the warmup. The verdict asks for about 50 effective draws in each half
            of a superchain, 800 with 8 superchains of 8 chains, whose 12,800 draws by default leave room for that.
        sampler: by name, or as an object with settings: "chees", "mams", "meads", "nuts" or `shoal.HMC(...)`. "auto",
            whose warmup ends when it has settled and is another program for each data set, is refused.
        seed: of all; data sets have independent streams of random numbers by their number.
        progress_bar: show how many data sets are done.
        precision: "float32" or "float64".
        num_superchains: starting points of each data set, uniform on (-2, 2) in the unconstrained coordinates; the
            chains are divided among them.
        keep: names of the parameters and deterministic quantities that are kept, and judged; all by default. In memory
            are data sets × chains × draws of them, 4 bytes a number in single precision.
        block: data sets that are evaluated at once on each device; draws depend on it to the last bit. By default as
            many as have 128 chains on a CPU, 16,384 on an accelerator. Those with short trajectories wait for the
            others of their block.
        deterministic: as for `shoal.sample`.

    Returns:
        A sequence of ordinary results, with `converged`, `[data set]`, and `summary()` of all.

    Raises:
        ValueError: an argument is out of its range, a data set is not like the model's data or not finite, or its log
            density is not finite at any point to start from; the message names the data set and says what to do.

    Example:
        `many = shoal.sample_many(model, [{"y": y} for y in ys]); many.converged.mean()`
    """
    request = keeping(asked(model, num_chains, num_warmup, num_samples, sampler, precision), model, 1, keep)
    if request.mixed:
        raise ValueError(
            'precision="mixed": many data sets are sampled in "float32" or "float64". Use "float64" where single lacks '
            "digits."
        )
    if request.folded is not None:
        raise ValueError(
            f"keep={keep!r}: sample_many keeps draws. Give names, such as keep=[{model.parameter_names[0]!r}]."
        )
    check_seed(seed)
    check_superchains(num_superchains, num_chains, None)
    if block is not None:
        check_count("block", block, 1)
    data, count = read_many(model, datasets)
    groups = int(num_superchains or default_superchains(request.num_chains))
    with (
        jax.enable_x64(request.dtype is np.float64),
        compiling.deterministic(deterministic),
        kept_programs(),
        progress(progress_bar) as show,
    ):
        work = Work(model, request, data, count, groups, int(seed), Blocks.of(request.num_chains, block))
        return work.done(show)


def asked(
    model: Model, num_chains: int, num_warmup: int | None, num_samples: int, sampler: str | Sampler, precision: str
) -> Request:
    """The arguments that `sample_many` and `sbc` have in common, checked.

    Raises:
        ValueError: one is out of its range, or the warmup of the sampler is another program for each data set.
    """
    request = checked(model, num_chains, num_warmup, num_samples, sampler, None, precision)
    if isinstance(request.sampler, Staged):
        others = ", ".join(repr(name) for name, kind in SAMPLERS.items() if not issubclass(kind, Staged))
        raise ValueError(
            f"sampler={request.sampler.name!r}: its warmup ends when it has settled, data set by data set, and "
            f"sample_many runs one program for all. Choose 'chees', the default, or another of {others}."
        )
    return request
