"""The No-U-Turn Sampler once more: one chain, plain recursion in NumPy, written from the papers. Slow.

The recursion is that of Hoffman & Gelman (2014), algorithm 3; weights, progressive sampling and the criterion are those
of Betancourt (2017), appendix A; the checks across halves are Stan's. The metric is the identity.
"""

from typing import NamedTuple

import numpy as np


class State(NamedTuple):
    x: np.ndarray
    p: np.ndarray
    gradient: np.ndarray


class Tree(NamedTuple):
    """A trajectory in the order of time."""

    left: State
    right: State
    rho: np.ndarray
    weight: float
    draw: np.ndarray
    straight: bool
    leaves: int
    acceptance: float


class ReferenceNUTS:
    """`log_density` takes a point and returns value and gradient."""

    def __init__(self, log_density, step_size, rng, max_tree_depth=10):
        self.log_density, self.step_size, self.rng = log_density, step_size, rng
        self.max_tree_depth = max_tree_depth

    def draw(self, x, momentum=None, directions=None):
        """The next point; leaves of the tree; mean acceptance over them.

        Where they are given, the momentum and the directions, a bit for each doubling, are not left to chance.
        """
        value, gradient = self.log_density(x)
        start = State(x, self.rng.normal(size=x.shape) if momentum is None else momentum, gradient)
        energy = 0.5 * start.p @ start.p - value
        tree = Tree(start, start, start.p, 1.0, x, True, 0, 0.0)
        for depth in range(self.max_tree_depth):
            forwards = self.rng.random() < 0.5 if directions is None else bool(directions >> depth & 1)
            new = self.subtree(tree.right if forwards else tree.left, forwards, depth, energy)
            leaves, acceptance = tree.leaves + new.leaves, tree.acceptance + new.acceptance
            if not new.straight:
                tree = tree._replace(leaves=leaves, acceptance=acceptance)
                break
            moves = self.rng.random() < new.weight / tree.weight
            tree = joined(tree, new, forwards, new.draw if moves else tree.draw)
            if not tree.straight:
                break
        return tree.draw, tree.leaves, tree.acceptance / tree.leaves

    def subtree(self, edge, forwards, depth, energy):
        if depth == 0:
            return self.leaf(edge, forwards, energy)
        first = self.subtree(edge, forwards, depth - 1, energy)
        if not first.straight:
            return first
        second = self.subtree(first.right if forwards else first.left, forwards, depth - 1, energy)
        takes = self.rng.random() < second.weight / (first.weight + second.weight)
        tree = joined(first, second, forwards, second.draw if takes else first.draw)
        return tree._replace(straight=tree.straight and second.straight)

    def leaf(self, edge, forwards, energy):
        step = self.step_size if forwards else -self.step_size
        p = edge.p + 0.5 * step * edge.gradient
        x = edge.x + step * p
        value, gradient = self.log_density(x)
        p = p + 0.5 * step * gradient
        error = 0.5 * p @ p - value - energy
        state = State(x, p, gradient)
        weight = np.exp(-error) if error <= 1000 else 0.0
        return Tree(state, state, p, weight, x, error <= 1000, 1, min(1.0, weight))


def joined(old, new, forwards, draw):
    left, right = (old, new) if forwards else (new, old)
    straight = (
        is_straight(left.left.p, right.right.p, left.rho + right.rho)
        and is_straight(left.left.p, right.left.p, left.rho + right.left.p)
        and is_straight(left.right.p, right.right.p, left.right.p + right.rho)
    )
    return Tree(
        left.left,
        right.right,
        left.rho + right.rho,
        left.weight + right.weight,
        draw,
        straight,
        left.leaves + right.leaves,
        left.acceptance + right.acceptance,
    )


def is_straight(p_left, p_right, rho):
    return p_left @ rho > 0 and p_right @ rho > 0
