"""The solvers by name."""

from __future__ import annotations

from collections.abc import Callable

from pavdm_cli.sampling.noise import NoiseLevels
from pavdm_cli.sampling.solver import Solver, euler
from pavdm_cli.sampling.unipc import unipc

CONSTRUCTORS: dict[str, Callable[[NoiseLevels], Solver]] = {"euler": euler, "unipc": unipc}


def build_solver(name: str, levels: NoiseLevels) -> Solver:
    """Build a solver by name for these levels, on their device."""
    return CONSTRUCTORS[name](levels)
