"""What is said of coordinates whose draws are not kept: by running moments, less than draws would tell."""

from collections.abc import Iterator, Sequence

import numpy as np

from shoal.diagnostics.findings import Finding
from shoal.diagnostics.trial import MAX_R_HAT, MIN_ESS


def unkept(labels: Sequence[str], sd: np.ndarray, r_hat: np.ndarray, ess: np.ndarray) -> Iterator[Finding]:
    """A finding that blocks: a run has not converged where what it does not keep has not.

    Args:
        labels: of the coordinates.
        sd: of each the standard deviation, not finite where draws are not.
        r_hat: nested R-hat, NaN where it is not known.
        ess: effective draws of the mean, NaN where they are not known.
    """
    worst_r_hat, least = (
        np.nan_to_num(r_hat, nan=0.0).max(initial=0.0),
        np.nan_to_num(ess, nan=np.inf).min(initial=np.inf),
    )
    if not np.isfinite(sd).all():
        worst = int(np.flatnonzero(~np.isfinite(sd))[0])
        yield _finding(labels[worst], sd[worst], None, "has draws that are NaN or infinite")
    elif worst_r_hat > MAX_R_HAT:
        said = f"has a nested R-hat of {worst_r_hat:.3f} (at most {MAX_R_HAT} is asked for)"
        yield _finding(labels[int(np.nanargmax(r_hat))], worst_r_hat, MAX_R_HAT, said)
    elif least < MIN_ESS:
        said = f"has {least:,.0f} effective draws (at least {MIN_ESS} are asked for)"
        yield _finding(labels[int(np.nanargmin(ess))], least, MIN_ESS, said)


def nothing_kept(labels: Sequence[str], sd: np.ndarray, r_hat: np.ndarray, ess: np.ndarray) -> Iterator[Finding]:
    """As `unkept`, where no draw of anything is kept: what is not known blocks, too, and what cannot be seen is said.

    Args:
        labels: of the coordinates.
        sd: of each the standard deviation.
        r_hat: nested R-hat.
        ess: effective draws of the mean.
    """
    yield from unkept(labels, sd, r_hat, ess)
    if not np.any(sd):
        yield _finding(labels[0], 0.0, None, "has, as all others, one value in all draws: nothing was sampled")
    elif np.isnan(ess[sd > 0]).any():
        unknown = int(np.flatnonzero(np.isnan(ess) & (sd > 0))[0])
        yield _finding(labels[unknown], np.nan, MIN_ESS, "has too few chains to tell its effective draws")
    yield Finding(
        kind="unkept",
        where="keep",
        number=np.nan,
        words="Nothing of the draws is kept (keep='none'): the verdict rests on running moments of the coordinates "
        "and on the log density, and sees neither tails nor a drift that all chains have in common.",
        remedy="keep='moments' tells more, in memory that does not grow either.",
        blocking=False,
    )


def _finding(label: str, number: float, threshold: float | None, said: str) -> Finding:
    return Finding(
        kind="unkept",
        where=label,
        number=number,
        threshold=threshold,
        words=f"{label}, whose draws are not kept, {said}: what is kept depends on it.",
        remedy="Draw more (num_samples), or keep it, too: its draws tell more.",
    )


def not_judged_yet() -> Finding:
    """What is said before the end of a run that does not keep all coordinates: it blocks."""
    return Finding(
        kind="unkept",
        where="keep",
        number=float("nan"),
        words="Some quantities are not kept (keep=), and whether they have converged is said at the end of a run.",
        remedy="Wait for its end, or let shoal.resume go on with it.",
    )
