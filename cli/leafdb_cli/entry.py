"""The console script `leafdb`, where the extra that it needs may not be installed."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command line, or say what is missing. The base install has the script, but not what it is made with."""
    try:
        from leafdb_cli.main import main as run
    except ModuleNotFoundError as error:
        print(f"leafdb: {error.name} is missing: pip install 'leafdb[cli]'", file=sys.stderr)
        return 1
    run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
