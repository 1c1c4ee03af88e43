"""The founding posterior (`breast_cancer`) with its likelihood in several spellings, for `shoal bench device` too.

    shoal bench device benchmarks/spellings.py:structured --chains 128,1024,16384

- plain: NumPyro's `Bernoulli` at `x @ w`, differentiated by JAX;
- stated: `log_bernoulli` of the shipped examples at `x @ w`, whose derivative is stated, in JAX's layout;
- structured: `shoal.glm.bernoulli_logit`.

And `normal_identity` of the same data, for what is left without any transcendental function.
"""

import numpyro.distributions as dist

import shoal
from shoal.examples import breast_cancer, load
from shoal.examples.logistic import log_bernoulli

SPELLINGS = {
    "plain": lambda y, x, w: dist.Bernoulli(logits=x @ w).log_prob(y).sum(),
    "stated": lambda y, x, w: log_bernoulli(y, x @ w),
    "structured": shoal.glm.bernoulli_logit,
    "normal": lambda y, x, w: shoal.glm.normal_identity(y, x, w, scale=1.0),
}


def founding(log_prob, name: str = "breast_cancer") -> shoal.Model:
    """The founding posterior with a likelihood of data and coefficients."""
    return shoal.Model(
        params={"tau": shoal.positive(), "lamb": shoal.positive(30), "beta": shoal.real(30)},
        log_prior=breast_cancer.log_prior,
        log_likelihood=lambda p, rows: log_prob(rows["y"], rows["x"], p["tau"] * p["lamb"] * p["beta"]),
        data=load("breast_cancer").data,
        name=name,
    )


def plain() -> shoal.Model:
    """By NumPyro's distribution."""
    return founding(SPELLINGS["plain"], "breast_cancer, plain")


def structured() -> shoal.Model:
    """By `shoal.glm`."""
    return founding(SPELLINGS["structured"], "breast_cancer, structured")
