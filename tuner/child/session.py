"""The child's side of the conversation: answer requests with jax and the environments."""

import os
import sys
import traceback

import jax

from envs import registry
from envs.errors import EnvError
from tuner.child import calibrate, preflight, targets, trial
from tuner.child.channel import Channel
from tuner.protocol import (
    CheckpointedRequest,
    FitRequest,
    MemoryRequest,
    PeaksRequest,
    PreflightRequest,
    ProbeRequest,
    RandomRequest,
    Request,
    TargetRequest,
    TrainRequest,
)


class Session:
    """One child's life: answers questions, runs at most one trial, then ends."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def serve(self, *, preload: str | None) -> None:
        """Answer requests until a trial has been run or the parent is gone."""
        channel = self._channel
        channel.listen()
        try:
            if preload is not None:
                registry.preload(preload)
        except EnvError as error:
            channel.fail("rejected", error)
            return
        channel.emit("ready")
        while True:
            request = channel.next_request()
            try:
                self._answer(request)
            except EnvError as error:
                channel.fail("rejected", error)
                return
            except Exception as error:
                traceback.print_exc()
                channel.fail("error", error)
                return
            if isinstance(request, TrainRequest | CheckpointedRequest):
                sys.stdout.flush()
                os._exit(0)  # the interpreter's own end would cost half a second for nothing

    def _answer(self, request: Request) -> None:
        emit = self._channel.emit
        if not isinstance(request, ProbeRequest | TargetRequest):
            _use_cache(request.cache_dir)
        match request:
            case TrainRequest():
                trial.train(request, emit, self._channel.stop)
            case CheckpointedRequest():
                from tuner.child import training  # orbax takes seconds that no trial should wait

                training.train(request, emit, self._channel.stop)
            case ProbeRequest():
                calibrate.probe(emit)
            case PeaksRequest():
                calibrate.peaks(emit)
            case PreflightRequest():
                preflight.preflight(request, emit)
            case RandomRequest():
                calibrate.random_policy(request, emit)
            case FitRequest():
                calibrate.largest_fit(request, emit)
            case MemoryRequest():
                targets.analyse_memory(request, emit)
            case TargetRequest():
                emit("described", device=targets.describe(request.target).device_kind)


def _use_cache(cache_dir: str) -> None:
    """Keep every compiled program in `cache_dir`, however small and quick to compile."""
    jax.config.update("jax_compilation_cache_dir", cache_dir)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
