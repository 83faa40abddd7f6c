"""What `tuner validate` found, on the terminal."""

from rich.console import Console

from tuner.report.numbers import number
from tuner.report.paragraph import print_paragraph
from tuner.validate import EXIT_DRIFTED, EXIT_UNCLEAR, Validation

MARKS = {"holds": "✓", "drifted": "✗", "unclear": "?", "unmeasured": "–"}
CONCLUSIONS = {
    0: "the profile holds",
    EXIT_DRIFTED: "the profile no longer holds",
    EXIT_UNCLEAR: "this machine, as it is now, cannot tell",
}


def print_validation(found: Validation) -> None:
    """Print each check with what was promised and what was measured, then the conclusion."""
    console = Console(highlight=False)
    for check in found.checks:
        form = ",.0f" if (check.expected or 0.0) >= 100 else ".3g"
        unit = f" {check.unit}" if check.unit else ""
        told = (
            f"{check.what}: {number(check.measured, form)}{unit}, "
            f"promised {number(check.expected, form)}; {check.reason}"
        )
        print_paragraph(console, told, label=f"{MARKS[check.verdict]} ")
    console.print()
    print_paragraph(console, f"{CONCLUSIONS[found.exit_code]}: {found.reason}", indent=2)
