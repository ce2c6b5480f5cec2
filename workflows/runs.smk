# From a config to a finished run: the same two rules for every paper, framework, variant, task and seed.


rule resolve_config:
    output:
        "results/{scale}/{paper}/{framework}/{variant}/{task}/config.yaml",
    log:
        "results/{scale}/{paper}/{framework}/{variant}/{task}/config.log",
    conda:
        "../environment.yml"
    params:
        resolved=run_values,  # what decides a rerun: values, not the text of the files they come from
    script:
        "scripts/resolve_config.py"


# The checkpoints (seed_N.ckpt/ beside the output) are not declared: Snakemake would delete them when a run fails.
# A run that is started again continues from them, so a retry costs little.
rule train:
    input:
        config="results/{scale}/{paper}/{framework}/{variant}/{task}/config.yaml",
    output:
        "results/{scale}/{paper}/{framework}/{variant}/{task}/seed_{seed}.h5",
    log:
        "results/{scale}/{paper}/{framework}/{variant}/{task}/seed_{seed}.log",
    benchmark:
        "results/{scale}/{paper}/{framework}/{variant}/{task}/seed_{seed}.benchmark.tsv"
    retries: 1
    conda:
        "../environment.yml"
    threads: 2
    resources:
        mem_mb=8_000,
        env_workers=0,  # processes that play evaluation: faster where there are cores to spare, the same numbers
        runtime="2d",
    shell:
        "python -m replications.{wildcards.paper}.train --config {input.config} --task {wildcards.task}"
        " --framework {wildcards.framework} --seed {wildcards.seed} --out {output} --threads {threads}"
        " --workers {resources.env_workers}"
        " 2>&1 | tee -i -a {log}"
