"""nura check: all that can be found without paying, before the first batch or after a change.

Takes the configuration and the state file as they lie there; writes nothing, takes no lock, and prints no secret. Each part is
looked at by itself: what is wrong with one hides nothing of the others. With ``online`` each provider's list of batches is
asked for once, which is free.

What can go wrong is what it is there to find: each failure is a problem of the report.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from nura_cli import config as configuration
from nura_cli import contract, providers
from nura_cli.clock import Clock, now, span
from nura_cli.config import Config, ProviderConfig
from nura_cli.errors import ConfigError, NuraError
from nura_cli.pipeline import check_state, check_workload
from nura_cli.pipeline.accounts import address
from nura_cli.pipeline.findings import Finding, fail, ok, open_to_others, placed, warn
from nura_cli.pipeline.report import Report, bug, counted
from nura_cli.state.file import unforeseen

_CLOCKS_APART = 300
"""Seconds by which this machine's clock and a provider's may differ."""


class Checked(NamedTuple):
    """What is looked at: the configuration file, the state file where ``--state`` names one, whether providers are asked."""

    path: Path
    state: Path | None = None
    online: bool = False
    clock: Clock = now


def run(checked: Checked, *, told: Callable[[Finding], None] = lambda found: None) -> Report:
    """Look at everything, telling each finding as it comes; the report has them all, and the failures as its problems."""
    findings = []
    for found in _everything(checked):
        told(found)
        findings.append(found)
    result: contract.Checked = {"checks": [found.as_dict() for found in findings]}
    return Report(result, [found.problem for found in findings if found.problem is not None])


def _everything(checked: Checked) -> Iterator[Finding]:
    try:
        config, problems = configuration.sound_part(checked.path)
    except ConfigError as error:
        yield from fail("configuration", error)
        return
    if problems:
        yield from fail("configuration", ConfigError("", path=checked.path, problems=problems))
    if config is None:
        return
    yield _summary(config, bool(problems))
    broken = set()
    for found in _others(config, checked):
        if found.problem is not None:
            broken.add(found.part)
        yield found
    for name in config.workloads:
        yield from apart(config, "workload", name, check_workload.workload(name, config, broken))
    yield from apart(config, "state", "", check_state.state(checked.state or config.state, checked.clock()))


def _others(config: Config, checked: Checked) -> Iterator[Finding]:
    """Look at what workloads need: providers and databases."""
    for name, provider in config.providers.items():
        yield from apart(config, "provider", name, _provider(name, provider, checked, config))
    for name in config.databases:
        yield from apart(config, "database", name, check_workload.database(name, config))


def _summary(config: Config, partly: bool) -> Finding:
    parts = counted(len(config.workloads), "workload"), counted(len(config.providers), "provider")
    said = f"{config.path}: {', '.join([*parts, counted(len(config.databases), 'database')])}"
    if partly:
        return warn("configuration", f"{said} are looked at; the others once those are mended")
    return ok("configuration", said)


def apart(config: Config, kind: str, name: str, findings: Iterable[Finding]) -> Iterator[Finding]:
    """Yield findings about one part, each with its place; an error on the way is one of them, and ends that part alone."""
    part, where = f"{kind} {name}".strip(), f"{kind}s.{name}" if name else kind
    try:
        for found in findings:
            yield placed(found._replace(part=part), config)
    except NuraError as error:
        yield from (placed(found, config) for found in fail(part, error, where))
    except Exception as error:
        if not unforeseen(error):
            raise
        unknown = bug(error, part)
        yield Finding("fail", part, unknown.message, unknown.hint, unknown)


def _provider(name: str, provider: ProviderConfig, checked: Checked, config: Config) -> Iterator[Finding]:
    if provider.kind == "sandbox":
        yield ok("", f"embedded, speaks like {provider.dialect}; it needs no key, and no network")
        return
    provider.secret()
    yield ok("", f"{address(provider)}: the key can be read{_from(provider)}")
    yield from open_to_others("", "api_key_file", provider.api_key_file)
    if checked.online:
        yield from _online(name, config, checked)


def _from(provider: ProviderConfig) -> str:
    """Return where a key comes from, where a run of cron may not have it."""
    return f", from the environment ({provider.api_key_env}), which cron's is not" if provider.api_key_env else ""


def _online(name: str, config: Config, checked: Checked) -> Iterator[Finding]:
    """Ask a provider for a page of its list of batches."""
    provider = providers.connect(name, config.providers[name], checked.state or config.state)
    try:
        page = provider.page()
    finally:
        provider.close()
    yield ok("", "takes the key, and lists its batches")
    apart_by = 0 if page.date is None else checked.clock() - page.date
    if abs(apart_by) > _CLOCKS_APART:
        what = (
            f"this machine's clock is {span(abs(apart_by))} {'ahead of' if apart_by > 0 else 'behind'} the provider's"
        )
        yield warn("", what, "set the clock: times decide when batches are looked for, and given up")
