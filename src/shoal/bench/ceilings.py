"""What a machine can do at most, measured on all its local devices at once: three loops that do one thing each."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.linalg
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from shoal.bench.turns import Work
from shoal.compiling import launching
from shoal.mesh import isolated

MATRIX, MEMORY, TRANSCENDENTAL = "matrix product", "memory", "transcendental"
NUMBER = 4  # bytes of a float32


class Sizes(NamedTuple):
    """How large the loops are.

    Attributes:
        side: of the square matrices, a power of two.
        beyond_caches: numbers that no cache holds.
        numbers: that functions are evaluated at.
        pairs: of exp and log of a number between reading and writing it; with 1 there is a pass for each.
    """

    side: int
    beyond_caches: int
    numbers: int
    pairs: int


# The vector units of a CPU wait where a function needs another's result, and its caches do not: few numbers, a function
# at a time. A GPU has other numbers meanwhile, but its memory would hold it up: many functions of each number.
SIZES = {"cpu": Sizes(512, 2**25, 2**12, 1)}
SIZES_ON_ACCELERATORS = Sizes(4096, 2**28, 2**26, 16)


def ceilings(devices: Sequence[Any]) -> dict[str, Work]:
    """The three works, by name.

    Args:
        devices: that work at once, of one kind.
    """
    sizes = SIZES.get(devices[0].platform, SIZES_ON_ACCELERATORS)
    return {
        MATRIX: matrix_product(devices, sizes.side),
        MEMORY: memory(devices, sizes.beyond_caches),
        TRANSCENDENTAL: transcendental(devices, sizes.numbers, sizes.pairs),
    }


def matrix_product(devices: Sequence[Any], side: int) -> Work:
    """Products of square matrices in float32, counted in operations: 2 · side³ each."""
    # Orthogonal, so that numbers stay as large as they are, and dense: zeros would cost a device less power.
    turn = scipy.linalg.hadamard(side).astype(np.float32) / np.float32(np.sqrt(side))
    start = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)

    def body(both: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        with jax.default_matmul_precision("highest"):
            return both[0], both[0] @ both[1]

    return everywhere(devices, body, (turn, start), 2.0 * side**3)


def memory(devices: Sequence[Any], numbers: int) -> Work:
    """Read and write an array, counted in bytes that go either way."""
    body = lambda array: 0.5 * array + 1.0
    return everywhere(devices, body, np.ones(numbers, np.float32), 2.0 * NUMBER * numbers)


def transcendental(devices: Sequence[Any], numbers: int, pairs: int) -> Work:
    """Exponentials and logarithms, counted in both."""
    between = isolated if pairs == 1 else lambda array: array

    def body(array: jax.Array) -> jax.Array:
        for _ in range(pairs):
            array = jnp.log(2.0 + between(jnp.exp(-array)))
        return array

    return everywhere(devices, body, np.ones(numbers, np.float32), 2.0 * pairs * numbers)


def everywhere(devices: Sequence[Any], body: Callable[[Any], Any], start: PyTree, amount: float) -> Work:
    """A loop over `body`, the same on every device, which goes on where it ended: nothing is allocated for a call.

    Args:
        devices: that turn at once.
        body: of a pytree of arrays, to one of the same form.
        start: what it begins with.
        amount: what one turn of one device counts.
    """
    mesh, split = Mesh(np.array(devices), ("devices",)), PartitionSpec("devices")

    def local(state: PyTree, turns: jax.Array) -> PyTree:
        end = jax.lax.fori_loop(0, turns, lambda _, one: body(one), jax.tree.map(lambda leaf: leaf[0], state))
        return jax.tree.map(lambda leaf: leaf[None], end)

    spread = jax.shard_map(local, mesh=mesh, in_specs=(split, PartitionSpec()), out_specs=split, check_vma=False)
    loop = jax.jit(spread, donate_argnums=0)
    copies = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (len(devices), *leaf.shape)), start)
    state = jax.device_put(copies, NamedSharding(mesh, split))

    def work(times: int) -> float:
        nonlocal state
        with launching():
            state = loop(state, np.int32(times))
        jax.block_until_ready(state)
        return amount * times * len(devices)

    return work
