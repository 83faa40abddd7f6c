"""A program is written for jax's own backend, or for the platform that is asked for."""

from tuner.ppo.platform import for_cpu, written_for
from tuner.ppo.types import PPOConfig
from tuner.ppo.update import microbatch_size

CONFIG = PPOConfig(num_envs=512, num_steps=128, num_minibatches=4, num_epochs=4)


def test_without_a_word_it_is_the_backend_s() -> None:
    assert for_cpu()
    assert microbatch_size(CONFIG) == 1024


def test_for_a_gpu_a_minibatch_is_whole_and_what_follows_is_the_cpu_s_again() -> None:
    with written_for("cuda"):
        assert not for_cpu()
        assert microbatch_size(CONFIG) == 512 * 128 // 4
    assert for_cpu()
