"""Noise levels over time: properties of every schedule, tested against the definition."""

import re
import subprocess
import sys
from dataclasses import replace
from itertools import product

import pytest
from support.exact import one_clip
from support.wan import golden
from support.wan import index as recorded

from pavdm_cli.errors import UsageError
from pavdm_cli.sampling.schedule import METHODS, Schedule, fifo, pa, rn, rw

SCHEDULES = [
    pa(30, 30, 5),
    pa(6, 6, 2),
    pa(12, 6, 2),
    pa(6, 6, 1, context=False),
    pa(3, 12, 2),
    pa(1, 4, 2),
    rn(6, 8, 2),
    rw(6, 8, 2),
    fifo(8, 4, 2),
    one_clip(6, 5),
    Schedule(steps=7, stride=3, chunk=2, context=2),  # a stride that does not divide the steps, as SkyReels' may not
]
every_schedule = pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: f"{s.steps}-{s.stride}-{s.chunk}")


def visits(schedule: Schedule, chunks: int, first: int = 0) -> dict[int, list[int]]:
    """The levels each chunk is shown at, in order, over a whole video."""
    seen: dict[int, list[int]] = {index: [] for index in range(first, chunks)}
    for now in range(schedule.total_steps(chunks)):
        for index in schedule.active_chunks(now, first, chunks):
            seen[index].append(schedule.level(index, now))
    return seen


@every_schedule
def test_every_chunk_that_enters_as_noise_visits_every_level_once(schedule: Schedule) -> None:
    down = list(range(schedule.steps, 0, -1))
    assert all(levels == down for levels in visits(schedule, chunks=9).values())


@every_schedule
def test_noised_chunks_start_where_a_full_window_has_them(schedule: Schedule) -> None:
    first = 1 - schedule.capacity
    seen = visits(schedule, chunks=4, first=first)
    for index in range(first, 0):
        assert seen[index] == list(range(schedule.steps + index * schedule.stride, 0, -1))
    steady = schedule.capacity * schedule.stride
    assert schedule.levels(schedule.active_chunks(0, first), 0) == schedule.levels(
        schedule.active_chunks(steady), steady
    )


@every_schedule
def test_the_window_holds_exactly_the_chunks_that_are_neither_new_nor_done(schedule: Schedule) -> None:
    for now, first, chunks in product(range(60), (-2, 0), (0, 1, 3, 9)):
        alive = [i for i in range(first, chunks) if 0 <= now - i * schedule.stride < schedule.steps]
        assert list(schedule.active_chunks(now, first, chunks)) == alive


@every_schedule
def test_the_window_grows_stays_full_and_drains(schedule: Schedule) -> None:
    lengths = [len(schedule.active_chunks(now, 0, 9)) for now in range(schedule.total_steps(9) + 1)]
    peak = lengths.index(max(lengths))
    assert max(lengths) == min(schedule.capacity, 9)
    assert lengths[0] == 1
    assert lengths[:peak] == sorted(lengths[:peak])
    assert lengths[-2:] == [1, 0]


@every_schedule
def test_the_steady_state_has_only_stride_different_level_tuples(schedule: Schedule) -> None:
    steady = range(schedule.steps, schedule.steps + 5 * schedule.stride)
    tuples = {schedule.levels(schedule.active_chunks(now), now) for now in steady}
    assert len(tuples) == schedule.stride
    assert all(len(levels) <= schedule.window for levels in tuples)


def test_a_minute_at_the_paper_setting_takes_445_calls() -> None:
    schedule = pa(30, 30, 5)
    assert (schedule.stride, schedule.capacity, schedule.window, schedule.context) == (5, 6, 30, 5)
    assert schedule.total_steps(84) == 445
    assert schedule.total_steps(0) == 0


def test_with_as_many_steps_as_latents_the_levels_are_those_of_algorithm_1() -> None:
    schedule = pa(6, 6, 1)
    assert schedule.levels(schedule.active_chunks(0, first=-5), 0) == (1, 2, 3, 4, 5, 6)
    assert schedule.levels(schedule.active_chunks(1, first=-5), 1) == (1, 2, 3, 4, 5, 6)


def test_fewer_steps_than_chunks_widen_the_chunk_and_say_so() -> None:
    schedule = pa(30, 90, 1)
    assert (schedule.chunk, schedule.stride, schedule.capacity, schedule.context) == (3, 1, 30, 1)
    assert schedule.note == "chunk enlarged from 1 to 3 latents: 30 steps allow a window of 90 only 30 levels"
    assert pa(1, 4, 1).note.endswith(": 1 step allows a window of 4 only 1 level")
    assert not pa(30, 30, 1).note


def test_more_steps_than_chunks_shift_every_few_steps() -> None:
    assert pa(30, 10, 1).stride == 3


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_called_alike_and_can_go_without_overlap(name: str) -> None:
    assert METHODS[name](6, 6, 2, context=False).context == 0
    assert METHODS[name](6, 6, 2, context=True).context == 2


def test_all_values_that_fit_work_and_all_others_name_the_nearest_that_do() -> None:
    for steps, window, chunk in product(range(1, 14), range(1, 14), range(1, 6)):
        num_chunks, rest = divmod(window, chunk)
        if rest:
            with pytest.raises(
                UsageError, match=f"^window must be a multiple of chunk {chunk}, got {window}$"
            ) as error:
                pa(steps, window, chunk)
        elif steps % num_chunks and num_chunks % steps:
            with pytest.raises(UsageError, match=f"got {steps}$") as error:
                pa(steps, window, chunk)
        else:
            assert pa(steps, window, chunk).window == window
            continue
        for option, values in re.findall(r"--(\w+) ([\d, ]+)", error.value.hint):
            for near in map(int, values.split(", ")):
                pa(**{"steps": steps, "window": window, "chunk": chunk, option: near})


def test_the_nearest_values_are_named() -> None:
    with pytest.raises(UsageError, match=r"got 32$") as error:
        pa(30, 32, 5)
    assert error.value.hint == "try --window 30, 50"
    with pytest.raises(UsageError, match=r"the window \(6\) .*got 31$") as error:
        pa(31, 30, 5)
    assert error.value.hint == "try one of --steps 30, 36; --chunk 30"


def test_a_larger_chunk_of_the_same_groups_is_among_what_would_fit() -> None:
    with pytest.raises(UsageError, match=r"the window \(12\)") as error:
        pa(30, 60, 5)
    assert error.value.hint == "try one of --steps 24, 36; --window 50, 75; --chunk 4, 6, 10"


@pytest.mark.parametrize("values", [(30, 60, 10**12), (10**12, 60, 5), (30, 10**12, 5)])
def test_huge_values_are_rejected_at_once(values: tuple[int, int, int]) -> None:
    with pytest.raises(UsageError, match="must be at most 10000"):
        pa(*values)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("value", ["steps", "window", "chunk"])
def test_values_below_one_are_rejected(name: str, value: str) -> None:
    with pytest.raises(UsageError, match=f"^{value} must be at least 1, got 0$"):
        METHODS[name](**{"steps": 6, "window": 6, "chunk": 2, value: 0})


@pytest.mark.parametrize(
    ("values", "message", "hint"),
    [
        ((30, 5, 5), "larger than the context of 5 latents, got 5", "try --window 10"),
        ((30, 7, 5, 1, 3), "a multiple of --chunk 5 with --stride, got 7", "try --window 10"),
        ((30, 10, 5, 2), "larger than the context of 10 latents, got 10", "try --window 15"),
    ],
)
def test_a_window_holds_its_context_and_with_a_stride_whole_chunks(values, message: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"^--window must be {message}$") as error:
        METHODS["windows"](*values)
    assert error.value.hint == hint
    assert METHODS["windows"](30, 7, 5, 1).window == 2


def test_a_schedule_needs_no_torch() -> None:
    code = "import sys, pavdm_cli.sampling.schedule; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


FULL = [
    replace(pa(30, 25, 5), full_window=True),
    Schedule(steps=7, stride=3, chunk=2, context=3, full_window=True),
    Schedule(steps=30, stride=30, chunk=8, context=5, restart=1, full_window=True),
    Schedule(steps=30, stride=5, chunk=5, context=5, restart=4, full_window=True),
]


@pytest.mark.parametrize("schedule", FULL, ids=lambda s: f"{s.steps}-{s.stride}-{s.restart}")
def test_a_full_window_shows_as_many_latents_from_the_first_step_to_the_last(schedule: Schedule) -> None:
    chunks = 3 * schedule.capacity
    for now in range(schedule.total_steps(chunks)):
        noisy, clean = schedule.size(schedule.active_chunks(now, 0, chunks), 0, 100)
        assert noisy + clean == schedule.capacity * schedule.chunk + schedule.context
    assert not schedule.active_chunks(schedule.total_steps(chunks), 0, chunks)


@pytest.mark.parametrize("schedule", FULL, ids=lambda s: f"{s.steps}-{s.stride}-{s.restart}")
def test_in_a_full_window_every_chunk_waits_as_noise_and_then_visits_every_level(schedule: Schedule) -> None:
    for levels in visits(schedule, chunks=2 * schedule.capacity).values():
        waiting = levels.count(schedule.steps + 1)
        assert levels == [schedule.steps + 1] * waiting + list(range(schedule.steps, 0, -1))


def is_diagonal(case: dict[str, int]) -> bool:
    """Whether a recorded case has staggered chunks, and a rolling window is exactly as long as they are staggered."""
    rolling = case["F"] > case["base"]
    window = (case["base"] - case["ready"]) // case["blk"]
    return 0 < case["ar"] <= case["S"] and (not rolling or window * case["ar"] == case["S"])


MATRICES = [case for case in recorded()["timestep_matrix"]["cases"] if "rows" in case and is_diagonal(case)]


def test_the_recorded_matrices_hold_rolling_and_single_windows() -> None:
    assert sum(case["F"] > case["base"] for case in MATRICES) >= 6
    assert sum(case["F"] <= case["base"] for case in MATRICES) >= 3


@pytest.mark.parametrize("case", MATRICES, ids=lambda case: case["case"])
def test_levels_are_those_of_the_recorded_matrices(case: dict[str, int]) -> None:
    steps, block = case["S"], case["blk"]
    context, chunks = case["ready"] // block, case["F"] // block
    restart = 0 if case["F"] > case["base"] else chunks - context
    schedule = Schedule(steps, case["ar"], block, context * block, full_window=True, restart=restart)
    matrix = golden("timestep_matrix")[f"{case['case']}.index"]
    for now, row in enumerate(matrix[:, context * block :: block].tolist()):
        levels = {chunk: schedule.level(chunk, now) for chunk in schedule.active_chunks(now, 0, chunks - context)}
        assert {chunk: steps + 1 - row[chunk] for chunk in levels} == levels
    assert len(matrix) == schedule.total_steps(chunks - context)
