"""Work counted on jaxprs: every number is derived by hand beside it. Floats have 4 bytes."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tuner.trials import TINY, workload
from tuner.child.cost import Cost, count
from tuner.child.program import build
from tuner.protocol import Workload

X = jax.ShapeDtypeStruct((8, 16), jnp.float32)
W = jax.ShapeDtypeStruct((16, 4), jnp.float32)
SQUARE = jax.ShapeDtypeStruct((8, 8), jnp.float32)
VECTOR = jax.ShapeDtypeStruct((100,), jnp.float32)
SCALAR = jax.ShapeDtypeStruct((), jnp.float32)
PRODUCT = Cost(2 * 8 * 8 * 8, 3 * 256, 1)
"""Of two `SQUARE`s: 2·8·8·8 operations; two operands are read and one result is written."""


def cost_of(fun: Callable[..., Any], *args: Any) -> Cost:
    return count(jax.make_jaxpr(fun)(*args))


def test_a_product_of_matrices() -> None:
    # 2·8·16·4 operations; 128 + 64 elements are read and 32 written.
    assert cost_of(jnp.matmul, X, W) == Cost(1024, 4 * (128 + 64 + 32), 1)


@given(*[st.integers(1, 9)] * 4)
@settings(deadline=None, max_examples=20)
def test_a_batch_of_products(batch: int, m: int, k: int, n: int) -> None:
    left = jax.ShapeDtypeStruct((batch, m, k), jnp.float32)
    right = jax.ShapeDtypeStruct((batch, k, n), jnp.float32)
    assert cost_of(jnp.matmul, left, right).flops == 2 * batch * m * n * k


def test_a_convolution() -> None:
    # Of 2 images of 5×5 with 3 channels, same size, to 4 features by kernels of 3×3:
    # 2·5·5·4 results of 3·3·3 products and additions.
    images = jax.ShapeDtypeStruct((2, 3, 5, 5), jnp.float32)
    kernel = jax.ShapeDtypeStruct((4, 3, 3, 3), jnp.float32)
    counted = cost_of(lambda x, k: jax.lax.conv(x, k, (1, 1), "SAME"), images, kernel)
    assert counted.flops == 2 * (2 * 5 * 5 * 4) * (3 * 3 * 3)
    assert counted.kernels == 1


def test_elementwise_operations_are_fused_into_one_kernel() -> None:
    # A multiplication and an addition each; 100 elements are read and 100 written.
    assert cost_of(lambda x: x * 2 + 1, VECTOR) == Cost(200, 800, 1)


def test_a_transcendental_counts_ten_and_reads_what_the_product_wrote() -> None:
    # The product as above; then 32 elements of 10 operations are read and written.
    product = Cost(1024, 4 * (128 + 64 + 32), 1)
    assert cost_of(lambda x, w: jnp.tanh(x @ w), X, W) == product + Cost(320, 4 * 64, 1)


def test_what_a_reduction_reads_is_what_its_operand_is_computed_from() -> None:
    # 100 squares and 100 additions; the squares are never in memory, x is read once.
    assert cost_of(lambda x: (x * x).sum(), VECTOR) == Cost(200, 404, 1)


def test_moving_and_converting_is_no_arithmetic() -> None:
    counted = cost_of(lambda x: x.T.reshape(-1).astype(jnp.bfloat16), X)
    assert counted == Cost(0, 4 * 128 + 2 * 128, 1)


def test_a_reshaped_argument_costs_nothing() -> None:
    assert cost_of(lambda x: x.reshape(-1), X) == Cost()


def test_a_sort() -> None:
    # 64·log₂ 64 = 384 comparisons; one pass over the array.
    words = jax.ShapeDtypeStruct((64,), jnp.uint32)
    assert cost_of(jax.lax.sort, words) == Cost(384, 512, 1)


def test_random_bits_are_58_operations_a_word() -> None:
    key = jax.eval_shape(jax.random.key, 0)
    # The key has two words, and 100 are written.
    counted = cost_of(lambda key: jax.random.bits(key, (100,), jnp.uint32), key)
    assert counted == Cost(5800, 8 + 400, 1)


def test_a_gather_touches_the_rows_that_it_returns() -> None:
    table = jax.ShapeDtypeStruct((1_000_000, 4), jnp.float32)
    rows = jax.ShapeDtypeStruct((10,), jnp.int32)
    counted = cost_of(lambda t, i: t.at[i].get(mode="promise_in_bounds"), table, rows)
    # Ten rows of 16 bytes are read and written; indices (10 of 4 bytes) are read. Negative ones
    # are made positive: a comparison, an addition and a choice each.
    assert counted == Cost(30, 2 * 160 + 40, 1)


def test_an_update_in_place_touches_the_slice_alone() -> None:
    buffer = jax.ShapeDtypeStruct((1_000_000,), jnp.float32)
    small = jax.ShapeDtypeStruct((10,), jnp.float32)
    counted = cost_of(lambda b, s: jax.lax.dynamic_update_slice(b, s, (5,)), buffer, small)
    assert counted == Cost(0, 80, 1)


def test_a_scan_is_counted_as_often_as_it_runs() -> None:
    def loop(start: jax.Array, w: jax.Array) -> jax.Array:
        end: jax.Array = jax.lax.scan(lambda c, _: (c @ w, None), start, None, length=10)[0]
        return end

    assert cost_of(loop, SQUARE, SQUARE) == PRODUCT.times(10)


def test_what_a_scan_takes_and_gives_is_read_and_written_in_every_iteration() -> None:
    def loop(start: jax.Array, xs: jax.Array) -> Any:
        return jax.lax.scan(lambda c, x: (c + x, 2 * c), start, xs)

    # Each of 100 iterations: two additions or products, c and x are read, both results written.
    # They are of one shape and come from one kernel.
    assert cost_of(loop, SCALAR, VECTOR) == Cost(200, 100 * 16, 100)


def test_nested_scans_multiply() -> None:
    def inner(carry: jax.Array, _: None) -> tuple[jax.Array, None]:
        return jax.lax.scan(lambda c, _: (c @ c, None), carry, None, length=5)[0], None

    counted = cost_of(lambda x: jax.lax.scan(inner, x, None, length=3)[0], SQUARE)
    # One operand is the other one: it is read once.
    assert counted == Cost(15 * 1024, 15 * 2 * 256, 15)


@pytest.mark.parametrize("first", [0, jnp.int32(0)], ids=["scan", "while"])
def test_a_counting_loop_with_constant_bounds(first: Any) -> None:
    def loop(x: jax.Array) -> jax.Array:
        end: jax.Array = jax.lax.fori_loop(first, 7, lambda i, c: c @ c, x)
        return end

    counted = cost_of(loop, SQUARE)
    assert not counted.is_lower_bound
    # The counter costs a few operations beside the products.
    assert counted.flops == pytest.approx(7 * 1024, rel=0.01)


def test_a_while_that_counts_in_steps() -> None:
    # 0, 3, 6, 9 are below 10: four iterations.
    loop = cost_of(
        lambda x: jax.lax.while_loop(
            lambda s: s[0] < 10, lambda s: (s[0] + 3, s[1] @ s[1]), (0, x)
        ),
        SQUARE,
    )
    assert not loop.is_lower_bound
    assert loop.flops == pytest.approx(4 * 1024, rel=0.01)


def test_a_loop_of_unknown_length_is_counted_once_and_says_so() -> None:
    counted = cost_of(
        lambda x, n: jax.lax.fori_loop(0, n, lambda i, c: c @ c, x),
        SQUARE,
        jax.ShapeDtypeStruct((), jnp.int32),
    )
    assert counted.is_lower_bound
    assert counted.flops == pytest.approx(1024, rel=0.01)


def test_a_loop_that_counts_in_fractions_is_of_unknown_length() -> None:
    def loop(x: jax.Array) -> Any:
        return jax.lax.while_loop(lambda s: s[0] < 1.5, lambda s: (s[0] + 0.5, s[1] * 2), (0.0, x))

    assert cost_of(loop, VECTOR).is_lower_bound


def test_an_operation_without_a_rule_says_so() -> None:
    assert cost_of(jnp.linalg.cholesky, SQUARE).is_lower_bound
    assert cost_of(lambda x: jax.lax.cummax(x), VECTOR) == Cost(100, 800, 1)


def test_a_reduction_with_a_program_of_its_own_is_a_reduction() -> None:
    counted = cost_of(lambda x: jax.lax.reduce(x, 0.0, lambda a, b: a * b + a, (0,)), VECTOR)
    assert counted == Cost(100, 404, 1)


def test_what_nothing_uses_is_not_counted() -> None:
    def unused(x: jax.Array) -> jax.Array:
        x @ x
        return x + 1.0

    assert cost_of(unused, SQUARE) == Cost(64, 2 * 256, 1)


def test_what_the_host_is_called_for_is_not_known() -> None:
    def ask(x: jax.Array) -> Any:
        return jax.pure_callback(lambda a: a, VECTOR, x)

    assert cost_of(ask, VECTOR).is_lower_bound


def test_a_condition_costs_its_largest_branch() -> None:
    def choose(p: jax.Array, x: jax.Array) -> jax.Array:
        chosen: jax.Array = jax.lax.cond(p, lambda: x @ x, lambda: x + 1)
        return chosen

    counted = cost_of(choose, jax.ShapeDtypeStruct((), jnp.bool_), SQUARE)
    # And making a number of the predicate: one byte is read and four are written.
    assert counted == Cost(1024, 2 * 256, 1) + Cost(0, 5, 1)


def with_jvp(fun: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    called = jax.custom_jvp(fun)
    called.defjvp(lambda primals, tangents: (fun(*primals), fun(*tangents)))
    return called


def with_vjp(fun: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    called = jax.custom_vjp(fun)
    called.defvjp(lambda *args: (fun(*args), args), lambda args, _: args)
    return called


@pytest.mark.parametrize("wrap", [jax.jit, jax.checkpoint, with_jvp, with_vjp])
def test_a_call_costs_what_it_calls(wrap: Callable[..., Any]) -> None:
    def plain(x: jax.Array, w: jax.Array) -> jax.Array:
        return jnp.sin(x @ w)

    called = wrap(plain)
    # An elementwise operation is fused across the call.
    expected = cost_of(lambda x, w: 2 * plain(x, w), X, W)
    assert cost_of(lambda x, w: 2 * called(x, w), X, W) == expected


def test_the_gradient_of_two_layers_is_two_products_forward_and_three_backward() -> None:
    rows, inputs, hidden, outputs = 32, 16, 8, 4
    x = jax.ShapeDtypeStruct((rows, inputs), jnp.float32)
    first = jax.ShapeDtypeStruct((inputs, hidden), jnp.float32)
    second = jax.ShapeDtypeStruct((hidden, outputs), jnp.float32)
    gradient = jax.value_and_grad(lambda w1, w2, x: (x @ w1 @ w2).sum(), argnums=(0, 1))
    # Forward h = x·w1, y = h·w2 and the sum of y; backward dw2 = hᵀ·dy, dh = dy·w2ᵀ, dw1 = xᵀ·dh.
    # Nothing wants dx. So the first layer has 2 products and the second 3.
    products = 2 * (2 * rows * inputs * hidden) + 3 * (2 * rows * hidden * outputs)
    assert cost_of(gradient, first, second, x).flops == products + rows * outputs


WIDTH, OBS, ACTIONS = 256, 32, 3
HEADLESS = 2 * (OBS * WIDTH + WIDTH * WIDTH)
POLICY, VALUE = HEADLESS + 2 * WIDTH * ACTIONS, HEADLESS + 2 * WIDTH
"""Products of one row forward through networks of 256×256 on stress's 32 observations."""


def update_cost(**changes: int) -> Cost:
    hardware = {"num_envs": 16, "num_steps": 32, "num_minibatches": 2, "num_epochs": 2, **changes}
    built = build(wide(), hardware)
    carry = jax.eval_shape(built.init, jax.eval_shape(jax.random.key, 0))
    return count(jax.make_jaxpr(built.update_fn)(carry))


def wide() -> Workload:
    return replace(workload(env_params={"obs_dim": OBS}), network=(WIDTH, WIDTH))


@pytest.fixture(scope="module")
def update() -> Cost:
    return update_cost()


def test_an_update_costs_about_the_products_of_its_networks(update: Cost) -> None:
    # 16·32 env-steps: the policy once, the value of each observation, and (where a time limit may
    # cut an episode) of the last one; the 16 last observations. Then 2 epochs of forward and
    # twice that backward, less the gradient by the observations, which nothing wants.
    rollout = 512 * (POLICY + 2 * VALUE) + 16 * VALUE
    epochs = 2 * 512 * (3 * (POLICY + VALUE) - 2 * (2 * OBS * WIDTH))
    # A tangent on a CPU is two polynomials in x², of 6 and 3 steps, a product, a quotient, a square
    # and two bounds; forward passes alone compute it, in two hidden layers.
    tangents = 23 * 2 * WIDTH * (512 * 3 + 16 + 2 * 512 * 2)
    # The rest is noise, losses and Adam: a few percent at this width.
    assert 1.0 <= update.flops / (rollout + epochs + tangents) <= 1.06


def test_an_update_holds_no_loop_of_unknown_length(update: Cost) -> None:
    assert not update.is_lower_bound


def test_cartpole_holds_no_loop_of_unknown_length() -> None:
    built = build(workload(env="gymnax:CartPole-v1"), TINY)
    carry = jax.eval_shape(built.init, jax.eval_shape(jax.random.key, 0))
    assert not count(jax.make_jaxpr(built.update_fn)(carry)).is_lower_bound


def test_work_is_linear_in_the_steps(update: Cost) -> None:
    # Kernels of the epochs do not grow: there are as many minibatches, of twice the rows.
    assert update_cost(num_steps=64).flops == pytest.approx(2 * update.flops, rel=0.02)


def test_work_is_linear_in_the_epochs(update: Cost) -> None:
    four, six = update_cost(num_epochs=4), update_cost(num_epochs=6)
    for name in ("flops", "bytes", "kernels"):
        two_more = getattr(four, name) - getattr(update, name)
        assert getattr(six, name) - getattr(four, name) == pytest.approx(two_more, rel=1e-3)


def test_minibatches_cost_kernels_and_little_arithmetic(update: Cost) -> None:
    eight = update_cost(num_minibatches=8)
    # Six more gradient steps in each of 2 epochs, each with fewer than 30 operations (Adam, and two
    # norms) on 2·(33·256 + 257·256) + 257·3 + 257 = 149,508 parameters: below 54 of 1154 million.
    assert 0 < eight.flops - update.flops < 2 * 6 * 30 * 149_508
    assert eight.kernels > 1.2 * update.kernels
