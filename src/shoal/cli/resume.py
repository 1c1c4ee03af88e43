"""`shoal resume DIR`: go on with a run that was killed or stopped, or make it longer."""

from functools import partial
from typing import Any

import click

from shoal.cli import targets
from shoal.cli.codes import as_json, debug, max_seconds, run_directory, tensorboard, usage
from shoal.cli.precision import ending, until_of
from shoal.cli.sample import concluded, use_cpu_devices


@click.command(short_help="Go on with a run, or make it longer.")
@run_directory
@click.argument("target", required=False)
@click.option("--num-samples", type=click.IntRange(min=1), help="Draws of each chain in all.  [default: as asked for]")
@click.option("--add-samples", type=click.IntRange(min=1), help="Draws of each chain to add to those asked for.")
@ending
@click.option("--devices", type=click.IntRange(min=1), help="CPU devices to use.  [default: one per core]")
@max_seconds
@tensorboard
@click.option("--no-progress", is_flag=True, help="Do not show how far it is.")
@click.option("--quiet", is_flag=True, help="Print nothing, except why draws cannot be trusted.")
@as_json
@debug
def resume(directory: str, target: str | None, **options: Any) -> int:
    r"""Go on with the run in DIR: its draws are those of a run that was never stopped.

    TARGET, as for `shoal sample`, is needed where the run was begun in Python, and where a file has moved.

    \b
      shoal resume runs/breast_cancer
      shoal resume runs/breast_cancer --add-samples 1000
      shoal resume runs/breast_cancer --ess 10000
    """
    use_cpu_devices(options["devices"])
    from shoal import sampling
    from shoal.durable.at_url import known_of
    from shoal.durable.folder import beginning_of
    from shoal.objects import place_of
    from shoal.results.made import made

    with usage():
        out = place_of(directory)
        with known_of(out) as known:
            there, has = beginning_of(known), made(known)
        if there is None:
            raise ValueError(f"There is no run in '{out}' that can go on: give the --out of shoal sample.")
        until = until_of(options, has.until if has.asked else there.settings.get("until"))
    target = target or there.settings.get("target")
    if target is None:
        raise click.UsageError(
            f"The run in '{out}' samples '{there.settings['model']}', and was begun in Python: say where the model is, "
            f"shoal resume {directory} file.py:object."
        )
    model = targets.resolve(target)
    go_on = partial(
        sampling.resume,
        out,
        model,
        num_samples=options["num_samples"],
        add_samples=options["add_samples"],
        until=until,
        progress_bar=not (options["quiet"] or options["no_progress"]),
        max_seconds=options["max_seconds"],
        tensorboard=options["tensorboard"],
    )
    return concluded(go_on, out, options)
