"""One thing that needs a person, whatever it is: the entry of ``attention`` in ``--json``, and a line of ``nura status``."""

from typing import TYPE_CHECKING, NamedTuple

from nura_cli import scrub
from nura_cli.states import NeedKind

if TYPE_CHECKING:
    from nura_cli import contract


class Need(NamedTuple):
    """One thing that needs a person: what it is, what to type, and what it concerns, where that is one of each."""

    kind: NeedKind
    message: str
    hint: str
    batch_id: int | None = None
    provider: str | None = None
    workload: str | None = None

    def as_dict(self) -> "contract.Need":
        """Return the entry of ``attention`` in ``--json``."""
        return {
            "kind": str(self.kind),
            "workload": self.workload,
            "batch_id": self.batch_id,
            "provider": self.provider,
            "message": scrub.clean(self.message),
            "hint": self.hint,
        }
