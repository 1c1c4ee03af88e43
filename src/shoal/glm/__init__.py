"""Likelihoods of generalised linear models whose gradient costs two matrix products and little else."""

from shoal.glm.likelihoods import bernoulli_logit as bernoulli_logit
from shoal.glm.likelihoods import categorical_logit as categorical_logit
from shoal.glm.likelihoods import normal_identity as normal_identity
from shoal.glm.likelihoods import ordered_logistic as ordered_logistic
from shoal.glm.likelihoods import poisson_log as poisson_log

__all__ = ["bernoulli_logit", "categorical_logit", "normal_identity", "ordered_logistic", "poisson_log"]
