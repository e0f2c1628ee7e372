"""Settings of the report.

In:  recipe table [report].  Out: a frozen dataclass; no torch.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class ReportConfig:
    """What the page shows where it cannot show all."""

    languages: int = 15  # languages shown one by one, the others together
    samples_right: int = 3  # infilled lines shown that are exactly right
    samples_wrong: int = 5  # infilled lines shown that are not
