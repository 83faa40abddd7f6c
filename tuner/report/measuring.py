"""How a study's numbers came about, what is absent and why, and what none of them can say."""

from storage.records import TrialRecord
from tuner.goal import TRAINING_SHARE
from tuner.kept_learning import KeptLearning
from tuner.report.reading import StudyReading
from tuner.score import FULL_UTIL

SOURCES = {
    "gpm": "the GPU's own counters of multiprocessor activity (GPM)",
    "nvml": "NVML: the share of time in which any kernel ran, however small",
    "psutil": "the trial's share of the CPU cores that it may use",
}
LIMITS = (
    "Everything here holds for this hardware, this workload and these versions.",
    "Intervals are for a fresh process on the machine as it was; other load makes them too narrow.",
    "Configs were compared early in training, not at the end of a long one.",
    "What bounds a trial is a model of its work held against peaks measured for two seconds.",
    "A winner among many noisy measurements is partly lucky: profiles were measured once more, "
    "unless they say otherwise.",
)
FIELDS = {
    "device_util": "utilisation",
    "quality_score": "quality",
    "peak_memory_gb": "peak memory",
    "power_w": "power and energy",
    "avg_temperature": "temperature",
    "bound": "what bounds a trial",
    "final_score": "score",
}


def _evaluated(study: StudyReading) -> str:
    """Say which return quality rests on."""
    if study.config.trainer is not None:
        return "the returns that the trainer told over the last quarter of its training"
    if study.references is not None and study.references.quality.num_evaluations > 1:
        return (
            "the mean over evaluations of the policy in fresh environments, as it was at a "
            "quarter, a half and three quarters of the training and at its end"
        )
    return "an evaluation of the final policy in fresh environments"


def how(study: StudyReading) -> dict[str, str]:
    """Return how each kind of number was measured, by what it is."""
    measured = [r for r in study.records if r.status == "success"]
    source = study.facts.get("util_source")
    memory = sorted({r.memory_source for r in measured if r.memory_source})
    told = {
        "Throughput": "The median of timed blocks after a warm-up on a copy of the state; no "
        "compile time is in it. Intervals are 95 %, for a fresh process.",
        "Utilisation": f"Read from {SOURCES.get(str(source), source or 'nothing yet')}, over the "
        "measuring window alone.",
        "Memory": f"Predicted from the compiled program; measured as {' or '.join(memory)}."
        if memory
        else "Predicted from the compiled program; no peak was measured.",
        "Quality": "Progress from the random policy's return to the best one's, lowered when the "
        f"policy collapses, losses explode or updates run wild; from {_evaluated(study)}.",
    }
    references = study.references
    if references is None:
        return told | {"Score": "Nothing is scored before the baseline has been measured."}
    weights = references.weights.as_dict()
    parts = {
        "gpu": f"{weights['gpu']:g} · min(1, utilisation / {FULL_UTIL:g} %)",
        "quality": f"{weights['quality']:g} · quality",
        "sps": f"{weights['sps']:g} · sps / (sps + {references.sps:,.0f})",
    }
    total = sum(weights[name] for name in references.components)
    scored = " + ".join(parts[name] for name in references.components)
    tie = "unknown" if references.epsilon is None else f"{references.epsilon:.4f}"
    budget = f"Every config trained for {references.env_steps:,} env-steps."
    if references.target_s is not None:
        budget = (
            f"Every config trained until a block returned {references.target_return:.4g}, or for "
            f"{TRAINING_SHARE:.0%} of --timeout; {references.target_s:.3g} s are the baseline's."
        )
    kept = KeptLearning.of(study.facts)
    if kept is not None:
        told["Quality"] += (
            f" Here it was kept from {kept.origin}: no trial was trained to its end or evaluated, "
            "and a profile's second measurement is of its speed alone."
        )
        budget = (
            "Every trial was timed only, for seconds; what is kept was learned in "
            f"{kept.env_steps:,} env-steps."
        )
    return told | {
        "Score": f"({scored}) / {total:g}; {references.sps:,.0f} env-steps/s are the baseline's. "
        f"At calibration, scores closer than {tie} could not be told apart.",
        "Budget": budget,
    }


def absences(study: StudyReading) -> dict[str, str]:
    """Return why a quantity is absent from every measurement, by what it is."""
    measured = [r for r in study.records if r.status == "success"]
    if not measured:
        return {"every measurement": "none has succeeded"}
    return {
        words: _why(study, name, measured)
        for name, words in FIELDS.items()
        if all(getattr(record, name) is None for record in measured)
    }


def _why(study: StudyReading, name: str, measured: list[TrialRecord]) -> str:
    reasons = {
        "device_util": next((r.util_reason for r in measured if r.util_reason), None),
        "quality_score": study.references and study.references.quality_reason,
        "final_score": "a component that the study uses was not measured",
        "bound": "the work of an update or the device's peaks were not measured",
    }
    source = study.facts.get("util_source") or "the device"
    return reasons.get(name) or f"{source} does not tell it"
