"""One-page reports of a case, PDF and HTML: checked before computing, written with the other results or not at all."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.atomic_files import atomic_path, check_output
from ..core.errors import InputError
from ..tasks.registry import TASKS
from .outputs import OutputPlan, located, make_folder

if TYPE_CHECKING:
    from ..pages.content import Page
    from ..tasks.base import Case, TaskResult

BESIDE = Path("")
"""In place of a file: beside the result, called as that is."""
PAPERS = ("a4", "letter")


@dataclass(frozen=True)
class PageFiles:
    """Which pages are wanted, and where.

    Attributes:
        pdf, html: file, BESIDE, or None for none.
        paper: of the PDF, in PAPERS.
    """

    pdf: Path | None = None
    html: Path | None = None
    paper: str = PAPERS[0]

    def __post_init__(self) -> None:
        for suffix, path in ((".pdf", self.pdf), (".html", self.html)):
            if path is not None and path != BESIDE and path.suffix.lower() != suffix:
                option = f"--{suffix[1:]}"
                raise InputError(
                    f"'{path}' is no {suffix} file.",
                    f"Give {option} a name that ends with {suffix}, or put {option} last to have it beside the result.",
                )

    def files(self, plan: OutputPlan) -> dict[str, Path]:
        """Suffix -> file, of those that are wanted."""
        wanted = {".pdf": self.pdf, ".html": self.html}
        beside = {suffix: plan.folder / f"{plan.base}{suffix}" for suffix in wanted}
        return {s: beside[s] if path == BESIDE else path for s, path in wanted.items() if path is not None}

    def beside_each(self) -> None:
        """Refuse one file for many cases.

        Raises:
            InputError: there is one.
        """
        for option, path in (("--pdf", self.pdf), ("--html", self.html)):
            if path not in (None, BESIDE):
                raise InputError(
                    f"'{path}' cannot hold the reports of several cases.",
                    f"With --batch give {option} without a file: each report lies beside its result.",
                )


NO_PAGES = PageFiles()


def check_pages(pages: PageFiles, plan: OutputPlan, overwrite: bool) -> None:
    """Refuse before anything is computed what could not be written afterwards.

    Raises:
        OutputError: a file exists, or its folder cannot be used.
    """
    for path in pages.files(plan).values():
        check_output(path, overwrite=overwrite)
        make_folder(path.parent)


@contextlib.contextmanager
def paged(
    pages: PageFiles,
    plan: OutputPlan,
    case: Case,
    result: TaskResult,
    report: dict[str, Any],
    overwrite: bool,
    name: str,
) -> Iterator[None]:
    """Write the pages of a case; when the block fails they are as they were.

    Args:
        name: of the case; empty to name none.
    """
    files = pages.files(plan)
    if not files:
        yield
        return
    content = rendered(pages, _page(case, result, report, name))
    with contextlib.ExitStack() as stack:
        for suffix, path in files.items():
            stack.enter_context(atomic_path(path, overwrite=overwrite)).write_bytes(content[suffix]())
        yield


def _page(case: Case, result: TaskResult, report: dict[str, Any], name: str) -> Page:
    from ..pages.layout import Subject, page_of

    task = TASKS[report["settings"]["task"]]
    return page_of(Subject(task, name, case, result, report, lambda output: located(output, case.volume, result)))


def rendered(pages: PageFiles, page: Page) -> dict[str, Callable[[], bytes]]:
    """Suffix -> what gives the file's content."""
    from ..pages.html import as_html
    from ..pages.pdf import as_pdf

    return {".pdf": lambda: as_pdf(page, pages.paper), ".html": lambda: as_html(page).encode("utf-8")}
