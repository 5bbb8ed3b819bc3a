"""`pavdm evaluate` on real files: its output, stored measurements, plots, exports and errors."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.command import pavdm
from support.corruptions import CORRUPTIONS, clean

from pavdm_cli.errors import InputError
from pavdm_cli.evaluation.files import find_videos, pair, stored_chunk_frames
from pavdm_cli.video import VideoWriter, open_video


def write(path: Path, video: np.ndarray, **metadata: object) -> Path:
    with VideoWriter(path, video.shape[2], video.shape[1], 8, metadata or None) as writer:
        writer.write(video)
        return writer.finish()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two sets of three short videos: clean, and flickering."""
    root = tmp_path_factory.mktemp("sets")
    for name, change in (("a", lambda video: video), ("b", CORRUPTIONS["flicker"])):
        (root / name).mkdir()
        for seed in range(3):
            video = change(clean(seed, count=24))
            write(root / name / f"{seed}.mp4", video, prompt="a disc", seed=seed, model="pocket", method="pa", chunk=2)
    return root


def lines(out: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in out.splitlines()]


def test_every_metric_of_every_video_is_a_line_of_json(folder: Path) -> None:
    code, out, _ = pavdm("evaluate", str(folder / "a"), "--json")
    results = lines(out)
    assert (code, len(results)) == (0, 3)
    assert [result["frames"] for result in results] == [24, 24, 24]
    assert results[0]["chunk_frames"] == 4  # two latents of two frames each
    assert {"boundary_ratio", "dynamics", "drift_noise", "scenes"} <= results[0]["metrics"].keys()
    assert len(results[0]["clips"]["brightness"]) == 1


def test_a_table_has_videos_side_by_side_or_below_each_other(folder: Path) -> None:
    _, few, _ = pavdm("evaluate", str(folder / "a" / "0.mp4"), str(folder / "b" / "0.mp4"))
    assert few.splitlines()[0].split() == ["metric", "0.mp4", "0.mp4"]
    _, many, _ = pavdm("evaluate", str(folder / "a"), str(folder / "b"))
    assert [line.split()[0] for line in many.splitlines()] == ["video", *(f"{seed}.mp4" for seed in (0, 1, 2, 0, 1, 2))]
    assert "dynamics" in many.splitlines()[0]


def test_missing_z_scores_and_slopes_are_explained(folder: Path) -> None:
    video, reference = str(folder / "b" / "0.mp4"), str(folder / "a")
    slopes, scores = "note: no slopes for videos shorter than 6 s", "note: no z-scores: they need at least 3 videos"
    few = pavdm("evaluate", video, "--reference", f"{reference}/0.mp4", "--reference", f"{reference}/1.mp4").err
    assert slopes in few
    assert f"{scores} of --reference, got 2" in few
    assert scores not in pavdm("evaluate", video, "--reference", reference).err
    assert scores not in pavdm("evaluate", video).err


def test_references_give_z_scores(folder: Path) -> None:
    _, out, _ = pavdm("evaluate", str(folder / "b" / "0.mp4"), "--reference", str(folder / "a"), "--json")
    assert lines(out)[0]["z_scores"]["flicker"] > 3


def test_stored_measurements_are_reused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video, rows = write(tmp_path / "v.mp4", clean(count=24)), tmp_path / "rows.jsonl"
    first = pavdm("evaluate", str(video), "--output", str(rows), "--json")
    with rows.open("a") as file:
        file.write('{"schema": "pavdm.evaluate/1", "ke')  # a truncated row
    monkeypatch.setattr("pavdm_cli.evaluation.files.measure", lambda *args, **options: pytest.fail("measured again"))
    assert pavdm("evaluate", str(video), "--output", str(rows), "--json")[:2] == first[:2]
    with pytest.raises(pytest.fail.Exception):
        pavdm("evaluate", str(video), "--output", str(rows), "--chunk-frames", "8")


@pytest.mark.parametrize("damage", [{"metrics": {"shake": "much"}}, {"metrics": None}, {"clips": [1]}, {"frames": -1}])
def test_a_damaged_row_is_measured_again(tmp_path: Path, damage: dict[str, object]) -> None:
    video, rows = write(tmp_path / "v.mp4", clean(count=6)), tmp_path / "rows.jsonl"
    first = pavdm("evaluate", str(video), "--output", str(rows), "--json").out
    row = json.loads(rows.read_text())
    rows.write_text(json.dumps(row | {"measurement": row["measurement"] | damage}) + "\n")
    assert pavdm("evaluate", str(video), "--output", str(rows), "--json").out == first
    assert len(rows.read_text().splitlines()) == 2


def test_sets_are_paired_by_prompt_and_seed(folder: Path) -> None:
    code, out, _ = pavdm("evaluate", "compare", str(folder / "a"), str(folder / "b"), "--json")
    result = json.loads(out)
    flicker = next(metric for metric in result["metrics"] if metric["metric"] == "flicker")
    assert (code, result["pairs"]) == (0, 3)
    assert flicker["low"] > 0
    assert flicker["mean_a"] < flicker["mean_b"]
    assert flicker["result"] == "tie"  # three pairs are too few


def test_videos_that_do_not_pair_are_rejected(folder: Path, tmp_path: Path) -> None:
    other = [write(tmp_path / name, clean(count=3)) for name in ("x.mp4", "y.mp4")]
    with pytest.raises(InputError, match="0 of 3 and 2 videos can be paired"):
        pair(find_videos([folder / "a"]), other)
    with pytest.raises(InputError, match="same prompt and seed"):
        pair(find_videos([folder / "a", folder / "a"]), other)


@pytest.mark.parametrize("suffix", [".png", ".svg", ".html"])
def test_a_plot_is_drawn(folder: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"plot{suffix}"
    code, out, _ = pavdm("evaluate", str(folder / "a"), "--plot", str(path))
    assert (code, out.splitlines()[-1]) == (0, str(path))
    if suffix == ".png":
        image = np.asarray(Image.open(path).convert("L"))
        assert image.shape[1] > 1000
        assert image.std() > 10
    else:
        assert "<svg" in path.read_text()


def test_a_name_in_a_page_is_escaped(tmp_path: Path) -> None:
    video = write(tmp_path / "<script>alert(1)<script>.mp4", clean(count=3))
    assert pavdm("evaluate", str(video), "--plot", str(tmp_path / "p.html"))[0] == 0
    assert "<script" not in (tmp_path / "p.html").read_text()


def test_an_export_has_whole_videos_and_clips_of_two_seconds(tmp_path: Path) -> None:
    write(tmp_path / "one.mp4", clean(count=40))
    write(tmp_path / "two.mkv", clean(count=9))
    target = tmp_path / "vbench"
    code, out, err = pavdm("evaluate", str(tmp_path), "--export", "vbench-long", str(target))
    assert (code, out.strip()) == (0, str(target))
    assert "--mode long_custom_input" in err
    assert (target / "one.mp4").read_bytes() == (tmp_path / "one.mp4").read_bytes()
    assert open_video(target / "two.mp4").frames == 9
    counts = {path.name: open_video(path).frames for path in (target / "split_clip").rglob("*.mp4")}
    assert counts == {"one_000.mp4": 16, "one_001.mp4": 24, "two_000.mp4": 9}
    assert pavdm("evaluate", str(tmp_path / "one.mp4"), "--export", "vbench-long", str(target))[0] == 4


def test_chunk_boundaries_are_known_only_for_generated_videos(tmp_path: Path) -> None:
    def frames(**metadata: object) -> tuple[int, int] | None:
        return stored_chunk_frames(write(tmp_path / f"{len(list(tmp_path.iterdir()))}.mp4", clean(count=2), **metadata))

    generated = {"prompt": "p", "seed": 1, "model": "pocket", "method": "pa", "chunk": 2, "window": 12}
    small, large = {"size": "96x64", "fps": 8}, {"size": "192x128", "fps": 16}
    assert frames(**generated, **small) == (4, 4)
    assert frames(**generated | {"method": "rw"}, **small) == (24, 24)
    assert frames(**generated, **large) == (7, 8)
    assert frames(**generated, **large, warmup=4) == (8, 8)
    assert frames(**generated | {"model": "wan2.1-t2v-1.3b", "chunk": 3}) == (9, 12)
    assert (
        frames(**generated, source="v.mp4") is frames(**generated | {"model": "unknown"}) is frames(prompt="p") is None
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("none.mp4",), 3, "none.mp4 does not exist"),
        (("VIDEO", "--plot", "plot.txt"), 2, "--plot must end in .png, .svg, .html"),
        (("VIDEO", "--plot", "no/such/plot.png"), 4, "cannot write"),
        (("VIDEO", "--export", "vbench", "x"), 2, "--export must be vbench-long"),
        (("EMPTY",), 3, "no video in"),
        (("VIDEO", "--output", "VIDEO"), 3, "cannot read"),
        (("VIDEO", "--chunk-frames", "1"), 2, "greater than or equal to 2"),
        (("compare", "FOLDER"), 2, "Missing argument 'B'"),
    ],
)
def test_mistakes_get_one_line(folder: Path, tmp_path: Path, words: tuple[str, ...], code: int, message: str) -> None:
    paths = {"VIDEO": folder / "a" / "0.mp4", "EMPTY": tmp_path, "FOLDER": folder}
    exit_code, _, err = pavdm("evaluate", *(str(paths.get(word, word)) for word in words))
    assert (exit_code, message in err) == (code, True), err
    assert "Traceback" not in err


def test_missing_packages_are_named_with_a_hint(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    code, _, err = pavdm("evaluate", str(folder / "a"))
    assert code == 1
    assert "evaluate needs scenedetect-headless, opencv-python-headless, matplotlib" in err
    assert 'pip install "scenedetect-headless>=' in err


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere does not exist"):
        find_videos([tmp_path / "nowhere"])


@pytest.mark.parametrize("name", ["videos", "compare"])
def test_a_folder_may_have_the_name_of_a_command(name: str, folder: Path, tmp_path: Path) -> None:
    (tmp_path / name).symlink_to(folder / "a", target_is_directory=True)
    code, out, err = pavdm("evaluate", name, folder=tmp_path)
    assert code == 0, err
    assert "dynamics" in out


def test_a_folder_called_videos_is_one_of_several(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").symlink_to(folder / "a", target_is_directory=True)
    assert len(lines(pavdm("evaluate", "videos", str(folder / "b"), "--json", folder=tmp_path).out)) == 6


def test_the_help_shows_the_plain_form() -> None:
    out = " ".join(pavdm("evaluate", "--help").out.split())
    assert "Usage: pavdm evaluate [OPTIONS] {VIDEOS}..." in out
    assert "`pavdm evaluate boat.mp4`" in out
    assert "`pavdm evaluate compare A/ B/`" in out
    assert "--reference" in out
    assert pavdm("evaluate", "--bogus").err.endswith("hint: `pavdm evaluate --help` lists the options\n")
