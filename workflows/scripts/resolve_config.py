"""Rule resolve_config: write the values of one run, as resolved when the workflow was read, if they are possible."""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path.cwd()))  # Snakemake runs scripts from its own folder; the code is in the repository's root

from shared.config import write_resolved  # noqa: E402

snakemake = globals()["snakemake"]  # put there by Snakemake
output, log = Path(snakemake.output[0]), Path(snakemake.log[0])
unchecked = output.with_name("unchecked_config.yaml")
write_resolved(unchecked, snakemake.params.resolved)
check = [sys.executable, "-m", f"replications.{snakemake.wildcards.paper}.config", str(unchecked)]
answer = subprocess.run(check, capture_output=True, text=True, check=False)
unchecked.unlink()
log.write_text(answer.stderr or f"wrote {output}\n", encoding="utf-8")
if answer.returncode != 0:
    sys.exit(answer.stderr)
write_resolved(output, snakemake.params.resolved)
