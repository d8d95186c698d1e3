"""Reports: what was scored, selected, or trained on, as a page to look at.

Importing this imports pyarrow; matplotlib and Jinja are imported when a report is made.
"""

from curator.report._columns import Choice
from curator.report._content import Report
from curator.report._folder import Written, check_folder, write_report
from curator.report._options import Options
from curator.report._scores import report_scores
from curator.report._session import report_session
from curator.report._subset import report_subset

__all__ = [
    "Choice",
    "Options",
    "Report",
    "Written",
    "check_folder",
    "report_scores",
    "report_session",
    "report_subset",
    "write_report",
]
