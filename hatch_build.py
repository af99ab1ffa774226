"""A wheel with compiled modules, for who asks for one: `LEAFDB_COMPILE=1 pip install .` needs a C compiler.

The modules on the way of a hot read are compiled as they are, by mypyc: no line of them is written for it, and the
wheel without, which is what everybody gets who does not ask, passes the same tests (tests/system/test_compiled.py).
bench/results says what it brings.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VARIABLE: Final = "LEAFDB_COMPILE"
MODULES: Final = (
    "leafdb/storage/block.py",
    "leafdb/storage/block_cache.py",
    "leafdb/storage/damaged_table.py",
    "leafdb/storage/sstable_reader.py",
)


class CompiledModules(BuildHookInterface[Any]):
    """Puts what mypyc makes of MODULES beside them."""

    @property
    def _asked(self) -> bool:
        return self.target_name == "wheel" and os.environ.get(VARIABLE) == "1"

    def dependencies(self) -> list[str]:
        """What the build needs, if it is asked to compile."""
        return ["mypy>=1.14", "setuptools>=75"] if self._asked else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile in a copy of the sources. An editable installation stays as it is: sources that are edited and
        never run would be a trap."""
        if not self._asked or version == "editable":
            return
        self._place = Path(tempfile.mkdtemp(prefix="leafdb-compile-"))
        shutil.copytree(Path(self.root) / "src", self._place, dirs_exist_ok=True)
        # The dependencies are not there while it is built: what comes from them is taken as it comes.
        Path(self._place, "mypy.ini").write_text("[mypy]\nignore_missing_imports = True\nfollow_imports = silent\n")
        subprocess.run([sys.executable, "-m", "mypyc", *MODULES], cwd=self._place, check=True)
        made = [path for path in self._place.rglob("*.so") if "build" not in path.relative_to(self._place).parts]
        assert len(made) > len(MODULES), f"mypyc made {made}"  # one for each, and what they share
        for path in made:
            build_data["force_include"][str(path)] = str(path.relative_to(self._place))
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the copy."""
        if self._asked and version != "editable":
            shutil.rmtree(self._place)
