"""Attention backends: a table of what can run attention, and the choice among them when a model is loaded."""

from pavdm_cli.attention.backend import AttentionFn, Backend, Case, Limits, Machine, machine_of
from pavdm_cli.attention.choice import AUTO, TORCH, Attention, auto_order, check_backend, choose_backend
from pavdm_cli.attention.table import BACKENDS
from pavdm_cli.attention.torch_sdpa import SDPA_LOCK, attend

__all__ = [
    "AUTO",
    "BACKENDS",
    "SDPA_LOCK",
    "TORCH",
    "Attention",
    "AttentionFn",
    "Backend",
    "Case",
    "Limits",
    "Machine",
    "attend",
    "auto_order",
    "check_backend",
    "choose_backend",
    "machine_of",
]
