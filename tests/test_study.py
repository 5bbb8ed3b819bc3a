"""The study of the paper's claims: verdicts on known rows, documented arms, and interrupted runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from support.command import pavdm

from pavdm_cli.evaluation.distances import DIMENSIONS
from pavdm_cli.evaluation.probe import ATTRIBUTES
from pavdm_cli.evaluation.prompt_spans import scene_of
from pavdm_cli.evaluation.videos import scene_prompt
from pavdm_cli.generation import pipeline
from pavdm_cli.generation.request import Request
from pavdm_cli.models.pocket.frame_format import CODED_FPS, CODED_SIZE
from pavdm_cli.models.registry import find
from pavdm_cli.pocket_world.world import sample_scene
from pavdm_cli.training.pocket import tasks
from pavdm_cli.training.pocket.preview import preview
from pavdm_cli.video import open_video, read_metadata

ROOT = Path(__file__).parents[1]
WEIGHTS = find("pocket").spec.folder / "denoiser.safetensors"


@pytest.fixture(scope="module")
def paper() -> Iterator[SimpleNamespace]:
    """The modules of the study, which are next to the script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        modules = ("arms", "claims", "figures", "report", "runs", "statistics")
        loaded: dict[str, ModuleType] = {name: import_module(f"paper.{name}") for name in modules}
        yield SimpleNamespace(study=import_module("study"), **loaded)
        for name in [name for name in sys.modules if name.partition(".")[0] in ("paper", "study")]:
            del sys.modules[name]


def rows_of(values: np.ndarray, metric: str, features: np.ndarray | None = None) -> dict[int, dict[str, Any]]:
    """Rows by seed, with one metric, or with features (seeds, clips, D)."""
    clips = np.zeros((len(values), 0, DIMENSIONS)) if features is None else features
    measurements = [
        {"metrics": {metric: value}, "features": rows.tolist(), "frames": 8, "fps": 8.0}
        for value, rows in zip(values, clips, strict=True)
    ]
    return {seed: {"measurement": measurement, "seed": seed} for seed, measurement in enumerate(measurements)}


@pytest.mark.parametrize(
    ("offset", "result"), [(0.5, "holds"), (-0.5, "does not hold"), (0.0, "tie")], ids=lambda value: str(value)
)
def test_a_claim_holds_if_paired_differences_are_significant(paper: Any, offset: float, result: str) -> None:
    noise = np.random.default_rng(0).normal(0, 0.2, (2, 16))
    scenes = np.random.default_rng(1).normal(0, 5, 16)  # cancel out in pairs
    arms = {"pa": rows_of(scenes + noise[0], "shake"), "rw": rows_of(scenes + offset + noise[1], "shake")}
    statistics = paper.statistics
    column = statistics.Column("shake", "shake", "")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(statistics.BY_METRIC, "shake", column)
        (verdict,) = statistics.verdicts([statistics.Claim("pa", "rw", "shake", "")], arms, {})
    assert (verdict.pairs, verdict.result) == (16, result)
    assert verdict.difference.low < verdict.difference.value < verdict.difference.high


def test_higher_is_better_for_some_metrics_and_drift_counts_by_absolute_value(paper: Any) -> None:
    values = np.linspace(1, 2, 16)
    claims = [paper.statistics.Claim("pa", "rw", metric, "") for metric in ("one_object", "drift_sharpness")]
    for claim, sign, result in ((claims[0], -1, "does not hold"), (claims[1], -1, "holds")):
        arms = {"pa": rows_of(values - 0.9, claim.metric), "rw": rows_of(sign * values * sign, claim.metric)}
        assert paper.statistics.verdicts([claim], arms, {})[0].result == result
    arms = {"pa": rows_of(-values, "drift_sharpness"), "rw": rows_of(values, "drift_sharpness")}
    assert paper.statistics.verdicts(claims[1:], arms, {})[0].result == "tie"


def test_boundary_deviations_count_in_both_directions(paper: Any) -> None:
    values = [
        paper.statistics.value_of(row, "boundary_deviation") for row in rows_of([2.0, 0.5], "boundary_ratio").values()
    ]
    assert values == pytest.approx([np.log(2)] * 2)
    assert paper.statistics.value_of(rows_of([None], "boundary_ratio")[0], "boundary_deviation") is None


def test_many_claims_are_corrected_and_few_pairs_tie(paper: Any) -> None:
    claim = paper.statistics.Claim("pa", "rw", "scenes", "")
    arms = {"pa": rows_of(np.ones(8), "scenes"), "rw": rows_of(2 * np.ones(8), "scenes")}
    assert paper.statistics.verdicts([claim], arms, {})[0].result == "holds"
    assert {verdict.result for verdict in paper.statistics.verdicts([claim] * 10, arms, {})} == {"tie"}
    assert paper.statistics.verdicts([claim], {"pa": arms["pa"]}, {})[0].result == "no data"


def test_distances_are_compared_by_leaving_out_prompts(paper: Any) -> None:
    rng = np.random.default_rng(0)
    scenes = rng.normal(0, 2, (12, 1, DIMENSIONS))
    near, far, real = (scenes + rng.normal(mean, 1, (12, 20, DIMENSIONS)) for mean in (0.0, 0.6, 0.0))
    arms = {name: rows_of(np.zeros(12), "x", features) for name, features in (("pa", near), ("rw", far))}
    claims = [paper.statistics.Claim(a, b, "frechet_probe", "") for a, b in (("pa", "rw"), ("rw", "pa"))]
    results = paper.statistics.verdicts(claims, arms, rows_of(np.zeros(12), "x", real))
    assert [verdict.result for verdict in results] == ["holds", "does not hold"]
    real_rows = rows_of(np.zeros(12), "x", real)
    near_value, far_value = (paper.statistics.estimate(arms[name], real_rows, "frechet_probe").value for name in arms)
    assert near_value < far_value


def test_every_claim_has_known_arms_and_metrics(paper: Any) -> None:
    for claim in paper.claims.CLAIMS:
        assert {claim.better, claim.worse} <= paper.arms.BY_NAME.keys()
        assert claim.metric in paper.statistics.BY_METRIC
    assert len(set(paper.claims.CLAIMS)) == len(paper.claims.CLAIMS)


def request_of(paper: Any, arm: Any, seconds: float) -> Request:
    options = paper.arms.pocket_options(arm)
    return paper.arms.request_of(arm, "a red ball", seconds, model="pocket", seed=1, threads=1, options=options)


def test_arms_are_sampled_as_they_are_described(paper: Any) -> None:
    expected = {
        "pa-base": ("pa", 12, 12, 2, 1),
        "rn-base": ("rn", 12, 12, 2, 1),
        "fifo": ("fifo", 24, 12, 2, 1),
        "rw": ("rw", 12, 12, 2, 1),
        "no-context": ("pa", 12, 12, 2, 0),
        "chunk-1": ("pa", 12, 12, 1, 0),
        "half-steps": ("pa", 6, 12, 2, 1),
        "double-steps": ("pa", 24, 12, 2, 1),
        "half-window": ("pa", 12, 6, 2, 1),
    }
    for arm in paper.arms.ARMS:
        settings = paper.arms.config_of(request_of(paper, arm, 4.0))
        assert settings.warmup == (4 if arm.name == "shipped" else 0)
        if arm.name in expected:
            values = (settings.method, settings.steps, settings.window, settings.chunk, settings.context)
            assert values == expected[arm.name], arm.name
    assert paper.arms.BY_NAME["chained"].options["reencode"]


def test_weights_without_distilled_guidance_are_guided_in_two_passes(paper: Any) -> None:
    request = request_of(paper, paper.arms.BY_NAME["pa-base"], 1.0)
    assert paper.arms.config_of(request, 1.0).guidance_scale == 1.5
    shipped = request_of(paper, paper.arms.BY_NAME["shipped"], 1.0)
    assert paper.arms.config_of(shipped, paper.runs.distilled_guidance(WEIGHTS)).guidance_scale == 1.0


def test_every_video_of_pocket_has_the_coded_size_and_rate(paper: Any) -> None:
    for arm in paper.arms.ARMS:
        spec = paper.arms.config_of(request_of(paper, arm, 1.0)).spec
        assert (spec.size, spec.fps) == (CODED_SIZE, CODED_FPS)


def test_a_fixed_length_video_begins_with_a_clip_of_one_window(paper: Any) -> None:
    arm = paper.arms.BY_NAME["fixed-length"]
    request = request_of(paper, arm, 4.0)
    config = paper.arms.config_of(request)
    model = pipeline.open_model(config)
    parts = list(paper.arms.frames_of(arm, request, config, model))
    video = np.concatenate(parts)
    assert (len(video), len(parts[0])) == (32, 24)
    jump = np.abs(np.diff(video.astype(float), axis=0)).mean(axis=(1, 2, 3))
    assert jump[23] < 2 * np.delete(jump, 23).max()  # the clip continues: a cut is forty times as large
    short = replace(request, seconds=2.0)
    frames = paper.arms.frames_of(arm, short, paper.arms.config_of(short), model)
    assert len(np.concatenate(list(frames))) == 16


def words(folder: Path, *more: object) -> list[str]:
    options = ("--base", WEIGHTS, "--finetuned-pa", WEIGHTS, "--finetuned-rw", WEIGHTS, "--prompts", 2, "--seconds", 1)
    return [str(word) for word in (folder, *options, *more)]


def test_a_study_continues_and_reports(paper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, document = tmp_path / "study", tmp_path / "docs" / "results.md"
    document.parent.mkdir()
    document.write_text("# Results\n\nBefore.\n\n<!-- study -->\nold\n<!-- end of study -->\n\nAfter.\n")
    paper.study.main(words(folder, "--arms", "pa-base", "real", "--shard", "1/2"))
    rows = folder / "rows-1-of-2.jsonl"
    before = rows.read_text()
    assert [(row["arm"], row["seed"]) for row in map(json.loads, before.splitlines())] == [("real", 0), ("pa-base", 0)]
    rows.write_text(before[: before.index("\n") + 50])  # a row truncated after its video was written
    videos = {path: path.stat().st_mtime_ns for path in folder.rglob("*.mp4")}
    reasons = tmp_path / "reasons.json"
    reasons.write_text(json.dumps({"pa-base > rn-base: scenes": "because"}))
    report = ("--report", document, "--draft", "--reasons", reasons)
    paper.study.main(words(folder, "--arms", "pa-base", "real", "--shard", "1/2", *report))
    assert {path: path.stat().st_mtime_ns for path in videos} == videos
    after, first = (
        [json.loads(line)["measurement"] for line in rows_text.splitlines()] for rows_text in (rows.read_text(), before)
    )
    assert after == first
    text = document.read_text()
    assert text.startswith("# Results\n\nBefore.")
    assert text.endswith("After.\n")
    assert "\nold\n" not in text
    assert "| because |" in text
    assert (document.parent / "images" / "results" / "sheet-pa-base.jpg").stat().st_size > 1000


def test_prompts_of_the_study_describe_whole_scenes(paper: Any) -> None:
    assert any(not scene_of(scene_prompt(seed)) for seed in range(24))  # plain captions may omit the motion
    for seed in range(24):
        scene, prompt_scene = sample_scene(seed), scene_of(paper.runs.study_prompt(seed))
        assert prompt_scene is not None
        assert all(getattr(prompt_scene, name) == getattr(scene, name) for name in ATTRIBUTES)


def test_adherence_over_time_leaves_out_words_that_some_clips_cannot_show(paper: Any) -> None:
    clips = {"adherence_object": [1.0, 0.0, 1.0], "adherence_color": [1.0, 1.0, 0.0], "adherence_camera": [1.0]}
    row = {"measurement": {"clips": clips | {"sharpness": [0.5]}}}
    assert paper.figures.series_of(row, "adherence") == [1.0, 0.5, 0.5]
    assert paper.figures.series_of(row, "sharpness") == [0.5]
    assert paper.figures.series_of({"measurement": {"clips": {}}}, "adherence") == []


def test_weights_may_be_added_to_a_study_but_not_replaced(paper: Any, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(WEIGHTS.read_bytes() + b" ")
    weights = {"base": WEIGHTS, "pa": None, "rw": None}
    study = paper.runs.Study(tmp_path, "pocket", 1.0, ("a red ball",), 0, weights, paper.runs.Budget(1, 1, 0.1, 1))
    paper.runs.check_settings(study)
    paper.runs.check_settings(replace(study, weights=weights | {"rw": WEIGHTS}))
    paper.runs.check_settings(replace(study, weights=weights | {"rw": WEIGHTS}))
    for changed in ({"rw": other}, {"rw": None}, {"base": other, "rw": WEIGHTS}):
        with pytest.raises(SystemExit, match="other weights"):
            paper.runs.check_settings(replace(study, weights=weights | changed))


def test_other_settings_need_another_folder(paper: Any, tmp_path: Path) -> None:
    paper.study.main(words(tmp_path, "--arms", "real", "--shard", "2/2"))
    with pytest.raises(SystemExit, match="other seconds"):
        paper.study.main(words(tmp_path, "--seconds", 2))
    with pytest.raises(SystemExit, match=r"missing\.safetensors does not exist"):
        paper.study.main([str(tmp_path), "--base", "missing.safetensors"])
    with pytest.raises(SystemExit, match="must be I/N"):
        paper.study.main(words(tmp_path, "--shard", "3/2"))


def test_a_report_needs_rows_of_one_clean_commit(paper: Any) -> None:
    paper.report.check_rows([{"commit": "abc"}, {"commit": "abc"}], draft=False)
    for commits in (["abc", "def"], ["abc+"], [None]):
        rows = [{"commit": commit} for commit in commits]
        with pytest.raises(SystemExit, match="one clean commit"):
            paper.report.check_rows(rows, draft=False)
        paper.report.check_rows(rows, draft=True)


@pytest.mark.long
def test_a_study_from_a_base_checkpoint_trains_generates_and_reports(
    paper: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], check: bool) -> None:
        assert (command[:3], check) == ([sys.executable, "-m", "pavdm_cli"], True)
        assert pavdm(*command[3:]).code == 0

    monkeypatch.setattr(tasks, "preview", partial(preview, chunks=1))  # most of the time of a short training
    monkeypatch.setattr(paper.runs, "subprocess", SimpleNamespace(run=run))
    base = tmp_path / "base"
    train = ("train", "denoiser", "--method", "base", "--output-dir", base)
    assert pavdm(*train, "--steps", 2, "--batch-size", 2, "--clips", 4, "--threads", 1).code == 0
    budget = ("--finetune-steps", 2, "--finetune-batch", 2, "--finetune-clips", 4)
    folder, document = tmp_path / "study", tmp_path / "results.md"
    start = base / "denoiser.safetensors"
    begin = [str(word) for word in (folder, "--base", start, "--prompts", 1, "--seconds", 2, *budget)]
    with pytest.raises(SystemExit, match="fine-tuned by pa: first run"):
        paper.study.main([*begin, "--shard", "1/2"])
    paper.study.main([*begin, "--report", str(document), "--draft"])
    rows = paper.runs.read_rows([folder / "rows-1-of-1.jsonl"])
    assert {row["arm"] for row in rows} == {*paper.arms.BY_NAME, "real"}
    assert len(rows) == len(paper.arms.ARMS) + 1
    weights = {row["arm"]: row["weights"] for row in rows}
    assert len({weights[name] for name in ("pa-base", "pa", "rw", "shipped")}) == 4
    assert weights["rn-base"] == weights["pa-base"]
    metadata = read_metadata(folder / "videos" / "pa" / "0.mp4")
    assert metadata["guidance"] == 1.5
    assert open_video(folder / "videos" / "chunk-1" / "0.mp4").frames == 16
    assert "| pa-base |" in document.read_text()


def test_stored_rows_are_read_back(paper: Any, tmp_path: Path) -> None:
    rows = [{"arm": "pa", "seed": seed, "measurement": {"metrics": {"scenes": 1.0}}} for seed in range(3)]
    paper.runs.store_rows(tmp_path / "study.jsonl.xz", rows)
    assert paper.runs.read_rows([tmp_path / "study.jsonl.xz"]) == rows


@pytest.mark.integration
def test_the_document_is_of_the_stored_rows(paper: Any) -> None:
    rows = paper.runs.read_rows([paper.study.ROWS])
    reasons = json.loads(paper.study.REASONS.read_text())
    figures = sorted(path.name for path in (paper.study.DOCUMENT.parent / "images" / "results").iterdir())
    section = "\n".join(paper.report.section_lines(rows, paper.report.arms_of(rows), reasons, figures))
    assert section in paper.study.DOCUMENT.read_text()
    paper.report.check_rows(rows, draft=False)
    assert reasons.keys() == {f"{claim.better} > {claim.worse}: {claim.metric}" for claim in paper.claims.CLAIMS}
