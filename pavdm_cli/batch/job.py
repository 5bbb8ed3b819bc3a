"""A job: a video to make, and the name of its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pavdm_cli.generation.request import Request
from pavdm_cli.runtime.untrusted import summarize


@dataclass(frozen=True, slots=True)
class Job:
    """One video of a batch."""

    name: str  # of its file in the batch's folder; no other job has it
    location: str  # where it is written: jobs.txt:3
    request: Request

    @property
    def frames(self) -> int:
        """Frames of the video."""
        return self.request.frame_count


def file_name(index: int, prompt: str, seed: int) -> str:
    """INDEX-PROMPT-SEED.mp4: the same for the same job at every run, and different for every index and seed."""
    from pavdm_cli.video.write.output import slug

    return f"{index:04}-{slug(prompt)}-{seed}.mp4"


def to_json(job: Job) -> dict[str, Any]:
    """As it is stored in the queue."""
    from pavdm_cli.generation import stored_request

    return {"name": job.name, "location": job.location, "request": stored_request.to_json(job.request)}


def is_same(stored_job: Any, job: Job) -> bool:
    """Whether a stored job makes the same video; a field that a newer version added differs only from its default."""
    return isinstance(stored_job, Mapping) and not differences(stored_job, job)


def differences(stored_job: Mapping[str, Any], job: Job) -> list[str]:
    """How a job differs from a stored one: lines like 'frames is 9, was 8'."""
    new = to_json(job)["request"]
    del new["output"]["force"]  # of the command that added the job: it changes no video
    return [*_differences("the request", stored_job.get("request"), new)]


def _differences(name: str, stored_value: Any, new_value: Any) -> Iterator[str]:
    if isinstance(new_value, Mapping) and isinstance(stored_value, Mapping):
        for key, value in new_value.items():
            if key in stored_value:
                yield from _differences(key, stored_value[key], value)
    elif (
        isinstance(new_value, (list, tuple)) and isinstance(stored_value, list) and len(new_value) == len(stored_value)
    ):
        if any(True for pair in zip(stored_value, new_value, strict=True) for _ in _differences(name, *pair)):
            yield f"{name} is {summarize(new_value)}, was {summarize(stored_value)}"
    elif stored_value != new_value:
        yield f"{name} is {summarize(new_value)}, was {summarize(stored_value)}"
