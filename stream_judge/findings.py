"""What a check found, in one of three states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: `note`: a worker runs all the same, and somebody should read it once.
Status = Literal["ok", "note", "wrong"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    Attributes:
        what: What was checked.
        status: Whether it is as needed.
        detail: What was found, or what to do.
    """

    what: str
    status: Status
    detail: str

    @property
    def ok(self) -> bool:
        """Whether nothing has to be done; a note asks for nothing."""
        return self.status != "wrong"
