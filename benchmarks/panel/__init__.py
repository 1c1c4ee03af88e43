"""The benchmark panel: targets whose answers are known, Shoal and its peers, one row per target, sampler and seed.

`python -m benchmarks.panel --list` names what there is, and `make panel` runs what is not in
`benchmarks/results/panel/` yet. `docs/panel.md` defines every column.
"""

# ArviZ puts a stand-in for NumPyro into sys.modules that loads later, and wrongly when a submodule is imported first.
import numpyro  # noqa: F401
