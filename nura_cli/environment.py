"""The environment variables that nura heeds, each with what it does; all others count for nothing, accounts' and addresses' too.

A test holds this list and the source together. Those that the configuration names (``*_env``, ``env``) are not among them.
"""

VARIABLES = {
    "NURA_CONFIG": "the configuration file, where `--config` names none",
    "XDG_CONFIG_HOME": "folder of `nura/config.yaml`, where neither of these names one; else `~/.config`",
    "HOME": "stands for `~` in paths; commands that nura runs for events get it",
    "PATH": "where programs of the configuration are looked for; commands that nura runs for events get it",
    "NURA_LOG": "`info`: tell each decision with its reason; `debug`: each exchange with a provider, too",
    "SUDO_USER": "who is named beside root for what was done under sudo",
    "TZ": "the local time of `nura log`",
    "TMPDIR": "where temporary files lie: events on their way to a command, the folder of `nura demo`",
    "COLUMNS": "width of tables and of help, instead of the terminal's",
    "NO_COLOR": "no colours, also on a terminal",
    "FORCE_COLOR": "colours, also off a terminal",
    "TERM": "`dumb`: neither colours nor progress",
    "HTTPS_PROXY": "the proxy to providers at `https://` addresses; never to webhooks",
    "HTTP_PROXY": "likewise, at `http://` addresses",
    "ALL_PROXY": "likewise, for both",
    "NO_PROXY": "hosts that are spoken to without a proxy",
    "SSL_CERT_FILE": "certificates that servers are checked with, instead of the system's",
    "SSL_CERT_DIR": "folder of such certificates",
    "_NURA_COMPLETE": "set by the shell's completion script, as the next two are; nothing for people",
    "COMP_WORDS": "the line that bash completes",
    "_TYPER_COMPLETE_ARGS": "the line that another shell completes",
}
