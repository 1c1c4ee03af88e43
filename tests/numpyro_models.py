"""Six models as NumPyro's documentation writes them, on simulated data where theirs is downloaded."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import scan
from numpyro.distributions.transforms import AffineTransform
from numpyro.infer.reparam import TransformReparam


# README, "A Simple Example - 8 Schools", the reparametrised form.
def eight_schools(J, sigma, y=None):
    mu = numpyro.sample("mu", dist.Normal(0, 5))
    tau = numpyro.sample("tau", dist.HalfCauchy(5))
    with numpyro.plate("J", J), numpyro.handlers.reparam(config={"theta": TransformReparam()}):
        theta = numpyro.sample("theta", dist.TransformedDistribution(dist.Normal(0.0, 1.0), AffineTransform(mu, tau)))
        numpyro.sample("obs", dist.Normal(theta, sigma), obs=y)


# Getting started, logistic regression.
def logistic_regression(data, labels=None):
    coefs = numpyro.sample("coefs", dist.Normal(jnp.zeros(data.shape[1]), jnp.ones(data.shape[1])))
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 10.0))
    logits = jnp.sum(coefs * data + intercept / data.shape[1], axis=-1)
    return numpyro.sample("obs", dist.Bernoulli(logits=logits), obs=labels)


# Example: Gaussian process.
def kernel(X, Z, var, length, noise, jitter=1.0e-6, include_noise=True):
    deltaXsq = jnp.power((X[:, None] - Z) / length, 2.0)
    k = var * jnp.exp(-0.5 * deltaXsq)
    if include_noise:
        k += (noise + jitter) * jnp.eye(X.shape[0])
    return k


def gaussian_process(X, Y):
    var = numpyro.sample("kernel_var", dist.LogNormal(0.0, 10.0))
    noise = numpyro.sample("kernel_noise", dist.LogNormal(0.0, 10.0))
    length = numpyro.sample("kernel_length", dist.LogNormal(0.0, 10.0))
    k = kernel(X, X, var, length, noise)
    numpyro.sample("Y", dist.MultivariateNormal(loc=jnp.zeros(X.shape[0]), covariance_matrix=k), obs=Y)


# Tutorial: Bayesian hierarchical linear regression. It counts the patients while it is traced.
def hierarchical_regression(patient_code, Weeks, FVC_obs=None):
    mu_alpha = numpyro.sample("mu_alpha", dist.Normal(0.0, 500.0))
    sigma_alpha = numpyro.sample("sigma_alpha", dist.HalfNormal(100.0))
    mu_beta = numpyro.sample("mu_beta", dist.Normal(0.0, 3.0))
    sigma_beta = numpyro.sample("sigma_beta", dist.HalfNormal(3.0))
    n_patients = len(np.unique(patient_code))
    with numpyro.plate("plate_i", n_patients):
        alpha = numpyro.sample("alpha", dist.Normal(mu_alpha, sigma_alpha))
        beta = numpyro.sample("beta", dist.Normal(mu_beta, sigma_beta))
    sigma = numpyro.sample("sigma", dist.HalfNormal(100.0))
    FVC_est = alpha[patient_code] + beta[patient_code] * Weeks
    with numpyro.plate("data", len(patient_code)):
        numpyro.sample("obs", dist.Normal(FVC_est, sigma), obs=FVC_obs)


# Example: AR2 process, by scan.
def autoregression(y):
    alpha_1 = numpyro.sample("alpha_1", dist.Normal(0, 1))
    alpha_2 = numpyro.sample("alpha_2", dist.Normal(0, 1))
    const = numpyro.sample("const", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))

    def transition(carry, _):
        y_prev, y_prev_prev = carry
        m_t = const + alpha_1 * y_prev + alpha_2 * y_prev_prev
        y_t = numpyro.sample("y", dist.Normal(m_t, sigma))
        return (y_t, y_prev), m_t

    timesteps = jnp.arange(y.shape[0] - 2)
    with numpyro.handlers.condition(data={"y": y[2:]}):
        _, mu = scan(transition, (y[1], y[0]), timesteps)
    numpyro.deterministic("mu", mu)


# Documentation of LKJCholesky.
def correlated_normals(y):
    d = y.shape[1]
    theta = numpyro.sample("theta", dist.HalfCauchy(jnp.ones(d)))
    L_omega = numpyro.sample("L_omega", dist.LKJCholesky(d, concentration=1.0))
    L_Omega = jnp.matmul(jnp.diag(jnp.sqrt(theta)), L_omega)
    with numpyro.plate("observations", y.shape[0]):
        numpyro.sample("obs", dist.MultivariateNormal(jnp.zeros(d), scale_tril=L_Omega), obs=y)


def _schools():
    y = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    return (8, np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])), {"y": y}


def _labels():
    rng = np.random.default_rng(1)
    data = rng.standard_normal((200, 3))
    chance = 1 / (1 + np.exp(-(data @ [1.0, 2.0, 3.0])))
    return (data, (rng.random(200) < chance).astype(np.int32)), {}


def _curve():
    rng = np.random.default_rng(0)
    X = np.linspace(-1, 1, 30)
    Y = X + 0.2 * X**3 + 0.5 * (0.5 + X) ** 2 * np.sin(4.0 * X)
    Y = Y + 0.15 * rng.standard_normal(30)
    return (X, (Y - Y.mean()) / Y.std()), {}


def _patients():
    rng = np.random.default_rng(2)
    code = np.repeat(np.arange(12), 9)
    weeks = np.tile(np.arange(9) * 6.0, 12)
    alpha, beta = 100 + 80 * rng.standard_normal(12), -3 + 2 * rng.standard_normal(12)
    return (code, weeks, alpha[code] + beta[code] * weeks + 20 * rng.standard_normal(108)), {}


def _series():
    rng = np.random.default_rng(3)
    y = np.zeros(120)
    for t in range(2, 120):
        y[t] = 0.2 + 0.5 * y[t - 1] + 0.2 * y[t - 2] + 0.3 * rng.standard_normal()
    return (y,), {}


def _vectors():
    rng = np.random.default_rng(4)
    factor = np.linalg.cholesky([[1.0, 0.6, 0.2], [0.6, 1.0, -0.3], [0.2, -0.3, 1.0]])
    return (rng.standard_normal((80, 3)) @ factor.T * [1.0, 2.0, 0.5],), {}


# name -> (model, positional arguments, keyword arguments, dimension)
DOCUMENTED = {
    "eight_schools": (eight_schools, *_schools(), 10),
    "glm": (logistic_regression, *_labels(), 4),
    "gaussian_process": (gaussian_process, *_curve(), 3),
    "hierarchical": (hierarchical_regression, *_patients(), 29),
    "autoregression": (autoregression, *_series(), 4),
    "cholesky_correlation": (correlated_normals, *_vectors(), 6),
}


def documented(name):
    """One of the six as a Shoal model."""
    from shoal import from_numpyro

    model, args, kwargs, _ = DOCUMENTED[name]
    return from_numpyro(model, *args, name=name, **kwargs)


def names():
    return tuple(DOCUMENTED)


def position(dim, seed=0, scale=0.5):
    return scale * jax.random.normal(jax.random.key(seed), (4, dim))
