"""What replays come to, as tables for a terminal."""

from typing import Any

from replay_figures import LONGEST, SHARES

from tuner.profiles import PROFILE_NAMES


def in_words(document: dict[str, Any]) -> str:
    """Return the tables of all methods: over all tables, by profile, and by table."""
    last = str(SHARES[-1])
    lines = [
        f"{len(document['noise'])} tables, {document['seeds']} seeds each; normalised regret (0: "
        "as what all measurements would export, 1: the median config)",
        f"{'balanced':26s} " + " ".join(f"{f'at {share:.0%}':>18s}" for share in SHARES)
        + f" {'within 10 %':>12s} {'to 5 %':>8s} {'P':>6s} {'OOM':>4s} {'trials':>7s}  judged",
    ]  # fmt: skip
    for method, found in document["methods"].items():
        told = found["balanced"]
        cells = [_regret(told, str(share)) for share in SHARES]
        lines.append(
            f"{method:26s} " + " ".join(f"{cell:>18s}" for cell in cells)
            + f" {_success(told):>12s} {_to_near(told):>8s} {_number(told.get('p_score')):>6s}"
            + f" {found['ooms']:4d} {found['trials'][last]:7.1f}"
            + f"  {told['judged']} of {found['replays']}"
        )  # fmt: skip
    if (random := document["methods"].get("random")) is not None:
        lines.append(
            f"{'random, exactly':26s} "
            + " ".join(f"{_number(random['random_exactly'][str(s)]):>18s}" for s in SHARES)
            + "   of as many trials, were the highest score exported"
        )
    lines += [
        f"within 10 % (of the gap from the median config to the best): at {SHARES[-2]:.0%} and "
        f"{SHARES[-1]:.0%}; trials, the baseline among them: at {SHARES[-1]:.0%}",
        f"to 5 %: share of the table until that is first reached, before finalists (never: not by "
        f"{LONGEST:.0%})",
        "judged: the rest is on halves that cannot tell the best from the median",
        "intervals: over environments, halves and seeds; of few environments they are too narrow, "
        "of one little more than the range of its halves",
    ]
    lines += [
        f"{ours} against {method}, seed by seed: lower by {_interval(gap)}; each half: "
        + " ".join(f"{value:.2f}" for value in gap["by_half"])
        for ours, gaps in document["ahead"].items()
        for method, gap in gaps.items()
        if gap is not None
    ]
    lines += ["", _heading("profile")]
    for profile in PROFILE_NAMES[1:]:
        lines += [_row(profile, m, found[profile]) for m, found in document["methods"].items()]
    lines += [
        "",
        _heading("table, balanced") + "  each half searched; seconds to 5 %: median, 90 %",
    ]
    for name, methods in document["tables"].items():
        lines += [
            _row(name, method, found["balanced"]) + _detail(found["balanced"])
            for method, found in methods.items()
        ]
    lines.append("")
    for name, told in document["noise"].items():
        good = ["all tied" if n is None else str(n) for n in told["good"]]
        gap = [f"{ties:.1f}" for ties in told["gap"]]
        lines += [
            f"{name}: {told['configs']} configs, {told['measurements']} measurements "
            f"({told['disturbed']} disturbed; {told['once']:.0f} configs once in a half); "
            f"the halves rank configs alike by {told['agreement']:.2f} (Spearman)",
            f"{name}, where the one half is searched, and the other: within 10 % of the best: "
            f"{' and '.join(good)}; it lies {' and '.join(gap)} ties above the median",
        ]
    return "\n".join(lines)


def _heading(what: str) -> str:
    share = f"at {SHARES[-1]:.0%}"
    return (
        f"{what:26s} {'method':26s} {share:>18s} {'within 10 %':>12s} {'to 5 %':>8s} {'P':>6s} "
        f"{'judged':>7s}"
    )


def _row(what: str, method: str, told: dict[str, Any]) -> str:
    return (
        f"{what:26s} {method:26s} {_regret(told, str(SHARES[-1])):>18s} {_success(told):>12s} "
        f"{_to_near(told):>8s} {_number(told.get('p_score')):>6s} {told['judged']:7d}"
    )


def _detail(told: dict[str, Any]) -> str:
    """Return how often the search of each half came within 10 %, and its device-seconds to 5 %."""
    if not told["judged"]:
        return ""
    halves = " ".join(f"{v:.0%}" for v in told["regret"][str(SHARES[-1])]["success_by_half"])
    seconds = [told["device_s_to_5pct"][rank] for rank in ("median", "p90")]
    return f"  {halves:>9s}; " + ", ".join("never" if s is None else f"{s:,.0f}" for s in seconds)


def _regret(told: dict[str, Any], share: str) -> str:
    return _interval(told["regret"][share]["mean"]) if told["judged"] else "tied"


def _success(told: dict[str, Any]) -> str:
    if not told["judged"]:
        return ""
    return ", ".join(f"{told['regret'][str(s)]['success']['value']:.0%}" for s in SHARES[-2:])


def _to_near(told: dict[str, Any]) -> str:
    if not told["judged"]:
        return ""
    median = told["share_to_5pct"]["median"]
    return "never" if median is None else f"{median:.1%}"


def _interval(estimate: dict[str, float]) -> str:
    return f"{estimate['value']:.2f} [{estimate['lower']:.2f},{estimate['upper']:.2f}]"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
