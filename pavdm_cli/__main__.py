"""The `pavdm` command as a process: signals and streams are made safe before anything that takes time to import."""

from __future__ import annotations

import sys

from pavdm_cli.runtime.interrupt import exit_interrupted


def main() -> None:
    """The console script, which is `python -m pavdm_cli` too."""
    try:
        from pavdm_cli.runtime import signals

        signals.end_on_signals()
        code = _run()
    except KeyboardInterrupt as interrupt:
        exit_interrupted(getattr(interrupt, "exit_code", 130))
    sys.exit(code)


def _run() -> int:
    """Run the command; its exit code, once both streams have been flushed."""
    from pavdm_cli.runtime import signals, streams

    streams.protect_streams()
    from pavdm_cli import app

    try:
        app.main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    signals.end_with(code)
    code = streams.exit_code(code)
    signals.end_with(code)
    return code


if __name__ == "__main__":
    main()
