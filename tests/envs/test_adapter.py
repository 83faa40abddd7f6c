"""Objects of gymnax's shape, in every form that `envs.adapter` promises to read."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from envs.adapter import DEFAULT_LIMIT, AdaptedEnv, adapt, as_arrays
from envs.base import Box, Discrete, action_mask_of
from envs.errors import UnusableFactory
from tests.envs.jaxprs import impurities

KEY = jax.random.key(0)
ACTION = jnp.int32(1)


class BoxSpace(NamedTuple):
    low: Any
    high: Any
    shape: tuple[int, ...]


class DiscreteSpace(NamedTuple):
    n: int


class Params(NamedTuple):
    goal: int = 3
    max_steps_in_episode: int = 5


class Count:
    """Counts its steps: over at `goal`, cut at the limit. Subclasses say so in other forms."""

    default_params = Params()

    def observation_space(self, params: Any) -> Any:
        return BoxSpace(0.0, 9.0, (2,))

    def action_space(self, params: Any) -> Any:
        return DiscreteSpace(3)

    def reset(self, key: Any, params: Any) -> Any:
        return jnp.zeros(2), 0

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        time = state + 1
        ended, cut = time >= params.goal, time >= params.max_steps_in_episode
        return jnp.full(2, time, jnp.float32), time, 1, ended, cut, {}


class FiveValues(Count):
    """`done` is both, and nothing tells them apart."""

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, time, reward, ended, cut, info = super().step(key, state, action, params)
        return obs, time, reward, ended | cut, info


class Informed(FiveValues):
    name_in_info = "truncated"

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        *rest, _ = super().step(key, state, action, params)
        return *rest, {self.name_in_info: rest[1] >= params.max_steps_in_episode}


class InformedAsInGym(Informed):
    name_in_info = "TimeLimit.truncated"


class Asked(FiveValues):
    """`done` is both, and `is_truncated` tells the limit."""

    def is_truncated(self, state: Any, params: Any) -> Any:
        return state >= params.max_steps_in_episode


class OfGymnax(Count):
    """gymnax 1.0: `step_env` reports the natural end only; `step` must not be called."""

    def reset_env(self, key: Any, params: Any) -> Any:
        return Count.reset(self, key, params)

    def step_env(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        obs, time, reward, ended, _, info = Count.step(self, key, state, action, params)
        return obs, time, reward, ended, info

    def is_truncated(self, state: Any, params: Any) -> Any:
        return state >= params.max_steps_in_episode

    def reset(self, key: Any, params: Any) -> Any:
        raise AssertionError

    def step(self, key: Any, state: Any, action: Any, params: Any) -> Any:
        raise AssertionError


class AutoResets(Count):
    auto_resets = True


def adapted(inner: Any, params: Any = None) -> AdaptedEnv:
    return adapt(inner, inner.default_params if params is None else params, name="mine")


def ends(inner: Any, **params: int) -> list[tuple[bool, bool]]:
    """Return (terminated, truncated) of every step up to the first that is either."""
    chosen = Params(**params)
    env = adapted(inner, chosen)
    state = env.reset(KEY, chosen)[1]
    found = []
    for _ in range(10):
        timestep = env.step(KEY, state, ACTION, chosen)
        found.append((bool(timestep.terminated), bool(timestep.truncated)))
        state = timestep.state
        if any(found[-1]):
            break
    return found


FORMS = [Count(), Informed(), InformedAsInGym(), Asked(), OfGymnax()]


@pytest.mark.parametrize("inner", FORMS, ids=lambda inner: type(inner).__name__)
def test_an_end_and_a_limit_are_told_apart_in_every_form(inner: Any) -> None:
    neither = (False, False)
    assert ends(inner, goal=3, max_steps_in_episode=9) == [neither, neither, (True, False)]
    assert ends(inner, goal=9, max_steps_in_episode=2) == [neither, (False, True)]
    assert adapted(inner).bootstraps_truncation


@pytest.mark.parametrize("params", [{"goal": 2}, {"goal": 9, "max_steps_in_episode": 2}])
def test_done_alone_terminates(params: dict[str, int]) -> None:
    assert ends(FiveValues(), **params) == [(False, False), (True, False)]


def test_who_resets_by_itself_reports_a_limit_as_an_end_and_says_so() -> None:
    assert ends(AutoResets(), goal=9, max_steps_in_episode=2) == [(False, False), (True, False)]
    assert not adapted(AutoResets()).bootstraps_truncation
    # `step_env` does not reset, whatever `step` does.
    both = type("Both", (OfGymnax,), {"auto_resets": True})()
    assert adapted(both).bootstraps_truncation


@pytest.mark.parametrize("inner", FORMS, ids=lambda inner: type(inner).__name__)
def test_types_are_fixed_and_shapes_as_declared(inner: Any) -> None:
    """The state is a Python 0 at first and the reward a Python 1: both would be weakly typed."""
    params = as_arrays(inner.default_params, "params")
    env = adapted(inner)
    obs, state = jax.eval_shape(env.reset, KEY, params)
    timestep = jax.eval_shape(env.step, KEY, state, ACTION, params)
    assert timestep.obs == obs == jax.ShapeDtypeStruct((2,), jnp.float32)
    assert timestep.state == state == jax.ShapeDtypeStruct((), jnp.int32)
    assert timestep.reward == jax.ShapeDtypeStruct((), jnp.float32)
    assert timestep.terminated == timestep.truncated == jax.ShapeDtypeStruct((), jnp.bool_)
    assert not any(leaf.weak_type for leaf in jax.tree.leaves((params, state, timestep)))
    assert impurities(env.step, KEY, state, ACTION, params) == []


def test_vmap_equals_a_loop() -> None:
    env, params = adapted(Count()), as_arrays(Params(), "params")
    times = jnp.arange(4, dtype=jnp.int32)
    keys = jax.random.split(KEY, 4)
    actions = jnp.ones(4, jnp.int32)
    together = jax.vmap(env.step, in_axes=(0, 0, 0, None))(keys, times, actions, params)
    alone = [env.step(keys[i], times[i], actions[i], params) for i in range(4)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)
    assert jax.tree.all(jax.tree.map(jnp.array_equal, together, stacked))


def with_space(**spaces: Any) -> Any:
    """Return a counter whose spaces are these."""
    return type(
        "Other", (Count,), {key: lambda self, params, s=s: s for key, s in spaces.items()}
    )()


def test_spaces_are_read_by_what_they_have_and_not_by_their_class() -> None:
    assert adapted(Count()).action_space == Discrete(3)
    box = BoxSpace(np.float32(-1), [1.0, 2.0], (2,))
    assert adapted(with_space(action_space=box)).action_space == Box((-1, -1), (1, 2), (2,))
    assert adapted(Count()).obs_shape == (2,)


def test_spaces_of_gymnax_and_of_gymnasium_are_read() -> None:
    from gymnasium import spaces as of_gymnasium
    from gymnax.environments import spaces as of_gymnax

    for module in (of_gymnasium, of_gymnax):
        assert adapted(with_space(action_space=module.Discrete(4))).action_space == Discrete(4)
        box = module.Box(low=-2.0, high=2.0, shape=(1,))
        assert adapted(with_space(action_space=box)).action_space == Box((-2.0,), (2.0,), (1,))
        assert adapted(with_space(observation_space=module.Discrete(7))).obs_shape == (7,)


def test_discrete_observations_become_one_hot() -> None:
    class Numbered(Count):
        def observation_space(self, params: Any) -> Any:
            return DiscreteSpace(4)

        def reset(self, key: Any, params: Any) -> Any:
            return 2, 0

    env = adapted(Numbered())
    assert env.obs_shape == (4,)
    assert env.reset(KEY, Params())[0].tolist() == [0, 0, 1, 0]


def space_errors() -> list[Any]:
    from gymnasium import spaces

    text = spaces.Text(3)
    several, flags = spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(3)
    shifted = spaces.Discrete(3, start=1)
    return [
        pytest.param("action_space", several, "must be discrete (.n) or a box (.low, .high, "
                     ".shape), but got MultiDiscrete; return one of these", id="several"),
        pytest.param("action_space", flags, "but got MultiBinary", id="flags"),
        pytest.param("action_space", None, "but got NoneType", id="nothing"),
        pytest.param("action_space", shifted, "must start at 0, but got 1; shift it", id="shifted"),
        pytest.param("action_space", DiscreteSpace(0), "mine: num_actions must be at least 1",
                     id="no actions"),
        pytest.param("action_space", BoxSpace(0.0, np.inf, (1,)), "mine: bounds must be finite",
                     id="unbounded"),
        pytest.param("action_space", BoxSpace([0.0, 1.0], 2.0, (3,)), "mine: ", id="bounds"),
        pytest.param("observation_space", text, "must be a box (.low, .high, .shape) or discrete "
                     "(.n), but got Text; flatten it into one box", id="text"),
        pytest.param("observation_space", spaces.Dict(), "but got Dict", id="dict"),
    ]  # fmt: skip


@pytest.mark.parametrize(("which", "space", "message"), space_errors())
def test_other_spaces_are_refused(which: str, space: Any, message: str) -> None:
    with pytest.raises(UnusableFactory) as error:
        adapted(with_space(**{which: space}))
    assert message in str(error.value)


def returning(**results: Any) -> Any:
    """Return a counter whose methods return these instead."""
    methods = {name: lambda self, *_, r=result: r for name, result in results.items()}
    return type("Other", (Count,), methods)()


OBS = jnp.zeros(2)


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (returning(step=(OBS, 0, 0.0, False)), "must return (obs, state, reward, done, info) or "
         "(obs, state, reward, terminated, truncated, info), but got 4 values; return five or six"),
        (returning(step=OBS), "but got ArrayImpl; return five or six values"),
        (returning(step=(OBS, 0, jnp.zeros(1), False, {})), "reward of mine must be a single "
         "number of shape [], but got shape [1]; index or sum it"),
        (returning(step=(OBS, 0, 0.0, jnp.zeros(3, bool), {})), "done of mine must be a single"),
        (returning(step=(OBS, 0, 0.0, False, jnp.zeros(3, bool), {})), "truncated of mine must be"),
        (returning(step=(OBS, 0, "much", False, {})), "reward of mine must be an array, but got "
         "str; return one array of numbers"),
        (returning(step=(jnp.zeros(3), 0, 0.0, False, {})), "obs of step of mine must have the "
         "shape [2] of observation_space, but got [3]; correct one of the two"),
        (returning(step=({"x": OBS}, 0, 0.0, False, {})), "obs of step of mine must be an array"),
        (returning(step=(OBS, {"who": "me"}, 0.0, False, {})), "the state that step of mine "
         "returns must hold numbers and arrays only, but got str at ['who']; keep it on the"),
        (returning(reset=(OBS, 0, {})), "reset of mine must return (obs, state), but got 3 values"),
        (returning(reset=(jnp.zeros(()), 0)), "obs of reset of mine must have the shape [2]"),
    ],
)  # fmt: skip
def test_what_is_returned_wrongly_is_named(inner: Any, message: str) -> None:
    env = adapted(inner)
    with pytest.raises(UnusableFactory) as error:
        jax.make_jaxpr(lambda key: env.step(key, env.reset(key, Params())[1], ACTION, Params()))(
            KEY
        )
    assert message in str(error.value)


def with_attributes(**attributes: Any) -> Any:
    return type("Other", (Count,), {"default_params": (), **attributes})()


@pytest.mark.parametrize(
    ("inner", "limit"),
    [
        (Count(), 5),
        (with_attributes(default_params=Params(), eval_steps=8), 8),
        (with_attributes(default_params={"max_steps_in_episode": np.int32(6)}), 6),
        (with_attributes(max_steps_in_episode=11), 11),
        (with_attributes(max_episode_steps=12), 12),
        (with_attributes(episode_length=13), 13),
        (with_attributes(), DEFAULT_LIMIT),
    ],
)
def test_the_time_limit_is_found_where_it_stands(inner: Any, limit: int) -> None:
    assert adapted(inner).eval_steps == limit


@pytest.mark.parametrize("limit", [0, "long"])
def test_a_time_limit_of_no_steps_is_refused(limit: Any) -> None:
    with pytest.raises(UnusableFactory) as error:
        adapted(with_attributes(episode_length=limit))
    assert str(error.value) == (
        f"episode_length of mine must be at least 1, but got {limit!r}; give the number of steps"
    )


def test_returns_and_best_return() -> None:
    assert not adapted(Count()).per_step_return
    assert adapted(with_attributes(per_step_return=True)).per_step_return
    assert adapted(Count()).best_return(Params()) is None
    assert adapted(with_attributes(best_return=4)).best_return(()) == 4.0
    of_params = with_attributes(best_return=lambda self, params: params.goal)
    assert adapted(of_params, Params()).best_return(Params(goal=7)) == 7.0
    assert adapt(Count(), Params(), name="mine", best=2.5).best_return(Params()) == 2.5
    with pytest.raises(UnusableFactory, match="must be a finite number, but got 'high'; leave it"):
        adapted(with_attributes(best_return="high")).best_return(())


def test_masks_are_offered_only_by_those_that_have_them() -> None:
    assert action_mask_of(adapted(Count())) is None
    mask = action_mask_of(
        adapted(with_attributes(action_mask=lambda self, state, params: jnp.array([1, 0, 1])))
    )
    assert mask is not None
    assert mask(0, ()).tolist() == [True, False, True]
    assert mask(0, ()).dtype == jnp.bool_


def test_masks_that_do_not_fit_are_refused() -> None:
    def action_mask(self: Any, state: Any, params: Any) -> Any:
        return jnp.ones(2, bool)

    mask = action_mask_of(adapted(with_attributes(action_mask=action_mask)))
    assert mask is not None
    with pytest.raises(UnusableFactory, match=r"shape \[3\], but got \[2\]; correct it or"):
        mask(0, ())
    space = with_space(action_space=BoxSpace(0.0, 1.0, (1,)))
    type(space).action_mask = action_mask
    with pytest.raises(UnusableFactory, match="must be discrete where there is an action_mask"):
        adapted(space)


def test_the_clock_is_moved_only_by_an_environment_that_offers_it() -> None:
    state = jnp.int32(2)
    assert adapted(Count()).stagger(state, jnp.float32(0.5)) is state
    moved = with_attributes(stagger=lambda self, state, fraction: jnp.int32(10 * fraction))
    assert int(adapted(moved).stagger(state, jnp.float32(0.5))) == 5


def test_what_is_missing_is_named() -> None:
    class Half:
        def reset(self, key: Any, params: Any) -> Any: ...
        def action_space(self, params: Any) -> Any: ...

    with pytest.raises(UnusableFactory) as error:
        adapt(Half(), (), name="mine")
    assert str(error.value) == (
        "mine must have reset, step, observation_space, action_space and default_params, but got "
        "Half without step, observation_space; define it"
    )


def test_plain_dataclasses_become_pytrees() -> None:
    @dataclass
    class Plain:
        gain: float = 2.0
        table: Any = (1, 2)

    arrays = as_arrays(Plain(), "params")
    assert isinstance(arrays, Plain)
    assert [leaf.dtype for leaf in jax.tree.leaves(arrays)] == [jnp.float32, jnp.int32, jnp.int32]
    with pytest.raises(UnusableFactory, match=r"params must hold .* but got str at \.gain; keep"):
        as_arrays(Plain(gain="high"), "params")  # type: ignore[arg-type]


def test_an_object_that_cannot_be_hashed_can_be_adapted() -> None:
    @dataclass
    class Unhashable(Count):
        sizes: Any = (1,)

    assert Unhashable.__hash__ is None
    assert hash(adapted(Unhashable()))
