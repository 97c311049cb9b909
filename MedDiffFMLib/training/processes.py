"""Processes of one run (torchrun): who does which share, and vectors of all of them, with their gradients.

A loss that compares all samples of a batch with each other needs the vectors of all processes. Each process computes
those of its share and gets the others'; all then have the same loss of the whole batch. Its gradient by the own vectors
is taken as often as there are processes, since the mean over processes, which distributed training takes of the
weights' gradients, divides by as many: the result is the gradient of the whole batch in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from ..core.errors import InputError
from ..core.progress import CancelToken

Row = TypeVar("Row")


@dataclass(frozen=True)
class Processes:
    """Place of this process among those of a run; alone where nothing is said.

    Attributes:
        rank: of this process, from 0.
        count: of all.
        fabric: Lightning Fabric, which started them.
    """

    rank: int = 0
    count: int = 1
    fabric: Any = None

    @staticmethod
    def of(fabric: Any) -> Processes:
        """Those that Fabric has launched."""
        return Processes(fabric.global_rank, fabric.world_size, fabric)

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks for all."""
        return self.rank == 0

    def wait(self) -> None:
        """Return once all have come here."""
        if self.count > 1:
            self.fabric.barrier()

    def make(self, rows: Sequence[Row], make: Callable[[Sequence[Row]], object]) -> None:
        """Have each process make its share of what is kept on disk, and wait for all; one alone has nothing to share.

        Args:
            make: makes what is not there yet; called again with all rows it then finds everything.
        """
        if self.count > 1:
            make(rows[self.rank :: self.count])
            self.wait()

    def even_share(self, batch: int) -> slice:
        """Samples of a batch that are this process'.

        Raises:
            InputError: they cannot be divided evenly.
        """
        if batch % self.count:
            raise InputError(
                f"A batch of {batch} cannot be divided among {self.count} processes.",
                f"Give a multiple of {self.count}.",
            )
        each = batch // self.count
        return slice(self.rank * each, (self.rank + 1) * each)

    def share(self, rows: int) -> slice | list[int]:
        """Rows of this process of a batch of any size: as many for each, so that the last row may come twice."""
        if self.count == 1:
            return slice(rows)
        each = -(-rows // self.count)
        return [min(row, rows - 1) for row in range(self.rank * each, (self.rank + 1) * each)]

    def gathered(self, mine: torch.Tensor, rows: int) -> torch.Tensor:
        """Vectors (rows, ...) of all processes, of each those of its :meth:`share`; gradients go back to their own.

        Every process has to compute the same loss of them.
        """
        if self.count == 1:
            return mine
        gathered: torch.Tensor = _Gathered.apply(mine, self.rank, self.count)  # type: ignore[no-untyped-call]
        return gathered[:rows]

    def telling(self, report: Callable[[str], None], cancel: CancelToken | None = None) -> Callable[[str], None]:
        """A report of the first process alone; each call looks whether the user cancelled.

        Raises:
            Cancelled: when it is called, the user did.
        """

        def tell(line: str) -> None:
            if cancel is not None:
                cancel.check()
            if self.first:
                report(line)

        return tell


class _Gathered(torch.autograd.Function):
    """Rows of all processes, in the order of their ranks."""

    @staticmethod
    def forward(ctx: Any, mine: torch.Tensor, rank: int, count: int) -> torch.Tensor:  # type: ignore[override]
        ctx.rank, ctx.count = rank, count
        parts = [torch.empty_like(mine) for _ in range(count)]
        torch.distributed.all_gather(parts, mine.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:  # type: ignore[override]
        each = len(gradient) // ctx.count
        return ctx.count * gradient[ctx.rank * each : (ctx.rank + 1) * each], None, None
