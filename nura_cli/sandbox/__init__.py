"""The embedded provider: both vendors' Batch APIs on loopback, of the standard library alone.

It imports nothing of nura, so that it cannot share nura's mistakes. Everything it knows stands in an SQLite file and a
folder beside it, so that several processes can serve the same batches, one after the other or at once.
"""

from nura_cli.sandbox.control import Control
from nura_cli.sandbox.server import Sandbox
from nura_cli.sandbox.store import Settings

__all__ = ["Control", "Sandbox", "Settings"]
