"""A command group whose default command needs no name: `pavdm evaluate VIDEO`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pavdm_cli.commands.common import Command, Group

Context: Any = Command.context_class  # not exported by Typer


class DefaultContext(Context):  # type: ignore[misc]
    """The context of a default command."""

    @property
    def command_path(self) -> str:
        """The command as it is typed, without the default command's name."""
        assert self.parent
        return str(self.parent.command_path)


class DefaultGroup(Group):
    """A command group with a default command, which is never typed, so that a file may have its name."""

    default_command: ClassVar[str]

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As usual, with the default command's name in front where no other command is meant."""
        if args and args[0] not in ctx.help_option_names and not self._is_other_command(args):
            args = [self.default_command, *args]
        return super().parse_args(ctx, args)

    def _is_other_command(self, args: list[str]) -> bool:
        """Whether the first argument is a command; alone, the name of an existing file or folder is none."""
        is_path = len(args) == 1 and Path(args[0]).exists()
        return args[0] in {*self.commands} - {self.default_command} and not is_path

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command; the default one is shown without its name."""
        command: Any = super().get_command(ctx, cmd_name)
        if cmd_name == self.default_command:
            command.context_class = DefaultContext
        return command

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """The help of the default command, which tells of the others."""
        command = self.get_command(ctx, self.default_command)
        command.format_help(DefaultContext(command, ctx, self.default_command), formatter)
