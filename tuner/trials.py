"""The search: one trial after another until there is a reason to stop, in any worker of a study.

Each worker asks the tables before every trial, so that it does not matter how many there are, nor
whether the one that started the study still lives.
"""

import time
from collections.abc import Callable

import optuna
from optuna.trial import TrialState

from storage.heartbeat import Heartbeat
from storage.recovery import is_taken_over, running_trials
from storage.studies import set_study_fact, study_facts
from tuner.bench import Say
from tuner.finalists import num_finalists
from tuner.objective import Objective, TrialFailed
from tuner.observer import Stood
from tuner.score import default_min_gain
from tuner.search.sampler import SpaceExhausted, num_untried
from tuner.session import Session
from tuner.stopping import reason_to_stop

INTERRUPTED = "stopped on request"
POLL_S = 0.5
"""Time between two looks at the trials of other workers."""
CLOSING = "closing"
"""The fact that says why the search of a study has ended, while its finalists are measured."""


def search(session: Session, heartbeat: Heartbeat) -> str:
    """Run trials until there is a reason to stop, and return it."""
    objective = Objective(session)
    while True:
        reason = reason_now(session)
        if session.bench.interrupts.count:
            return INTERRUPTED
        if reason is not None:
            return reason
        run_one(session.study, objective, heartbeat, session.say)


def reason_now(session: Session) -> str | None:
    """Return why no trial should begin now, from the tables; None if one should.

    Trials that others are measuring count as if they had ended: should one fail, its config is
    queued, and whoever asks after that goes on.
    """
    if session.references is None:
        raise ValueError("a study must be calibrated before it is searched")
    config, study = session.config, session.study
    trials = study.get_trials(deepcopy=False)  # one look: each asks the database of all that run
    session.adopt(trials)
    if not session.is_leader and (closing := study_facts(study).get(CLOSING)) is not None:
        return str(closing)
    min_gain = config.min_gain
    if min_gain is None:
        min_gain = default_min_gain(session.references.epsilon)
    waiting, running = (
        sum(trial.state == state for trial in trials)
        for state in (TrialState.WAITING, TrialState.RUNNING)
    )
    stood = Stood(
        records=session.records(),
        references=session.references,
        trials=config.trials,
        untried=num_untried(trials, config.space()) + waiting,
        time_left_s=session.time_left_s(),
        running=running,
    )
    session.bench.observer.see(stood)
    return reason_to_stop(
        stood.records,
        trials=stood.trials,
        patience=config.patience,
        min_gain=min_gain,
        min_trials=config.min_trials,
        untried=stood.untried,
        time_left_s=stood.time_left_s,
        running=stood.running,
        finalists=num_finalists(session, others=running),
        until_regret=config.until_regret,
        space=config.space(),
    )


def run_one(
    study: optuna.Study,
    objective: Callable[[optuna.Trial], float],
    heartbeat: Heartbeat,
    say: Say,
) -> None:
    """Run one trial and tell Optuna of it, unless another worker has ended it meanwhile.

    Not `Study.optimize`, which fails silent trials by heartbeats of its own and takes a trial that
    another has closed for a fault.
    """
    trial = study.ask()
    heartbeat.begin(trial.number)
    try:
        value, state = _measure(trial, objective)
        study.tell(trial, value, state=state)
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt) or not is_taken_over(error):
            study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            raise
        say(
            f"trial {trial.number} was given to another worker meanwhile: what was measured of it "
            "here is kept"
        )
    finally:
        heartbeat.end()


def _measure(
    trial: optuna.Trial, objective: Callable[[optuna.Trial], float]
) -> tuple[float | None, TrialState]:
    """Return what Optuna is to be told of a trial."""
    try:
        return objective(trial), TrialState.COMPLETE
    except optuna.TrialPruned:
        return None, TrialState.PRUNED
    except TrialFailed:
        return None, TrialState.FAIL
    except SpaceExhausted as error:
        trial.set_user_attr("reason", str(error))
        return None, TrialState.FAIL


def close_search(session: Session, reason: str | None) -> None:
    """Tell all workers that the search has ended, or with None that it goes on."""
    if study_facts(session.study).get(CLOSING) != reason:
        set_study_fact(session.study, CLOSING, reason)


def wait_for_others(session: Session, heartbeat: Heartbeat) -> None:
    """Wait until no worker measures; the heartbeat ends the trials of those that are dead."""
    is_told = False
    while (running := running_trials(session.study)) and not session.bench.interrupts.count:
        if not is_told:
            numbers = ", ".join(str(trial.number) for trial in running)
            session.say(f"waiting for trial {numbers} of other workers")
            is_told = True
        heartbeat.check()
        time.sleep(POLL_S)
