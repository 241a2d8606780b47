"""The commands. Each parses its options, calls what does the work, and ends by saying where its results lie."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from inspect import getdoc
from typing import Annotated, Any, Union

import tyro
from tyro.conf import FlagCreatePairsOff, OmitArgPrefixes, subcommand

from ff3d.checks import one_line
from ff3d.cli.doctor import DoctorCommand
from ff3d.cli.labels import InspectCommand, LabelCommand, PrepareCommand, SamplesCommand
from ff3d.cli.options import say, standard_streams
from ff3d.cli.settings import Settings
from ff3d.cli.studies import BenchmarkCommand, CompareCommand, Executor, TuneCommand
from ff3d.cli.surfaces import EvaluateCommand, ExtractCommand, FitCommand, RenderCommand, ViewCommand
from ff3d.cli.theory import ImageCommand, LectureCommand, NtkCommand, SignalCommand
from ff3d.cli.watertight import WatertightCommand
from ff3d.geometry.cores import configure_process
from ff3d.progress import signals_as_interrupts

log = logging.getLogger("ff3d")


def main(argv: Sequence[str] | None = None, *, prog: str = "ff3d", only: str | None = None) -> int:
    """Run one command; return 0, or a non-zero code after one clear line (a traceback with --debug).

    only: the one command that a script of this name offers; its arguments then do not name it.
    """
    with standard_streams() as output, signals_as_interrupts():
        code = _run(list(sys.argv[1:] if argv is None else argv), prog, only)
        if output.lost:
            log.error("%s: standard output cannot be written (%s)", prog, output.fault)
        return code or int(output.lost)


def _run(arguments: list[str], prog: str, only: str | None) -> int:
    debug = "--debug" in arguments
    arguments = [it for it in arguments if it != "--debug"]
    if arguments == ["--version"]:
        from ff3d import __version__

        say(f"ff3d {__version__}")
        return 0
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        command = _parse(arguments, prog, only)
        _check_place()
        configure_process()
        return command()
    except KeyboardInterrupt as interrupt:
        log.error("%s: interrupted", prog)
        return 128 + getattr(interrupt, "number", signal.SIGINT)
    except Exception as error:
        if debug:
            raise
        log.error("%s: error: %s", prog, one_line(error))
        return 1


def _check_place() -> None:
    try:
        os.getcwd()
    except OSError:
        raise ValueError("the folder that this was started in is no more; change to another one") from None


def all_commands() -> dict[str, Any]:
    """Every command by name, with what its options are where they are not given."""
    missing: Any = tyro.MISSING
    settings = Settings()
    return {
        "fit": FitCommand(missing, settings),
        "compare": CompareCommand(missing, settings),
        "benchmark": BenchmarkCommand((), settings, Executor()),
        "tune": TuneCommand(missing, settings, Executor()),
        "extract": ExtractCommand(missing),
        "evaluate": EvaluateCommand(missing),
        "watertight": WatertightCommand(missing),
        "label": LabelCommand(missing, missing, missing),
        "prepare": PrepareCommand(missing, missing),
        "inspect": InspectCommand(missing),
        "samples": SamplesCommand(),
        "image": ImageCommand(missing),
        "signal": SignalCommand(),
        "ntk": NtkCommand(missing),
        "lecture": LectureCommand(missing),
        "view": ViewCommand(missing),
        "render": RenderCommand(missing, missing),
        "doctor": DoctorCommand(),
    }


def _parse(arguments: list[str], prog: str, only: str | None) -> Callable[[], int]:
    """The command that the arguments describe; a help ends with the command's examples."""
    commands = all_commands()
    try:
        return _parsed(arguments, prog, only, commands)
    except SystemExit as stop:
        if not stop.code and {"-h", "--help"} & set(arguments):
            say(_examples(commands, prog, only or next((it for it in arguments if it in commands), None), only is None))
        raise


def _examples(commands: dict[str, Any], prog: str, name: str | None, named: bool) -> str:
    """Two commands to try, of one command or (name None) of all; named: whether the program takes a command's name."""
    lines = (
        [f"{command} {commands[command].EXAMPLES[0]}" for command in ("compare", "watertight")]
        if name is None
        else [f"{name} {example}" if named else example for example in commands[name].EXAMPLES]
    )
    return "\n".join(["examples:", *(f"  {prog} {line}".rstrip() for line in lines)])


def _parsed(arguments: list[str], prog: str, only: str | None, commands: dict[str, Any]) -> Callable[[], int]:
    config: Any = (OmitArgPrefixes, FlagCreatePairsOff)
    if only:
        kind: Any = type(commands[only])
        alone: Callable[[], int] = tyro.cli(kind, default=commands[only], args=arguments, prog=prog, config=config)
        return alone
    # in the list of commands the first paragraph says enough
    ends = "\0" if commands.keys() & set(arguments) else "\n\n"
    about_each = {name: (getdoc(type(it)) or "").partition(ends)[0] for name, it in commands.items()}
    # mypy cannot follow a Union that is put together at run time
    choice: Any = Union[  # noqa: UP007
        tuple(
            Annotated[type(command), subcommand(name, default=command, description=about_each[name])]
            for name, command in commands.items()
        )
    ]
    about = (
        "ff3d: meshes to compact neural shapes. Each command has its own --help; --debug shows an error's traceback."
    )
    picked: Callable[[], int] = tyro.cli(choice, args=arguments, prog=prog, description=about, config=config)
    return picked
