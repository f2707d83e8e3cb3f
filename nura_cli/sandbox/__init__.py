"""The embedded provider: both vendors' Batch APIs on loopback, of the standard library alone.

It imports nothing of nura, so that it cannot share nura's mistakes. Everything it knows stands in an SQLite file and a
folder beside it, so that several processes can serve the same batches, one after the other or at once. A batch is worked
on when somebody asks after it.

``server``, ``exchange``  HTTP: connections, bodies, what a fault does to an exchange
``openai_api``, ``openai_work``, ``openai_requests``  the one vendor: its routes, its batches, its single requests
``openai_files``, ``openai_tools``, ``openai_errors``  its files and uploads, the tools its requests force, its refusals
``anthropic_api``, ``anthropic_requests``, ``elements``  the other: its routes and batches, its single requests, its bodies
``work``, ``answers``, ``strict``  what both have in common: how a batch is answered, what is said, which schemas are refused
``quotas``  how much may wait, what it costs, and what is said when there is no more room or money
``store``  what is remembered, and every SQL statement
``faults``, ``desk``, ``control``  what can be made to go wrong; the control endpoint, and its client
"""

from nura_cli.sandbox.control import Control
from nura_cli.sandbox.server import Sandbox
from nura_cli.sandbox.store import Settings

__all__ = ["Control", "Sandbox", "Settings"]
