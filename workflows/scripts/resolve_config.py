"""Rule resolve_config: write the values of one run, as resolved when the workflow was read."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))  # Snakemake runs scripts from its own folder; the code is in the repository's root

from shared.config import write_resolved  # noqa: E402

snakemake = globals()["snakemake"]  # put there by Snakemake
write_resolved(Path(snakemake.output[0]), snakemake.params.resolved)
Path(snakemake.log[0]).write_text(f"wrote {snakemake.output[0]}\n", encoding="utf-8")
