"""Does a wheel hold every file that ampmm reads at run time? Run by .ci/run: `check_wheel.py WHEEL`."""

import sys
import zipfile
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[2] / "ampmm"


def missing_files(wheel: Path) -> list[str]:
    """The package's files, sources and data, that are not in the wheel."""
    wanted = {
        f"ampmm/{file.relative_to(PACKAGE).as_posix()}"
        for file in PACKAGE.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix in (".py", ".pt", ".txt", ".md")
    }
    return sorted(wanted - set(zipfile.ZipFile(wheel).namelist()))


if __name__ == "__main__":
    path = Path(sys.argv[1])
    missing = missing_files(path)
    if missing:
        sys.exit(f"{path.name} lacks {', '.join(missing)}")
    print(f"{path.name}: {path.stat().st_size / 1e6:.1f} MB, complete")
