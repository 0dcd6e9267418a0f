"""One page of pictures about a divided dataset: whom it shows, what its captions are like, how its images look."""

from cleft_bundle.reports.describe.page import write_report

__all__ = ["write_report"]
