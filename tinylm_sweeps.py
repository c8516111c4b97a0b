"""The `sweeps` script, and what `make sweep` starts: the one command, if Python finds our package.

Another distribution on PyPI, `sweeps` by Weights & Biases, installs a package of the same name. This
module lies outside the package, so that it can say so.
"""

import signal
import sys
from importlib.util import find_spec
from pathlib import Path


def other_package() -> str | None:
    """Where Python finds a package `sweeps` that is not ours; None if it is ours.

    Ours has a module `ledger`. The package is looked at and not imported: that would run somebody
    else's code.
    """
    spec = find_spec("sweeps")
    if spec is None:
        return "nowhere"
    if spec.origin is None:  # a folder without __init__.py
        return ", ".join(spec.submodule_search_locations or ())
    return None if Path(spec.origin).with_name("ledger.py").is_file() else spec.origin


def main() -> None:
    """Run the one command; exit code 2 if another package has its name.

    SIGINT ends the program in silence until the command listens to it (`tinylm.exits.reported`).
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    other = other_package()
    if other is not None:
        print(
            f"the package `sweeps` that Python finds ({other}) is not that of tinylm-sweeps: run "
            "`pip uninstall sweeps` and reinstall tinylm-sweeps, or use an environment of its own",
            file=sys.stderr,
        )
        raise SystemExit(2)
    from sweeps.__main__ import main as run

    run()


if __name__ == "__main__":
    main()
