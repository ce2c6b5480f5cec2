# Contents of the workflow.  snakemake --profile workflows/profiles/smoke     (or: make figures SCALE=smoke)
from snakemake.utils import min_version

min_version("9.0")


configfile: "workflows/config.yaml"


report: "workflows/report/overview.rst"


include: "workflows/common.smk"
include: "workflows/runs.smk"
include: "workflows/core.smk"
include: "workflows/planet.smk"
include: "workflows/dreamer.smk"
include: "workflows/dreamerv2.smk"
include: "workflows/dreamerv3.smk"
include: "workflows/diff.smk"


rule all:
    default_target: True
    input:
        rules.core.input,
        rules.planet.input,
        rules.dreamer.input,
        rules.dreamerv2.input,
        rules.dreamerv3.input,
        rules.diff.input,
