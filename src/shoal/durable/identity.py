"""Whether what is asked for is what a directory holds: settings, parameters, data, and the log density itself."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from shoal.models import datasets
from shoal.models.model import Model
from shoal.starts import log_density_at
from shoal.target import Target

# What a run may be prolonged by, and what the model is called and where it was found: these may differ.
FREE = ("num_samples", "until", "target", "model")
# The log density of another program rounds otherwise, by some last digits of its terms. A normal prior of one parameter
# that is 2% wider changes it by 0.016. Medians over chains: single ones may cancel badly.
SAME_LOG_DENSITY, SAME_DIGITS = 0.01, 1e-5
# Of so many of the chains it may be so many times as much.
MOST_CHAINS, BAD_CHAINS = 0.9, 10.0
# So many positions say whether a log density is the same.
POSITIONS = 64


def identity(model: Model, settings: Mapping[str, Any], **given: Any) -> dict[str, Any]:
    """What decides which draws a run makes, as JSON holds it.

    Args:
        model: what is sampled.
        settings: of the run.
        **given: arrays that were passed in, by argument; None where one was not.
    """
    return {
        "settings": {name: value for name, value in settings.items() if name not in FREE},
        "parameters": {slot.name: list(slot.shape) for slot in model.layout.slots},
        "data": {name: _digest(leaf) for name, leaf in datasets.named_leaves(model.data)},
        "given": {name: None if value is None else _digest_of_many(value) for name, value in given.items()},
    }


def differences(there: Mapping[str, Any], asked: Mapping[str, Any]) -> list[str]:
    """What differs between the identities of a run on disk and of one that is asked for, in words."""
    said = []
    nouns = {"settings": "", "parameters": "the shape of parameter ", "data": "", "given": "what was given as "}
    for part, noun in nouns.items():
        before, now = there.get(part, {}), asked[part]
        for name in dict.fromkeys((*before, *now)):
            if name not in now:
                said.append(f"{noun}{name} is not there any more")
            elif name not in before:
                said.append(f"{noun}{name} is new")
            elif before[name] != now[name]:
                shown = f" was {before[name]!r} and is {now[name]!r}"
                said.append(f"{noun}{name}{shown if part in ('settings', 'parameters') else ' has other values'}")
    return said


def other_run(name: str, said: Sequence[str]) -> str:
    """Why what is asked for does not go on with the run of a directory.

    Args:
        name: of the directory, or its URL.
        said: what differs.
    """
    return (
        f"The directory '{name}' holds another run than the one that is asked for. What differs: {'; '.join(said)}. "
        "Give a new directory, or ask for what is there: the same call goes on with it, and shoal.load reads its draws."
    )


def log_density_differs(
    target: Target, position: Float[np.ndarray, "chains dim"], log_density: Float[np.ndarray, " chains"]
) -> str:
    """What differs between the log density of a run on disk and that of a target, in words; empty where nothing does.

    Args:
        target: that is to be sampled.
        position: of the chains of the run.
        log_density: there, when they were left.
    """
    some = slice(None, POSITIONS)
    now = np.asarray(log_density_at(target, jnp.asarray(position[some])), float)
    before = log_density[some].astype(float)
    apart = np.where(np.isfinite(now), np.abs(now - before), np.inf)
    allowed = SAME_LOG_DENSITY + SAME_DIGITS * np.median(np.abs(before))
    few = np.quantile(apart, MOST_CHAINS, method="higher")
    if np.median(apart) <= allowed and few <= BAD_CHAINS * allowed and np.isfinite(apart).all():
        return ""
    worst = int(np.argmax(apart))
    return f"the log density: where chain {worst} was left it was {before[worst]:.6g} and is {now[worst]:.6g}"


def _digest(array: Any) -> str:
    array = np.ascontiguousarray(array)
    digest = hashlib.blake2b(f"{array.dtype.str}{array.shape}".encode(), digest_size=16)
    digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _digest_of_many(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _digest(array) for name, array in value.items()}
    return _digest(value)
