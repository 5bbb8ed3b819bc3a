"""The `pavdm` command as a process: sets up signal handling and output streams before the slow imports."""

from __future__ import annotations

import sys

from pavdm_cli.runtime.interrupt import exit_interrupted


def main() -> None:
    """Entry point of `pavdm` and of `python -m pavdm_cli`."""
    try:
        from pavdm_cli.runtime import signals

        signals.install_signal_handlers()
        code = _run()
    except KeyboardInterrupt as interrupt:
        exit_interrupted(getattr(interrupt, "exit_code", 130))
    sys.exit(code)


def _run() -> int:
    """Run the command and flush both streams; returns the exit code."""
    from pavdm_cli.runtime import signals, streams

    streams.protect_streams()
    from pavdm_cli import app

    try:
        app.main()
        code = 0
    except SystemExit as exit_error:
        code = exit_error.code if isinstance(exit_error.code, int) else int(exit_error.code is not None)
    signals.exit_on_signal(code)
    code = streams.exit_code(code)
    signals.exit_on_signal(code)
    return code


if __name__ == "__main__":
    main()
