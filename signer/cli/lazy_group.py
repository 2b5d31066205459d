"""A click group that imports each command when it is used."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """A group that imports each command when it is used, so that ``--help`` is fast."""

    def __init__(self, *args: Any, table: Mapping[str, tuple[str, str, str]], **kwargs: Any) -> None:  # noqa: ANN401 - as click's
        """Create the group.

        Args:
            args: for click.
            table: for each command its module, its name in the module, and its line in ``--help``.
            kwargs: for click.
        """
        super().__init__(*args, **kwargs)
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        del ctx
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command."""
        del ctx
        if cmd_name not in self._table:
            return None
        module, attribute, _ = self._table[cmd_name]
        was_enabled = gc.isenabled()
        gc.disable()  # what modules create stays: looking for garbage takes an eighth of the import's time
        try:
            command: click.Command = getattr(import_module(module), attribute)
        finally:
            if was_enabled:
                gc.enable()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry[2]) for name, entry in self._table.items()])
