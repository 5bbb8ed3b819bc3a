"""Routes about the server itself: the health check, and the models."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.exceptions import HTTPException

from pavdm_cli import __version__
from pavdm_cli.errors import ModelError
from pavdm_cli.hub.weights_dir import require_weights
from pavdm_cli.models import registry
from pavdm_cli.models.adapter import VideoModel
from pavdm_cli.serve.schemas import Health, ModelList, ModelObject
from pavdm_cli.serve.service import Serving

router = APIRouter()


@router.get("/healthz")
def health(service: Serving) -> Health:
    """Whether the server is healthy, and how many videos are queued or being rendered."""
    if not service.worker.is_alive:
        raise HTTPException(503, "the render worker is not running")
    return Health(version=__version__, waiting=service.store.count_waiting())


@router.get("/v1/models")
def models() -> ModelList:
    """The models whose weights are installed, with help on their prompts."""
    return ModelList(data=[_describe(model) for model in registry.all_models() if _is_ready(model)])


def _is_ready(model: VideoModel) -> bool:
    try:
        require_weights(model.spec, True, model.published_spec)
    except ModelError:
        return False
    return True


def _describe(model: VideoModel) -> ModelObject:
    spec = model.spec
    height, width = (side * spec.scale for side in spec.size)
    tables, _ = model.prompt_help()
    text = [{"title": title, "head": list(head), "rows": [list(row) for row in rows]} for title, head, rows in tables]
    return ModelObject(
        id=spec.name,
        description=spec.description,
        size=f"{width}x{height}",
        fps=spec.fps,
        examples=[*spec.example_prompts],
        help=text,
    )
