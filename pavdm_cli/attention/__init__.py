"""Attention back ends: one table of what can run it, and the choice made among them when a model is loaded."""

from pavdm_cli.attention.backend import Backend, Case, Limits, Machine, Run, machine_of
from pavdm_cli.attention.choice import AUTO, TORCH, Attention, choose, confirm, order
from pavdm_cli.attention.table import BACKENDS
from pavdm_cli.attention.torch_sdpa import SWITCHES, attend

__all__ = [
    "AUTO",
    "BACKENDS",
    "SWITCHES",
    "TORCH",
    "Attention",
    "Backend",
    "Case",
    "Limits",
    "Machine",
    "Run",
    "attend",
    "choose",
    "confirm",
    "machine_of",
    "order",
]
