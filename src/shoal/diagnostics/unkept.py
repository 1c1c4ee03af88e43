"""What is said of coordinates whose draws are not kept: by running moments, less than draws would tell."""

from collections.abc import Iterator, Sequence

import numpy as np

from shoal.diagnostics.findings import Finding
from shoal.diagnostics.trial import MAX_R_HAT, MIN_ESS


def unkept(labels: Sequence[str], r_hat: np.ndarray, ess: np.ndarray) -> Iterator[Finding]:
    """Findings that block: a run has not converged where what it does not keep has not.

    Args:
        labels: of the coordinates.
        r_hat: of each nested R-hat, NaN where it is not known.
        ess: effective draws of the mean, NaN where they are not known.
    """
    if not np.nan_to_num(r_hat, nan=0.0).max(initial=0.0) <= MAX_R_HAT:
        worst = int(np.nanargmax(r_hat))
        yield Finding(
            kind="unkept",
            where=labels[worst],
            number=float(r_hat[worst]),
            threshold=MAX_R_HAT,
            words=f"{labels[worst]}, whose draws are not kept, has a nested R-hat of {r_hat[worst]:.3f} (at most "
            f"{MAX_R_HAT} is asked for): what is kept depends on it.",
            remedy="Draw more (num_samples), or keep it, too: its draws tell more.",
        )
    elif not np.nan_to_num(ess, nan=np.inf).min(initial=np.inf) >= MIN_ESS:
        worst = int(np.nanargmin(ess))
        yield Finding(
            kind="unkept",
            where=labels[worst],
            number=float(ess[worst]),
            threshold=MIN_ESS,
            words=f"{labels[worst]}, whose draws are not kept, has {ess[worst]:,.0f} effective draws (at least "
            f"{MIN_ESS} are asked for): what is kept depends on it.",
            remedy="Draw more (num_samples), or keep it, too: its draws tell more.",
        )
