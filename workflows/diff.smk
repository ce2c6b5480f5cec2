# Where do implementations part? The report's page of verdicts, and targets for what takes longer: the number level
# (`diff_numbers`), the ledger, the quality of the verdict's rule, and the published score files themselves.


rule draw_diff:
    input:
        runs=[run.file for run in all_runs(SCALE)],
        published=["data/reference/published.yaml", "data/reference/published_curves.csv.gz"],
    output:
        page=report(
            "results/{scale}/diff/matrix.html",
            caption="report/diff.rst",
            category="Diff",
            labels={"item": "Verdicts: paper, framework, task", "scale": "{scale}"},
        ),
        verdicts="results/{scale}/diff/matrix.json",
    log:
        "results/{scale}/diff/matrix.log",
    conda:
        "../environment.yml"
    params:
        code=lambda wildcards: code_digest(["shared/diff"])[:12],
    shell:
        "python -m shared.diff.matrix --results results/{wildcards.scale} --html {output.page} --json {output.verdicts}"
        " 2>&1 | tee {log}"


# Statuses 1 (differs) and 2 (not comparable) are answers; only 3 is an error.
rule walk_diff:
    output:
        answer="results/{scale}/diff/numbers_{paper}.json",
        page="results/{scale}/diff/numbers_{paper}.html",
    log:
        "results/{scale}/diff/numbers_{paper}.log",
    conda:
        "../environment.yml"
    params:
        code=lambda wildcards: code_digest(["shared/diff", "shared/formulas", f"replications/{wildcards.paper}"])[:12],
    shell:
        "status=0; python -m shared.diff {wildcards.paper}/torch {wildcards.paper}/jax --json {output.answer}"
        " --html {output.page} > {log} 2>&1 || status=$?; cat {log}; [ $status -lt 3 ]"


rule draw_ledger:
    output:
        answer="results/{scale}/diff/ledger.json",
        page="results/{scale}/diff/ledger.html",
    log:
        "results/{scale}/diff/ledger.log",
    conda:
        "../environment.yml"
    params:
        code=lambda wildcards: code_digest(["shared/diff"])[:12],
        values=lambda wildcards: [Path(f"replications/{paper}/paper.yaml").read_text() for paper in papers()],
    shell:
        "python -m shared.diff ledger --json {output.answer} --html {output.page} > {log} 2>&1"


# Which published runs are called below or above by the seeds beside them, and what the rule would notice.
rule measure_rule:
    input:
        "data/reference/published_curves.csv.gz",
    output:
        answer="results/{scale}/diff/rule.json",
        page="results/{scale}/diff/rule.html",
    log:
        "results/{scale}/diff/rule.log",
    conda:
        "../environment.yml"
    shell:
        "python -m shared.diff rule --json {output.answer} --html {output.page} > {log} 2>&1"


# The authors' own files at their pinned commits, by checksum: from REFERENCE_DIR or ../shared/reference if one is there,
# else from the network. Nothing above needs them: derived tables lie in data/reference.
rule obtain_published:
    input:
        "data/reference/published.yaml",
    output:
        touch("results/{scale}/diff/published.done"),
    log:
        "results/{scale}/diff/published.log",
    conda:
        "../environment.yml"
    shell:
        "python -m workflows.scripts.obtain_published --target results/published 2>&1 | tee {log}"


rule diff_numbers:
    input:
        [
            at_scale(f"results/{{scale}}/diff/numbers_{paper}.json")
            for paper in papers()
            if Path(f"replications/{paper}/walk_jax.py").exists()
        ],


rule diff_ledger:
    input:
        at_scale("results/{scale}/diff/ledger.html"),


rule diff_rule:
    input:
        at_scale("results/{scale}/diff/rule.html"),


rule published:
    input:
        at_scale("results/{scale}/diff/published.done"),


rule diff:
    input:
        at_scale("results/{scale}/diff/matrix.html"),
