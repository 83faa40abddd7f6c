"""The document of `measurement.py` as tables for people."""

import math
from typing import Any


def in_words(document: dict[str, Any]) -> str:
    """Return the document as tables."""
    lines = [f"{document['device']['name']}, {document['command']}", ""]
    if "profile" in document:
        low, high = document["recorded_ci95"] or (math.nan, math.nan)
        lines.append(f"recorded {document['recorded_sps']:,.0f} ({low:,.0f}–{high:,.0f})")
        for sps, steal in zip(document["sps"], document["steal_percent"], strict=True):
            lines.append(f"again    {sps:,.0f}   steal {_percent(steal)}")
        lines.append(f"coefficient of variation {document['sps_cv']:.1%}")
        return "\n".join(lines)
    repeated, covered = document["sps_cv"], document["interval_coverage"]
    lines.append(
        f"{'config':>20} {'SPS cv':>8} {'to probe':>9} {'memory cv':>10} {'util cv':>8}  disturbed"
    )
    for row in repeated["configs"]:
        names = ("sps", "sps_per_reach", "peak_memory_gb", "device_util")
        shares = [_share(row[f"{name}_cv"]) for name in names]
        lines.append(
            f"{row['config']:>20} {shares[0]:>8} {shares[1]:>9} {shares[2]:>10} {shares[3]:>8}  "
            f"{row['contaminated']} of {len(row['sps'])}"
        )
    low, high = covered["wilson95"]
    lines.append(
        f"\nintervals held {covered['share']:.0%} of {covered['runs']} re-runs "
        f"({low:.0%}–{high:.0%}); they were ±{covered['relative_half_width']:.0%} wide"
    )
    lines.append(f"\n{'config':>20} {'predicted MB':>13} {'measured MB':>12} {'error':>7}")
    for row in document["memory_error"]["grid"]:
        lines.append(
            f"{row['config']:>20} {row['predicted_mb']:>13.1f} {row['measured_mb']:>12.1f} "
            f"{_share(row['error']):>7}"
        )
    cost = document["monitor_overhead"]
    bounds = cost["sps_loss_ci95"]
    spread = f" ({bounds[0]:+.1%} to {bounds[1]:+.1%})" if bounds else ""
    lines.append(
        f"\nmonitor: {cost['own_cpu_percent']['median']:.2f} % of the time it watches (at most "
        f"{cost['own_cpu_percent']['max']:.2f} %); SPS lost {cost['sps_loss']:+.1%}{spread} in "
        f"{cost['pairs']} pairs"
    )
    return "\n".join(lines)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _percent(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.0f} %"
