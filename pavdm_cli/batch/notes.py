"""What a job's model was given as its prompt, and the notes that `generate` prints before it renders."""

from __future__ import annotations

from typing import Any

from pavdm_cli.batch.job import Job
from pavdm_cli.batch.resources import for_any_device
from pavdm_cli.errors import PavdmError
from pavdm_cli.generation import image_start
from pavdm_cli.generation.resolve import resolve
from pavdm_cli.video.io.image import read_image


def caption_and_notes(job: Job) -> dict[str, Any]:
    """The fields `caption` and `notes` of a job's result; empty if its files are gone."""
    try:
        config = resolve(for_any_device(job.request))
        image_notes = image_start.notes(config, read_image(job.request.image)) if job.request.image else []
    except PavdmError:
        return {"caption": "", "notes": []}
    prompt = config.formatted_prompt
    return {"caption": prompt.caption or prompt.text, "notes": [*image_notes, *config.notes]}
