"""nura: a spool for LLM work, driven by cron.

Records piped into ``nura enqueue`` wait as tasks in one SQLite file; ``nura dispatch`` renders and packs them into
provider batches, ``nura poll`` brings the finished batches' results home, ``nura reconcile`` accounts for every task,
writes the answers back to the application's own records and triggers its events; cron chains the stages, and a crash
at any point loses nothing and pays for nothing twice.
"""

__version__ = "0.1.0"
