"""Whether the log density is so large that its last digit decides acceptances."""

import numpy as np

from shoal.diagnostics.findings import Finding

# Acceptances feel differences of the log density from here on.
FELT = 0.1


def coarse(level: float, dtype: type) -> tuple[Finding, ...]:
    """What there is to say of a log density of this size: differences of it are known up to the spacing of numbers.

    Args:
        level: its mean over draws.
        dtype: that it is computed in.
    """
    spacing = float(np.spacing(np.asarray(abs(level), dtype))) if np.isfinite(level) else 0.0
    if spacing < FELT:
        return ()
    return (
        Finding(
            kind="digits",
            where="log density",
            number=spacing,
            threshold=FELT,
            blocking=False,
            words=f"The log density is about {level:.3g}, where {np.dtype(dtype).name} has no numbers nearer to each "
            f"other than {spacing:.2g}. Draws are accepted by differences that are rounded so: that costs acceptance, "
            "and details of the posterior smaller than it are lost.",
            remedy='Sample with precision="mixed", which has the log density in double, or "float64"; or take '
            "constants out of the log likelihood, such as its value at a good estimate, row by row.",
        ),
    )
