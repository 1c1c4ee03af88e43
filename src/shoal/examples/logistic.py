"""The logistic likelihood, spelled so that its gradient is cheap."""

import jax
import jax.numpy as jnp
from jax import Array


@jax.custom_jvp
def log1p_exp(x: Array) -> Array:
    """log(1 + exp(x)) without overflow, elementwise.

    Its derivative is the logistic function, stated here as such: differentiating `jnp.logaddexp` computes the
    logarithm again, which makes a gradient of the whole posterior 2 to 3 times as expensive on a CPU (16
    chains, thousand gradients per second: logaddexp or softplus 200, this 580).

    Args:
        x: any numbers.

    Returns:
        As x.
    """
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


# tanh is one vectorised polynomial where the logistic function takes exp and a division: a tenth faster.
log1p_exp.defjvps(lambda tangent, _, x: tangent * (0.5 + 0.5 * jnp.tanh(0.5 * x)))


def log_bernoulli(y: Array, logits: Array) -> Array:
    """Log probability of labels, summed.

    Args:
        y: 0 or 1.
        logits: log odds of 1.

    Returns:
        A scalar.
    """
    return jnp.sum(y * logits - log1p_exp(logits))
