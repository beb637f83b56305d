"""The command line: `ampmm COMMAND`; one file a command, imported only when it runs."""

import importlib
import warnings

import click

COMMANDS = (
    "simulate", "sample", "select", "label", "train", "evaluate", "export", "import-weights", "models", "info", "benchmark"
)  # fmt: skip


class LazyGroup(click.Group):
    """Imports a command's file only when that command is asked for, so `ampmm --help` answers at once."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"ampmm.cli.{name.replace('-', '_')}").command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="ampmm")
def group() -> None:
    """ML/MM molecular dynamics with anisotropic message passing (AMP) in OpenMM."""


def main() -> None:
    """Run the command line; ampmm's own errors and those of files end it with their message and exit code 1."""
    from ampmm import errors

    own_errors = tuple(value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception))
    warnings.formatwarning = lambda message, *_, **__: f"warning: {message}\n"  # without the line that gave it
    try:
        group(standalone_mode=True)
    except (*own_errors, OSError) as error:  # a full disk, a folder that cannot be written
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(1) from None
