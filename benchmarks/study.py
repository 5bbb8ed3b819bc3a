"""The paper's study on a model that anyone can run: `python benchmarks/study.py FOLDER --base denoiser.safetensors`.

Fine-tunes PA and RW from the base weights with equal budgets, generates every arm with paired prompts and seeds,
measures every video, and with --report writes docs/results.md. The same command continues an interrupted study.
With --shard I/N, each of N processes or machines that share the folder does its part of the prompts.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from paper import report
from paper.arms import ARMS, BY_NAME, REAL
from paper.runs import Budget, Study, check_settings, fine_tune, read_rows, run_arm, run_real, store_rows, study_prompt

from pavdm_cli.errors import PavdmError
from pavdm_cli.models.registry import DEFAULT

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "results.md"
ROWS = ROOT / "benchmarks" / "results" / "study.jsonl.xz"  # those of the document
REASONS = ROOT / "benchmarks" / "paper" / "reasons.json"


def parse_arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="for weights, videos and rows")
    parser.add_argument("--model", default=DEFAULT, help="other models have no fine-tuned arms and no ground truth")
    parser.add_argument("--base", type=Path, help="pocket's denoiser before fine-tuning, .safetensors")
    parser.add_argument("--finetuned-pa", type=Path, help="instead of fine-tuning here")
    parser.add_argument("--finetuned-rw", type=Path, help="instead of fine-tuning here")
    parser.add_argument("--finetune-steps", type=int, default=4000)
    parser.add_argument("--finetune-batch", type=int, default=16)
    parser.add_argument("--finetune-rate", type=float, default=0.0008)
    parser.add_argument("--finetune-clips", type=int, default=2400)
    parser.add_argument("--arms", nargs="+", choices=[*BY_NAME, REAL], default=[*BY_NAME, REAL])
    parser.add_argument("--prompts", type=int, default=24, help="held-out scenes of the rendered world")
    parser.add_argument("--prompts-file", type=Path, help="one prompt per line, for other models")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="part I of N of the prompts")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--report",
        nargs="?",
        type=Path,
        const=DOCUMENT,
        help="write the report; default: docs/results.md, and store its rows",
    )
    parser.add_argument("--reasons", type=Path, default=REASONS, help="JSON: a sentence for each claim, for the report")
    parser.add_argument("--draft", action="store_true", help="also report rows of uncommitted code")
    return parser.parse_args(words)


def study_of(args: argparse.Namespace) -> Study:
    """The study that the command line describes. Exits where a file does not exist."""
    files = (args.base, args.finetuned_pa, args.finetuned_rw, args.prompts_file, args.reasons)
    if missing := [str(path) for path in files if path is not None and not path.is_file()]:
        sys.exit(f"{missing[0]} does not exist")
    if args.prompts_file:
        prompts = tuple(line.strip() for line in args.prompts_file.read_text().splitlines() if line.strip())
    elif args.model == DEFAULT:
        prompts = tuple(study_prompt(seed) for seed in range(args.first_seed, args.first_seed + args.prompts))
    else:
        sys.exit("--model other than pocket needs --prompts-file")
    budget = Budget(args.finetune_steps, args.finetune_batch, args.finetune_rate, args.finetune_clips)
    weights = {"base": args.base, "pa": args.finetuned_pa, "rw": args.finetuned_rw}
    return Study(args.folder, args.model, args.seconds, prompts, args.first_seed, weights, budget, args.threads)


def shard_of(seeds: Sequence[int], shard: str) -> list[int]:
    """The seeds of part I of N, interleaved."""
    index, _, count = shard.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        sys.exit(f"--shard must be I/N with I from 1 to N, got {shard!r}")
    return list(seeds[int(index) - 1 :: int(count)])


def run(study: Study, args: argparse.Namespace) -> None:
    """Run all arms that are not finished."""
    seeds, rows = (
        shard_of(list(study.seeds), args.shard),
        study.folder / f"rows-{args.shard.replace('/', '-of-')}.jsonl",
    )
    arms = [arm for arm in ARMS if arm.name in args.arms]
    if study.is_pocket:
        roles = sorted({arm.weights for arm in arms} & {"pa", "rw"})
        tuned_weights = {role: fine_tune(study, role, log, is_sharded=args.shard != "1/1") for role in roles}
        study = replace(study, weights=dict(study.weights) | tuned_weights)
    if REAL in args.arms:
        run_real(study, seeds, rows, log)
    for arm in arms:
        if study.is_pocket or arm.weights == "base":
            run_arm(study, arm, seeds, rows, log)


def log(line: str) -> None:
    """Print progress to stderr."""
    print(line, file=sys.stderr, flush=True)


def main(words: Sequence[str] | None = None) -> None:
    """Run the study, and with --report write the report."""
    args = parse_arguments(words)
    torch.set_num_threads(args.threads)
    study = study_of(args)
    study.folder.mkdir(parents=True, exist_ok=True)
    check_settings(study)
    run(study, args)
    if args.report:
        rows = read_rows(sorted(study.folder.glob("rows-*.jsonl")))
        report.write(args.report, rows, study.folder, args.reasons, draft=args.draft)
        if args.report == DOCUMENT:
            store_rows(ROWS, rows)
        print(args.report)


if __name__ == "__main__":
    try:
        main()
    except PavdmError as error:
        sys.exit(f"{error}; {error.hint}")
