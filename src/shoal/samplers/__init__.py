"""The named samplers, one per file: a kernel, how its tuning is learned, and what a user may set."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from shoal.samplers.auto import Auto
from shoal.samplers.base import Sampler
from shoal.samplers.chees import ChEES
from shoal.samplers.hmc import HMC
from shoal.samplers.mams import MAMS
from shoal.samplers.meads import MEADS
from shoal.samplers.nuts import NUTS

SAMPLERS: dict[str, type[Sampler]] = {recipe.name: recipe for recipe in (Auto, ChEES, HMC, MAMS, MEADS, NUTS)}


def named(name: str, settings: Mapping[str, Any] | None = None) -> Sampler:
    """The sampler of this name with these settings.

    Raises:
        ValueError: no such sampler, no such setting, a setting missing, or a value out of range.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler={name!r} is not known; there are {', '.join(map(repr, sorted(SAMPLERS)))}.")
    recipe, settings = SAMPLERS[name], dict(settings or {})
    fields = [field.name for field in dataclasses.fields(recipe)]
    if unknown := sorted(set(settings) - set(fields)):
        raise ValueError(f"sampler {name!r} has no setting {unknown[0]!r}; it has {', '.join(fields)}.")
    try:
        return recipe(**settings)
    except TypeError as error:
        raise ValueError(
            f"sampler {name!r} needs all of its settings without a default: {', '.join(fields)}; "
            f"got {', '.join(settings) or 'none'}. For example shoal.HMC(step_size=0.05, num_steps=20), or "
            f"--sampler hmc --set step_size=0.05 --set num_steps=20. To have them tuned, use sampler='auto'."
        ) from error
