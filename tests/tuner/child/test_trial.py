"""What a trial process does and in which order, seen through its events."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.experimental.compilation_cache import compilation_cache

from tests.tuner.trials import (
    BATCH,
    PATIENCE_S,
    TINY,
    names,
    request,
    run,
    wait_for_event,
    workload,
)
from tuner.child.compiles import CompileCounter
from tuner.child.cost import count
from tuner.child.evaluation import evaluate_policies
from tuner.child.program import build, compile_training
from tuner.child.trial import TIMED_BLOCK_S, TIMED_S, block_lengths
from tuner.isolation import Child, TrialRun
from tuner.outcome import Completed
from tuner.protocol import STOP, Event

Train = Callable[..., TrialRun]


@pytest.fixture(scope="module")
def train(cache_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    def train(**changes: Any) -> TrialRun:
        asked = replace(request(cache_dir), **changes)
        return run(asked, tmp_path_factory.mktemp("log") / "trial.log")

    return train


@pytest.fixture(scope="module")
def trained(train: Train) -> TrialRun:
    ended = train()
    assert ended.outcome == Completed()
    return ended


@pytest.fixture
def compiled_before(cache_dir: Path) -> Iterator[None]:
    """Let this process read the programs that the children have compiled."""
    jax.config.update("jax_compilation_cache_dir", str(cache_dir))
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


def first(ended: TrialRun, name: str) -> Event:
    event = ended.first(name)
    assert event is not None
    return event


def learning_blocks(ended: TrialRun) -> list[Event]:
    return [event for event in ended.blocks() if event.data["learning"]]


def curve(ended: TrialRun) -> list[dict[str, float]]:
    return [event.data["metrics"] for event in learning_blocks(ended)]


def evaluation(ended: TrialRun) -> tuple[float, float]:
    done = first(ended, "done").data
    return done["mean_return"], done["return_se"]


def test_events_come_in_the_order_of_the_protocol(trained: TrialRun) -> None:
    expected = ["ready", "started", "compiled", "warm", "block", "measured", "done"]
    assert names(trained.events) == expected


def test_time_stamps_never_go_back_and_lie_between_request_and_end(trained: TrialRun) -> None:
    stamps = [event.t for event in trained.events]
    assert stamps == sorted(stamps)
    # `ready` may come before the request; all else is an answer to it.
    assert trained.requested <= stamps[1]
    assert stamps[-1] <= trained.ended


def test_the_window_holds_the_blocks_and_neither_compilation_nor_warm_up(
    trained: TrialRun,
) -> None:
    compiled, warm = first(trained, "compiled"), first(trained, "warm")
    blocks = trained.blocks()
    # The warm-up lies between `compiled` and `warm`, the compilation before that.
    assert compiled.t + warm.data["seconds"] <= warm.t
    started = first(trained, "started")
    assert compiled.data["lower_s"] + compiled.data["compile_s"] <= compiled.t - started.t
    # Each block began after the one before it had ended, the first after `warm`.
    ends = [warm.t, *(block.t for block in blocks)]
    for block, (before, after) in zip(blocks, itertools.pairwise(ends), strict=True):
        assert block.data["seconds"] <= after - before


def test_a_trial_that_is_timed_only_ends_once_it_is_timed_and_is_not_judged(train: Train) -> None:
    ended = train(is_timed_only=True)
    assert ended.outcome == Completed()
    seconds = [block.data["seconds"] for block in ended.blocks()]
    least, most = TIMED_S
    assert least <= sum(seconds) <= most + max(seconds)
    assert 8 <= len(seconds) <= 2 * most / TIMED_BLOCK_S
    assert not learning_blocks(ended)
    assert first(ended, "measured").data["recompiles"] == 0
    assert first(ended, "done").data["mean_return"] is None


def test_a_trial_tells_the_work_in_one_update(trained: TrialRun) -> None:
    built = build(workload(), TINY)
    carry = jax.eval_shape(built.init, jax.eval_shape(jax.random.key, 0))
    expected = count(jax.make_jaxpr(built.update_fn)(carry))
    compiled = first(trained, "compiled").data
    told = [compiled[name] for name in ("flops", "bytes", "kernels", "work_is_lower_bound")]
    assert told == [expected.flops, expected.bytes, expected.kernels, False]


def test_blocks_end_at_a_quarter_a_half_and_three_quarters_of_the_updates(
    trained: TrialRun,
) -> None:
    # 64 updates of 256 env-steps in 32 blocks: block 7 ends at 16 · 256 = 4096, 15 at 8192, …
    ends = [block.data["env_steps"] for block in learning_blocks(trained)]
    assert len(ends) == 32
    assert (ends[7], ends[15], ends[23], ends[31]) == (4096, 8192, 12288, 16384)


@given(st.integers(1, 100_000))
def test_block_lengths_divide_any_number_of_updates_evenly(updates: int) -> None:
    lengths = block_lengths(updates)
    assert sum(lengths) == updates
    assert len(lengths) == min(updates, 32)
    assert max(lengths) - min(lengths) <= 1
    if updates >= 32:
        ends = list(itertools.accumulate(lengths))
        assert {updates // 4, updates // 2, 3 * updates // 4} <= set(ends)


def test_only_the_blocks_of_the_budget_are_learning(trained: TrialRun) -> None:
    blocks = trained.blocks()
    learning = [block.data["learning"] for block in blocks]
    assert learning == [True] * 32 + [False] * (len(blocks) - 32)
    assert all(block.data["threads"] > 1 for block in blocks)
    assert all(block.data["resident_bytes"] > 10_000_000 for block in blocks)
    assert first(trained, "measured").data["env_steps"] == 64 * BATCH


@pytest.mark.long
def test_nothing_recompiles_with_every_option_on(train: Train) -> None:
    options = {"normalize_obs": True, "normalize_reward": True, "clip_value_loss": True}
    ended = train(workload=replace(workload(), lr_schedule="linear", **options))
    assert first(ended, "measured").data["recompiles"] == 0


def test_a_budget_ends_at_the_first_update_at_or_past_it(train: Train) -> None:
    # 300 env-steps take two updates of 256.
    ended = train(env_steps=300)
    assert first(ended, "measured").data["env_steps"] == 512
    assert [block.data["env_steps"] for block in learning_blocks(ended)] == [256, 512]


def test_nothing_is_compiled_inside_the_window_of_stress(trained: TrialRun) -> None:
    assert first(trained, "measured").data["recompiles"] == 0


def test_nothing_is_compiled_inside_the_window_of_a_gymnax_environment(train: Train) -> None:
    ended = train(workload=workload(env="gymnax:CartPole-v1"))
    assert ended.outcome == Completed()
    assert first(ended, "measured").data["recompiles"] == 0
    # CartPole pays 1 a step for at most 500 steps.
    assert 1 <= evaluation(ended)[0] <= 500


def test_equal_seeds_give_equal_curves_and_evaluations(trained: TrialRun, train: Train) -> None:
    again = train()
    assert curve(again) == curve(trained)
    assert evaluation(again) == evaluation(trained)
    assert first(again, "compiled").data["cached"] is True


def test_another_seed_gives_another_curve_and_evaluation(trained: TrialRun, train: Train) -> None:
    other = train(seed=1)
    assert curve(other) != curve(trained)
    assert evaluation(other) != evaluation(trained)


def test_the_evaluated_policy_has_trained_for_exactly_the_budget(
    train: Train, compiled_before: None
) -> None:
    # One block has no variance, so that its interval is wide and further blocks are timed.
    asked = workload(learning_rate=0.03)
    ended = train(workload=asked, env_steps=BATCH)
    assert len(ended.blocks()) > 1

    built = build(asked, TINY)
    program = compile_training(built, CompileCounter(), jax.devices()[0].platform)
    after = []
    for updates in (1, 2):
        carry, _ = program.run(program.init(jax.random.key(0)), jnp.int32(updates))
        after.append(evaluate_policies(built, [carry.actor])["mean_return"] or 0.0)
    assert evaluation(ended)[0] == pytest.approx(after[0], abs=1e-4)
    assert abs(after[1] - after[0]) > 1e-2


def test_the_policies_of_the_milestones_are_evaluated_too(
    train: Train, compiled_before: None
) -> None:
    asked = workload(learning_rate=0.03)
    ended = train(workload=asked, env_steps=8 * BATCH, at_milestones=True)
    built = build(asked, TINY, env_steps=8 * BATCH)
    program = compile_training(built, CompileCounter(), jax.devices()[0].platform)
    carry = program.init(jax.random.key(0))
    after = []
    for _ in range(4):
        carry, _ = program.run(carry, jnp.int32(2))
        after.append(evaluate_policies(built, [carry.actor])["mean_return"] or 0.0)
    earlier = first(ended, "done").data["earlier"]
    assert [*earlier, evaluation(ended)[0]] == pytest.approx(after, abs=1e-4)
    assert len(set(after)) == 4

    # Two updates: the first ends at the half, and is what there is at the quarter.
    short = train(workload=asked, env_steps=2 * BATCH, at_milestones=True)
    earlier = first(short, "done").data["earlier"]
    assert earlier[0] == earlier[1]
    assert earlier[2] == evaluation(short)[0]

    assert first(train(workload=asked, env_steps=2 * BATCH), "done").data["earlier"] == []


def test_a_program_over_the_limit_is_refused_before_anything_is_allocated(train: Train) -> None:
    # 2²⁸ env-steps of 128 float32 observations are 137 GB: allocated, they would end the process.
    ended = train(
        workload=workload(env_params={"obs_dim": 128}),
        hardware={"num_envs": 2**20, "num_steps": 2**8, "num_minibatches": 2, "num_epochs": 2},
        memory_limit_bytes=10**9,
    )
    assert names(ended.events) == ["ready", "started", "compiled", "refused"]
    assert ended.outcome.status == "predicted_oom"
    refused = first(ended, "refused").data
    assert refused["limit_bytes"] <= 10**9
    assert refused["predicted_bytes"] > 137e9


@pytest.mark.long
def test_a_cold_cache_is_told_from_a_warm_one(train: Train, tmp_path: Path) -> None:
    cold = train(cache_dir=str(tmp_path / "cold"), memory_limit_bytes=1)
    assert cold.outcome.status == "predicted_oom"
    assert first(cold, "compiled").data["cached"] is False


@pytest.fixture
def child(tmp_path: Path) -> Iterator[Child]:
    child = Child(tmp_path / "child.log", preload=None)
    yield child
    child.end(grace_s=0)


def test_a_child_that_is_asked_to_stop_ends_after_its_block(child: Child, cache_dir: Path) -> None:
    child.send(request(cache_dir, env_steps=32 * 128 * BATCH))
    wait_for_event(child, "block")
    child.send(STOP)
    after = []
    while (event := child.next_event(PATIENCE_S)) is not None and event.name != "done":
        after.append(event.name)
    assert event is not None
    assert event.data == {"stopped": True}
    # Of the 31 blocks that were left; `measured` would say that the budget was spent.
    assert set(after) <= {"block"}
    assert len(after) < 31
    assert child.end(grace_s=60) == 0


def test_an_unknown_environment_parameter_is_rejected(train: Train) -> None:
    ended = train(workload=workload(env_params={"rhoo": 1.0}))
    assert names(ended.events) == ["ready", "rejected"]
    assert "rhoo" in first(ended, "rejected").data["text"]


def test_an_exception_is_an_event_with_type_and_text(train: Train) -> None:
    asked = replace(workload(), network=(0,))
    ended = train(workload=asked)
    assert names(ended.events) == ["ready", "error"]
    error = first(ended, "error").data
    assert error["type"] == "ValueError"
    assert "network[0] must be at least 1, but got 0" in error["text"]
    assert ended.outcome.status == "crashed"
