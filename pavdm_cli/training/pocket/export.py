"""Writes the weights of a VAE and a denoiser as pocket ships them."""

from __future__ import annotations

from pathlib import Path

from pavdm_cli.errors import ModelError
from pavdm_cli.models.pocket import checkpoint
from pavdm_cli.models.pocket.model import DENOISER_FILE, VAE_FILE
from pavdm_cli.training.pocket import fingerprint
from pavdm_cli.training.pocket.runs import make_folder

MAX_FILE_BYTES = 15_000_000


def export(vae_file: Path, denoiser_file: Path, folder: Path, max_file_bytes: int = MAX_FILE_BYTES) -> None:
    """Write both parts in 16 bits to a folder, in files of limited size, instead of what is there.

    Raises: ModelError, also if the denoiser was trained on latents of another VAE; OutputError.
    """
    vae, denoiser = checkpoint.load_vae(vae_file), checkpoint.load_denoiser(denoiser_file)
    metadata, own_latents = checkpoint.training_metadata(denoiser_file), fingerprint.latents(vae)
    if metadata.get("latents", own_latents) != own_latents:
        message = f"{denoiser_file} was trained on latents of a VAE other than {vae_file}"
        raise ModelError(message, "pass the VAE that it was trained with, or one derived from it with --freeze-encoder")
    vae_metadata = checkpoint.training_metadata(vae_file)
    make_folder(folder)
    checkpoint.save(vae, folder / VAE_FILE, vae_metadata, max_file_bytes)
    checkpoint.save(denoiser, folder / DENOISER_FILE, metadata, max_file_bytes)
