"""Obtain the authors' score files at their pinned commits, each checked by its sha256.

    python -m workflows.scripts.obtain_published --target results/published

A file that a local mirror has (the folder in REFERENCE_DIR, or ../shared/reference) is copied from there; else it is
downloaded from the repository and commit that data/reference/published.yaml names. A wrong checksum is an error.
"""

import argparse
import sys
import urllib.error
import urllib.request
from pathlib import Path

from shared.checkpoint import write_whole
from shared.diff.published import Release, check, folder, releases
from shared.errors import UserError, cli

HOST = "https://raw.githubusercontent.com"
SECONDS = 60  # to wait for an answer


def address(host: str, release: Release, name: str) -> str:
    """Where a file of a release is."""
    origin = release.origin
    return f"{host}/{origin['repository']}/{origin['commit']}/{origin['folder']}{Path(name).name}"


def fetch(url: str) -> bytes:
    """The bytes at an address; UserError with the way out where there are none."""
    try:
        with urllib.request.urlopen(url, timeout=SECONDS) as answer:
            return answer.read()
    except (urllib.error.URLError, TimeoutError) as error:
        raise UserError(
            f"{url}: {error}; without a network give a copy: REFERENCE_DIR=FOLDER. The derived tables in "
            "data/reference serve without either"
        ) from None


def obtain(target: Path, host: str, mirror: Path | None) -> dict[str, str]:
    """Every file of every release below target. Returns name -> where it came from (kept, mirror, or its address)."""
    came = {}
    for release in releases().values():
        for name, sha256 in release.files.items():
            path, copy = target / name, mirror / name if mirror else None
            if name in came:
                continue
            if path.is_file():
                check(path, path.read_bytes(), sha256)
                came[name] = "kept"
                continue
            local = copy is not None and copy.is_file()
            url = str(copy) if local else address(host, release, name)
            data = copy.read_bytes() if local else fetch(url)
            check(Path(url), data, sha256)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, data)
            came[name] = "mirror" if local else url
    return came


@cli
def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m workflows.scripts.obtain_published", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--target", type=Path, default=Path("results/published"), help="where to put the files")
    parser.add_argument("--host", default=HOST, help="where to download from (file:///... will do)")
    parser.add_argument("--no-mirror", action="store_true", help="do not look for a local copy")
    options = parser.parse_args(arguments)
    came = obtain(options.target, options.host, None if options.no_mirror else folder())
    counts = {kind: sum(value == kind for value in came.values()) for kind in ("kept", "mirror")}
    downloaded = len(came) - sum(counts.values())
    told = f"{counts['kept']} kept, {counts['mirror']} copied, {downloaded} downloaded"
    print(f"{options.target}: {len(came)} files, {told}")
    print(f"use them with REFERENCE_DIR={options.target.resolve()}")


if __name__ == "__main__":
    sys.exit(main())
