"""pavdm: long videos by progressive autoregressive video diffusion, from the command line and from Python.

    import pavdm_cli

    pavdm_cli.generate("a red ball over green hills", seconds=2).save("ball.mp4")

`docs/python.md` explains `generate`, `generate_batch`, `extend`, `load_model` and `list_models`, which are
imported when they are used.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pavdm_cli.api import Model, Video, extend, generate, generate_batch, list_models, load_model

__all__ = ["Model", "Video", "__version__", "extend", "generate", "generate_batch", "list_models", "load_model"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Import the API lazily, so that the command line starts fast."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from pavdm_cli import api

    return getattr(api, name)
