"""docs/samplers.md names what is there; its blocks are run by make docs-check, like those of every page."""

import re
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "samplers.md"


def test_what_it_refers_to_is_there():
    page = PAGE.read_text(encoding="utf-8")
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", page):
        assert (PAGE.parent / path).stat().st_size > 1000


def test_the_table_names_every_scheduler():
    from fpjax import schedulers

    page = PAGE.read_text(encoding="utf-8")
    assert all(name.removesuffix("Scheduler") in page for name in schedulers.SCHEDULERS)
