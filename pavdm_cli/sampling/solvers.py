"""The solvers by name."""

from __future__ import annotations

from collections.abc import Callable

from pavdm_cli.sampling.noise import NoiseLevels
from pavdm_cli.sampling.solver import Solver, euler
from pavdm_cli.sampling.unipc import unipc

BUILD: dict[str, Callable[[NoiseLevels], Solver]] = {"euler": euler, "unipc": unipc}


def solver_of(name: str, levels: NoiseLevels) -> Solver:
    """The solver of a name, for these levels and on their device."""
    return BUILD[name](levels)
