"""What `shoal.sample` was asked to do, checked at the door."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int

from shoal.adaptation import Fixed
from shoal.arguments import check_count, check_seconds, check_seed
from shoal.kernels.lifted import Lifted
from shoal.models.model import Model
from shoal.objects import Objects
from shoal.placing import checked_mesh
from shoal.results.course import COORDINATES
from shoal.results.directories import check_place
from shoal.results.folded_draws import MOMENTS, NONE
from shoal.results.made import check_zarr
from shoal.samplers import Sampler, named
from shoal.samplers.staged import Staged
from shoal.until import Until
from shoal.watching.watch import check_tensorboard

# Of positions and gradients; log densities are in double where the precision is mixed.
DTYPES = {"float32": np.float32, "mixed": np.float32, "float64": np.float64}
MIXED = "mixed"
# Draws of warmup when nothing is said: of a sampler that is tuned over a fixed number of them, and the bound of one
# whose warmup ends by itself, which usually takes some hundred.
USUAL_WARMUP, MOST_WARMUP = 500, 2000


@dataclass(frozen=True)
class Request:
    """What was asked for, checked.

    Attributes:
        keep: names of what is computed of every draw; None for all.
        folded: "moments" or "none" where draws are folded and not kept.
        until: how precise the answer is to be where the run ends by itself: `num_samples` is the most then.
    """

    sampler: Sampler
    num_chains: int
    num_warmup: int
    num_samples: int
    tuning: Mapping[str, np.ndarray] | None
    precision: str
    thinning: int = 1
    keep: tuple[str, ...] | None = None
    folded: str | None = None
    save_warmup: bool = False
    until: Until | None = None

    @property
    def num_kept(self) -> int:
        """Draws of every chain that are kept."""
        return self.num_samples // self.thinning

    @property
    def ends_itself(self) -> bool:
        """Whether the warmup ends when it has settled; `num_warmup` is its bound then."""
        return isinstance(self.sampler, Staged) and self.tuning is None

    @property
    def burns_in(self) -> bool:
        """Whether the warmup tells when the chains have come to the bulk."""
        return isinstance(self.sampler, Staged) and self.sampler.burns_in and self.tuning is None

    @property
    def dtype(self) -> type:
        """Of positions and gradients."""
        return DTYPES[self.precision]

    @property
    def mixed(self) -> bool:
        """Whether log densities are in double all the same."""
        return self.precision == MIXED


@dataclass(frozen=True)
class Call:
    """A call of `shoal.sample` or `shoal.start`, checked as far as that needs no device.

    Attributes:
        model: what to sample.
        request: what was asked for.
        seed: of the run.
        place: its directory, absolute, or its URL; None where it has none.
        initial_positions: as they were given.
        num_superchains: as they were given.
        tile: chains that are evaluated at once; None to choose.
        mesh: how many parts the chains, the rows of the data and the parameters are in; of chains, where it is not
            said, as many as there are devices for, and of the others one.
        row_block: rows of the data that are evaluated at once; None to choose.
        deterministic: whether the same seed gives the same draws on a GPU, too.
        max_seconds: that it may take.
        tensorboard: whether it writes events for TensorBoard.
        ends_as_before: whether nothing was said of its end: a run that is there has the number of draws it has.
    """

    model: Model
    request: Request
    seed: int
    place: Path | Objects | None
    initial_positions: Any
    num_superchains: int | None
    tile: int | None
    mesh: Mapping[str, int]
    row_block: int | None
    deterministic: bool
    max_seconds: float | None
    tensorboard: bool
    ends_as_before: bool = False


def checked_call(  # noqa: PLR0913  (the arguments of `shoal.sample`)
    model: Model,
    *,
    num_chains: int,
    num_warmup: int | None,
    num_samples: int | None,
    until: Until | None,
    sampler: str | Sampler,
    seed: int,
    out: str | os.PathLike[str] | None,
    initial_positions: Any,
    tuning: Mapping[str, np.ndarray] | None,
    precision: str,
    num_superchains: int | None,
    tile: int | None,
    mesh: Mapping[str, int] | None,
    row_block: int | None,
    deterministic: bool,
    max_seconds: float | None,
    thinning: int,
    keep: Sequence[str] | str | None,
    save_warmup: bool,
    tensorboard: bool,
) -> Call:
    """The arguments of `shoal.sample`, checked as far as that needs no device.

    Raises:
        ValueError: one is out of its range.
        ModuleNotFoundError: draws cannot be kept on disk here; the message says how to install what is missing.
    """
    check_count("thinning", thinning, 1)
    unsaid = num_samples is None and until is None
    length, until = ending(num_samples, until, thinning)
    if until is not None:
        times = [seconds for seconds in (max_seconds, until.max_seconds) if seconds is not None]
        max_seconds = min(times, default=None)
    request = checked(model, num_chains, num_warmup, length, sampler, tuning, precision)
    request = replace(keeping(request, model, thinning, keep), save_warmup=bool(save_warmup), until=until)
    if until is not None:
        check_errors(until, model)
        check_quantiles(until, model, request)
    if save_warmup:
        check_coordinates(model)
        if request.folded is not None:
            raise ValueError(
                f"save_warmup=True keeps draws of the warmup, and keep={request.folded!r} keeps none: leave one "
                "of them out. keep=[names] keeps some quantities of both."
            )
    check_seed(seed)
    check_superchains(num_superchains, num_chains, initial_positions)
    if tile is not None:
        check_count("tile", tile, 1)
    mesh = checked_mesh(mesh, model, deterministic)
    if row_block is not None:
        check_count("row_block", row_block, 1)
        row_block = int(row_block)
        model = model.with_row_block(row_block)
    check_seconds(max_seconds)
    check_tensorboard(tensorboard, out)
    place = None
    if out is not None:
        place = check_place(out)
        check_zarr()
    # NumPy's whole numbers are welcome, and JSON knows Python's only.
    tile = None if tile is None else int(tile)
    return Call(
        model,
        request,
        int(seed),
        place,
        initial_positions,
        num_superchains,
        tile,
        mesh,
        row_block,
        deterministic,
        max_seconds,
        bool(tensorboard),
        unsaid,
    )


def ending(num_samples: Any, until: Any, thinning: int) -> tuple[int, Until | None]:
    """Draws of every chain, and how a run ends by itself, of which they are the most; None where it has them all.

    Raises:
        ValueError: both were given, or something else than an `Until`.
    """
    if until is not None and not isinstance(until, Until):
        raise ValueError(
            f"until: got {type(until).__name__}, expected shoal.Until(...), such as shoal.Until(ess=4000)."
        )
    if until is not None and num_samples is not None:
        raise ValueError(
            f"num_samples={num_samples!r} and until were both given: a run has a number of draws, or ends when it is "
            "precise enough. The most draws that it may have are shoal.Until(max_samples=...)."
        )
    if num_samples is not None:
        return num_samples, None
    until = until or Until()
    if until.max_samples < thinning:
        raise ValueError(
            f"thinning={thinning} with Until(max_samples={until.max_samples}): of every {thinning} draws one is kept, "
            "and there are not so many. Ask for more, or thin less."
        )
    return until.max_samples - until.max_samples % thinning, until


def check_errors(until: Until, model: Model) -> None:
    """Refuse errors of what the model has not."""
    known = (*model.parameter_names, *model.deterministic_names)
    if unknown := [name for name in until.mcse if name not in known]:
        raise ValueError(
            f"Until(mcse=...): got {', '.join(map(repr, unknown))}, expected names of what the model '{model.name}' "
            f"has: {', '.join(map(repr, known))}. One error counts for all numbers of a parameter."
        )


def check_quantiles(until: Until, model: Model, request: Request) -> None:
    """Refuse quantiles of what is not kept."""
    kept = () if request.folded == NONE else request.keep or model.parameter_names
    if until.quantiles and (without := [name for name in model.parameter_names if name not in kept]):
        raise ValueError(
            f"Until(quantiles=True): the draws of {', '.join(map(repr, without))} are not kept (keep=), and the "
            "precision of quantiles is told by draws. Keep all parameters, or keep='moments'."
        )


def checked(
    model: Model,
    num_chains: int,
    num_warmup: int | None,
    num_samples: int,
    sampler: str | Sampler,
    tuning: Mapping[str, np.ndarray] | None,
    precision: str,
) -> Request:
    """The arguments of `shoal.sample` that need no device, checked.

    Raises:
        ValueError: one is out of its range.
    """
    check_model(model)
    check_count("num_chains", num_chains, 1)
    check_count("num_samples", num_samples, 1)
    if tuning is not None and not isinstance(tuning, Mapping):
        raise ValueError(f"tuning: got {type(tuning).__name__}, expected the `tuning` of a result, a mapping.")
    if precision not in DTYPES:
        raise ValueError(f"precision={precision!r}: expected one of {', '.join(map(repr, DTYPES))}.")
    recipe = (sampler if isinstance(sampler, Sampler) else named(str(sampler))).for_chains(num_chains)
    if precision == MIXED and isinstance(recipe.kernel(), Lifted):
        raise ValueError(
            f'precision="mixed" with sampler {recipe.name!r}: BlackJAX evaluates the log density by itself, in the '
            'precision of positions. Use precision="float64", or a sampler of Shoal.'
        )
    if num_warmup is None:
        num_warmup = 0 if tuning is not None else MOST_WARMUP if isinstance(recipe, Staged) else USUAL_WARMUP
    check_count("num_warmup", num_warmup, 0)
    by_hand = isinstance(recipe.adaptation(), Fixed) and not isinstance(recipe, Staged)
    if tuning is not None and by_hand:
        raise ValueError(
            f"tuning was given to sampler {recipe.name!r}, whose settings are set by hand: give one or the other."
        )
    if num_warmup == 0 and tuning is None and not by_hand:
        raise ValueError(
            f"num_warmup=0: sampler {recipe.name!r} is tuned in warmup. Ask for some warmup (500 is usual), or "
            "pass tuning=other.tuning of an earlier result."
        )
    return Request(recipe, int(num_chains), int(num_warmup), int(num_samples), tuning, precision)


def keeping(request: Request, model: Model, thinning: int, keep: Sequence[str] | str | None) -> Request:
    """The same, with what is kept of the draws.

    Raises:
        ValueError: the model has no such quantity, the number of draws is no multiple of `thinning`, or there is
            nothing to thin.
    """
    draws = request.num_samples
    if draws % thinning:
        raise ValueError(
            f"num_samples={draws} with thinning={thinning}: one of every {thinning} draws is kept, so that their "
            f"number must be a multiple of {thinning}, such as {draws + -draws % thinning}."
        )
    request = replace(request, thinning=int(thinning))
    if keep is None:
        return request
    if isinstance(keep, str) and keep in (MOMENTS, NONE):
        if thinning > 1:
            raise ValueError(
                f"thinning={thinning} with keep={keep!r}: all draws are folded as they come, and leaving some out "
                "saves nothing. Leave thinning out."
            )
        return replace(request, folded=keep, keep=() if keep == NONE else None)
    known = (*model.parameter_names, *model.deterministic_names)
    wanted = [keep] if isinstance(keep, str) else list(keep)
    unknown = [name for name in wanted if name not in known]
    if unknown or not wanted:
        said = ", ".join(map(repr, unknown)) or "nothing"
        raise ValueError(
            f"keep: got {said}, expected names of what the model '{model.name}' has: {', '.join(map(repr, known))}. "
            "deterministic= of shoal.Model makes others, or numpyro.deterministic in a NumPyro model. keep='moments' "
            "keeps moments and quantiles, and no draws; keep='none' next to nothing."
        )
    kept = tuple(name for name in known if name in wanted)
    return replace(request, keep=None if kept == known else kept)


def check_coordinates(model: Model) -> None:
    """Refuse a model whose names are those of the coordinates along the draws of a warmup."""
    names = (
        *model.parameter_names,
        *model.deterministic_names,
        *(axis for axes in model.dims.values() for axis in axes),
    )
    if taken := sorted(set(names) & set(COORDINATES)):
        raise ValueError(
            f"save_warmup=True: the model '{model.name}' has something called {taken[0]!r}, and so is a coordinate of "
            "the draws of the warmup. Choose another name in the model."
        )


def check_model(model: Any) -> None:
    """Refuse what is no model."""
    if not isinstance(model, Model):
        raise ValueError(
            f"model: got {type(model).__name__}, expected a shoal.Model. Wrap a NumPyro model by "
            "shoal.from_numpyro(model, *args), a log density by shoal.Model(params=..., log_density=...)."
        )


def check_superchains(num_superchains: Int | None, num_chains: int, initial_positions: Any) -> None:
    """Refuse more superchains than chains, and a number of them beside positions that say it."""
    if num_superchains is None:
        return
    check_count("num_superchains", num_superchains, 1)
    if initial_positions is not None:
        raise ValueError(
            "num_superchains and initial_positions were both given: chains with equal starts make up a "
            "superchain, so the positions alone say how many there are. Leave num_superchains out."
        )
    if num_superchains > num_chains:
        raise ValueError(
            f"num_superchains={num_superchains} is more than num_chains={num_chains}: every superchain needs "
            "at least one chain."
        )
