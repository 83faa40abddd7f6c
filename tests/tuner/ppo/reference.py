"""PPO's gradient steps once more, in NumPy and float64: slow, row by row, derived by hand.

It shares no code with `tuner.ppo` and takes no derivative but those written here. Networks are
lists of `(kernel, bias)`; `policy` and `value` are two of them.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Network = list[tuple[Floats, Floats]]
Gradients = list[Floats]


@dataclass
class Rows:
    """What was collected: one entry for each env-step."""

    obs: Floats
    action: Any
    log_prob: Floats
    advantage: Floats
    target: Floats
    mask: NDArray[np.bool_] | None = None
    value: Floats | None = None


@dataclass
class Reference:
    """Parameters, Adam's state and the scalars; `step` takes one gradient step."""

    policy: Network
    value: Network
    log_std: Floats | None
    scalars: dict[str, float]
    num_steps: int = 0
    moments: list[tuple[Floats, Floats]] = field(default_factory=list)

    def parameters(self) -> list[Floats]:
        """Return every array: policy, value, log_std."""
        arrays = [array for layer in self.policy + self.value for array in layer]
        return arrays if self.log_std is None else [*arrays, self.log_std]

    def step(self, rows: Rows, indices: NDArray[np.int64]) -> None:
        advantage = rows.advantage[indices]
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        total = [np.zeros_like(array) for array in self.parameters()]
        for row, row_advantage in zip(indices, advantage, strict=True):
            for part, gradient in zip(
                total, self.row_gradient(rows, row, row_advantage), strict=True
            ):
                part += gradient / len(indices)
        self.adam(total)

    def row_gradient(self, rows: Rows, row: int, advantage: float) -> Gradients:
        """Return the gradient of one row's loss by every parameter."""
        outputs, policy_states = forward(self.policy, rows.obs[row])
        if self.log_std is None:
            allowed = np.ones(len(outputs), bool) if rows.mask is None else rows.mask[row]
            log_prob, by_outputs, entropy_by_outputs = categorical(
                outputs, rows.action[row], allowed
            )
            by_log_std = entropy_by_log_std = None
        else:
            noise = (rows.action[row] - outputs) / np.exp(self.log_std)
            log_prob = float((-(noise**2) / 2 - self.log_std - np.log(2 * np.pi) / 2).sum())
            by_outputs, entropy_by_outputs = noise / np.exp(self.log_std), np.zeros_like(outputs)
            by_log_std, entropy_by_log_std = noise**2 - 1, np.ones_like(noise)

        # −min(ρA, clip(ρ)A): a clipped ratio that is the smaller has no slope; dρ/d log-prob = ρ.
        eps = self.scalars["clip_eps"]
        ratio = np.exp(log_prob - rows.log_prob[row])
        is_free = ratio * advantage <= np.clip(ratio, 1 - eps, 1 + eps) * advantage
        slope = -ratio * advantage if is_free else 0.0
        ent_coef = self.scalars["ent_coef"]
        gradients = backward(
            self.policy, policy_states, slope * by_outputs - ent_coef * entropy_by_outputs
        )

        (value,), value_states = forward(self.value, rows.obs[row])
        by_value = self.scalars["vf_coef"] * self.value_slope(rows, row, float(value))
        gradients += backward(self.value, value_states, np.array([by_value]))
        if by_log_std is not None:
            gradients.append(slope * by_log_std - ent_coef * entropy_by_log_std)
        return gradients

    def value_slope(self, rows: Rows, row: int, value: float) -> float:
        """Return d/dv of ½·max((v − target)², (held v − target)²), or of the first alone."""
        target = rows.target[row]
        if rows.value is None:
            return value - target
        change, eps = value - rows.value[row], self.scalars["vf_clip_eps"]
        if abs(change) <= eps:
            return value - target
        held = rows.value[row] + eps * np.sign(change)
        return value - target if (value - target) ** 2 > (held - target) ** 2 else 0.0

    def adam(self, gradients: Gradients) -> None:
        norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
        shrink = min(1.0, self.scalars["max_grad_norm"] / norm)
        if not self.moments:
            self.moments = [(np.zeros_like(g), np.zeros_like(g)) for g in gradients]
        self.num_steps += 1
        for array, gradient, (first, second) in zip(
            self.parameters(), gradients, self.moments, strict=True
        ):
            first += 0.1 * (shrink * gradient - first)
            second += 0.001 * ((shrink * gradient) ** 2 - second)
            mean = first / (1 - 0.9**self.num_steps)
            deviation = np.sqrt(second / (1 - 0.999**self.num_steps))
            array -= self.scalars["learning_rate"] * mean / (deviation + self.scalars["adam_eps"])


def categorical(
    logits: Floats, action: int, allowed: NDArray[np.bool_]
) -> tuple[float, Floats, Floats]:
    """Return the action's log-probability, and by logits its gradient and the entropy's."""
    weights = np.where(allowed, np.exp(logits - logits[allowed].max()), 0.0)
    probabilities = weights / weights.sum()
    logs = np.log(np.where(allowed, probabilities, 1.0))
    entropy = -(probabilities * logs).sum()
    one_hot = np.eye(len(logits))[action]
    return float(logs[action]), one_hot - probabilities, -probabilities * (logs + entropy)


def forward(network: Network, inputs: Floats) -> tuple[Floats, list[Floats]]:
    """Return the outputs of a tanh network, and what went into each of its layers."""
    states = [inputs]
    for kernel, bias in network[:-1]:
        states.append(np.tanh(states[-1] @ kernel + bias))
    kernel, bias = network[-1]
    return states[-1] @ kernel + bias, states


def backward(network: Network, states: list[Floats], by_outputs: Floats) -> Gradients:
    """Return the gradient by every kernel and bias, in order."""
    gradients: Gradients = []
    for index in reversed(range(len(network))):
        gradients = [np.outer(states[index], by_outputs), by_outputs, *gradients]
        # tanh' = 1 − tanh²; the first layer's inputs are no parameters.
        by_outputs = (network[index][0] @ by_outputs) * (1 - states[index] ** 2)
    return gradients
