"""What a run that ended before its time says: a finding with what happened, what is left, and what to do."""

import errno
from typing import Any

from shoal.diagnostics.findings import Finding, count

# How XLA, whose errors are all of one type, says that an allocation failed.
OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "out of memory")


def cut_short(error: Exception, kept: int, made: int, asked: int, on_disk: bool) -> Finding:
    """Sampling failed, and the draws so far are kept.

    Args:
        error: what ended it.
        kept: draws of each chain that are kept, at least one.
        made: draws of each chain that were made; those that are not kept are lost.
        asked: draws of each chain that were asked for.
        on_disk: whether the run has a directory.

    Returns:
        A finding that blocks.
    """
    after = (
        "shoal.resume or the same call then goes on."
        if on_disk
        else "A new run with tuning=result.tuning does without the warmup."
    )
    lost = ""
    if made > kept:
        lost = f" What came after them and could not be kept, {count(made - kept, 'draw')} of each chain, is lost."
    return Finding(
        kind="failed",
        where="sampling",
        number=kept,
        threshold=asked,
        words=f"Sampling failed after {kept:,} of {count(asked, 'draw')} of each chain with {_told(error)}. "
        f"The draws so far are kept.{lost}",
        remedy=f"{_cure(error)} {after}",
    )


def ended(made: int, asked: int) -> Finding:
    """The time that the run was given is up.

    Args:
        made: draws of each chain.
        asked: draws of each chain that were asked for.

    Returns:
        A finding that does not block: whether the draws are enough, others say.
    """
    return Finding(
        kind="ended",
        where="sampling",
        number=made,
        threshold=asked,
        words=f"max_seconds ended sampling after {made:,} of {count(asked, 'draw')} of each chain.",
        remedy="Where the run is in a directory, shoal.resume or the same call goes on with it.",
        blocking=False,
    )


def imprecise(made: int, most: int, lacks: str, given_up: bool = False) -> Finding:
    """A run ended before it was as precise as was asked for.

    Args:
        made: draws of each chain.
        most: that it might have made.
        lacks: what kept it from ending by itself; empty where nothing had been looked at.
        given_up: whether it ended because more draws would not mend what is found.

    Returns:
        A finding that does not block: whether the draws are enough for anything, others say.
    """
    if given_up:
        return Finding(
            kind="imprecise",
            where="until",
            number=made,
            threshold=most,
            words=f"Sampling ended after {count(made, 'draw')} of each chain, of at most {most:,}: more draws would "
            "not mend what else is found here.",
            remedy="Mend that first; with num_samples there are as many draws as are asked for.",
            blocking=False,
        )
    why = f": {lacks.rstrip('.')}" if lacks else ""
    return Finding(
        kind="imprecise",
        where="until",
        number=made,
        threshold=most,
        words=f"Sampling ended after {count(made, 'draw')} of each chain, of at most {most:,}, before all that was "
        f"asked for held{why}.",
        remedy="Allow more draws (max_samples) or more time: a run in a directory goes on by shoal.resume.",
        blocking=False,
    )


def doubtful(kind: str, why: str) -> Finding:
    """A run ended before its draws had passed what they are held against.

    Args:
        kind: "stein" or "drift".
        why: in words.

    Returns:
        A finding that blocks.
    """
    return Finding(
        kind=kind,
        where="until",
        number=float("nan"),
        words=f"At the end {why}.",
        remedy="Go on with the run, if more draws may mend it; otherwise look at the density with model.check(), which "
        "tells of edges and of gradients that are wrong, and at the kernel if it is your own.",
    )


def unfinished(error: Exception, path: Any) -> Finding:
    """The draws are on disk, but what is written at the end of a run is not.

    Args:
        error: what stood in the way.
        path: the directory of the run.

    Returns:
        A finding that blocks: who loads the run is told less than this result says.
    """
    return Finding(
        kind="failed",
        where="out",
        number=float("nan"),
        words=f"The run in '{path}' could not be finished, with {_told(error)}. shoal.load reads the draws that were "
        "committed there as those of an interrupted run, without tuning, timing and findings.",
        remedy=f"{_cure(error)} Then shoal.resume or the same call finishes it; save(...) of this result writes all of "
        "it to another directory.",
    )


def _told(error: Exception) -> str:
    first = next((line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _cure(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free space on the disk, or give a directory on another one."
    if isinstance(error, OSError):
        return "See that the directory can be written, or give another one."
    if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
        return "Make the run smaller: fewer chains, a smaller tile, a smaller model, or out=... to keep draws on disk."
    return "Mend what the error names."
