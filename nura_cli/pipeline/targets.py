"""Where a workload's answers go: the application's table, and its receivers by name."""

import hashlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from nura_cli.config import Config, DatabaseConfig, EventConfig, WorkloadConfig, WriteBackConfig
from nura_cli.errors import ConfigError, ConfigProblem, DatabaseDown
from nura_cli.pipeline.plans import plan_of
from nura_cli.state import State, outbox

if TYPE_CHECKING:
    from nura_cli.delivery.write_back import WriteBack


def label_of(event: EventConfig) -> str:
    """Return a receiver's name for messages: its program, or its address's host."""
    if event.webhook is not None:
        return f"webhook {'/'.join(event.webhook.split('?')[0].split('/')[:3])}"
    return f"command {(event.command or ['?'])[0]}"


def write_back_of(workload: WorkloadConfig, config: Config) -> "WriteBack":
    """Return the table a workload's answers go to; nothing is opened yet. Raises ConfigError: its URL is not to be had."""
    from nura_cli.delivery.write_back import WriteBack

    options = workload.write_back
    if options is None:
        raise ConfigError(f"workload {workload.name} has no write_back", workload=workload.name)
    return WriteBack(
        config.databases[options.database].secret(),
        table=options.table,
        where=options.where,
        set_=options.set_,
        only_if=options.only_if,
        set_failed=options.set_failed,
        set_cancelled=options.set_cancelled,
        nullable=options.nullable,
        ledger=options.ledger,
        path=f"workloads.{workload.name}.write_back",
    )


def checked(state: State, workload: WorkloadConfig, config: Config, *, note: bool = True) -> None:
    """See that a workload's answers will have somewhere to go, before anything is sent and paid for.

    A database that cannot be asked now holds nothing up where these very options were found right before.

    Args:
        note: remember that they were found right.

    Raises:
        ConfigError: database, table, columns or expressions are wrong, or a command of its events cannot be run, or a webhook's
            secret cannot be read; with every problem, each at its option.
        DatabaseDown: it cannot be asked now, and never was.
    """
    check_receivers(workload)
    options = workload.write_back
    if options is None:
        return
    name, digest = f"write_back:{workload.name}", _digest(options, config.databases[options.database])
    try:
        with write_back_of(workload, config) as table:
            table.check()
    except DatabaseDown as error:
        if outbox.known_good(state.db, name) == digest:
            return
        raise DatabaseDown(
            error.message, hint="nothing is sent before the table could be looked at once", workload=workload.name
        ) from error
    if note and outbox.known_good(state.db, name) != digest:
        with state.transaction() as db:
            outbox.remember_good(db, name, digest)


def check_receivers(workload: WorkloadConfig) -> None:
    """See that a workload's events could be told. Raises ConfigError: a program or a secret is not there."""
    problems = [
        ConfigProblem(f"workloads.{workload.name}.events.{n}.{option}", None, why)
        for n, event in enumerate(workload.events)
        for option, why in _receiver_faults(event)
    ]
    if problems:
        text = "\n".join(f"{one.where}: {one.message}" for one in problems)
        raise ConfigError(text, problems=problems, workload=workload.name)


def _receiver_faults(event: EventConfig) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with a receiver. A secret out of the environment is looked at when it is needed: reconcile may have
    one, and dispatch, run by hand, none.
    """
    from nura_cli.delivery import events

    if event.command is not None and (why := events.not_to_be_run(event.command)):
        yield "command", why
    if event.secret_file is not None:
        try:
            events.check_secret(event.secret())
        except ConfigError as error:
            yield "secret_file", error.message.removeprefix("secret_file: ")


def follow(state: State, config: Config) -> None:
    """Let events that wait for a receiver go to its address of today, where that alone has changed."""
    for one in outbox.left(state.db):
        if (one.kind, one.status) == ("event", "pending") and one.workload in config.workloads:
            planned = outbox.kept_plan(state.db, one.batch_id)
            heir = planned.moved(plan_of(config, one.workload)).get(one.target)
            if heir is not None:
                with state.transaction() as db:
                    outbox.readdress(db, one, heir)


def _digest(options: WriteBackConfig, database: DatabaseConfig) -> str:
    """Return a hash of what was checked; the URL is part of it only where it stands, without a secret, in the file."""
    return hashlib.sha256((options.model_dump_json() + database.model_dump_json()).encode()).hexdigest()
