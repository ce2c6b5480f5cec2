# The mathematical core: how exact the formulas are, what gradient estimators cost, how many wrong formulas tests notice.
# Nothing is trained here; what is measured is the same at every scale, but that smoke leaves out torch.compile, which takes
# minutes, and has fewer random problems and draws for the estimators.

# Written by make mutants, an hour's work that nobody runs for a figure; without it the report has no such page.
MUTATION_SCORES = "results/evidence/core/mutation.json"


rule measure_numerics:
    output:
        numbers=report(
            "results/{scale}/core/numerics.csv",
            caption="report/core_numerics.rst",
            category="Core",
            labels={"item": "Numerics: numbers", "scale": "{scale}"},
        ),
        sources="results/{scale}/core/numerics.json",
    log:
        "results/{scale}/core/numerics_measured.log",
    conda:
        "../environment.yml"
    params:
        compiled="" if SCALE["name"] == "smoke" else "--compiled",
        code=lambda wildcards: code_digest(["shared/formulas", *sorted(Path("shared/testing").glob("numerics*.py"))])[
            :12
        ],
    shell:
        "python -m shared.testing.numerics --numbers {output.numbers} --sources {output.sources} {params.compiled}"
        " 2>&1 | tee {log}"


rule draw_numerics:
    input:
        numbers="results/{scale}/core/numerics.csv",
        sources="results/{scale}/core/numerics.json",
        precision="results/{scale}/core/precision.csv" if "dreamerv3" in papers() else [],
    output:
        picture=report(
            "results/{scale}/core/numerics.png",
            caption="report/core_numerics.rst",
            category="Core",
            labels={"item": "Numerics: worst errors on hard inputs", "scale": "{scale}"},
        ),
        paper="results/{scale}/core/numerics.pdf",
        text="results/{scale}/core/numerics.md",
    log:
        "results/{scale}/core/numerics.log",
    conda:
        "../environment.yml"
    params:
        code=lambda wildcards: code_digest(["shared/figures"])[:12],
    shell:
        "python -m shared.figures.core --numbers {input.numbers} --sources {input.sources} --figure {output.paper}"
        " --precision {input.precision} 2>&1 | tee {log}"


rule measure_estimators:
    output:
        numbers=report(
            "results/{scale}/core/estimators.csv",
            caption="report/core_estimators.rst",
            category="Core",
            labels={"item": "Gradient estimators: numbers", "scale": "{scale}"},
        ),
    log:
        "results/{scale}/core/estimators_measured.log",
    conda:
        "../environment.yml"
    params:
        size="--samples 5000 --problems 8" if SCALE["name"] == "smoke" else "",
        code=lambda wildcards: code_digest(["shared/formulas", "shared/testing/estimators.py"])[:12],
    shell:
        "python -m shared.testing.estimators --numbers {output.numbers} {params.size} 2>&1 | tee {log}"


rule draw_estimators:
    input:
        numbers="results/{scale}/core/estimators.csv",
    output:
        picture=report(
            "results/{scale}/core/estimators.png",
            caption="report/core_estimators.rst",
            category="Core",
            labels={"item": "Gradient estimators: bias and variance", "scale": "{scale}"},
        ),
        paper="results/{scale}/core/estimators.pdf",
        text="results/{scale}/core/estimators.md",
        sources="results/{scale}/core/estimators.json",
    log:
        "results/{scale}/core/estimators.log",
    conda:
        "../environment.yml"
    params:
        code=lambda wildcards: code_digest(["shared/figures"])[:12],
    shell:
        "python -m shared.figures.estimators --numbers {input.numbers} --figure {output.paper}"
        " --sources {output.sources} 2>&1 | tee {log}"


# Measured by hand, for hours (make mutants), and kept: drawn again only.
rule draw_mutation:
    input:
        scores=MUTATION_SCORES,
    output:
        picture=report(
            "results/{scale}/core/mutation.png",
            caption="report/core_mutation.rst",
            category="Core",
            labels={"item": "Mutation testing: scores", "scale": "{scale}"},
        ),
        text="results/{scale}/core/mutation.md",
        numbers=report(
            "results/{scale}/core/mutation.csv",
            caption="report/core_mutation.rst",
            category="Core",
            labels={"item": "Mutation testing: numbers", "scale": "{scale}"},
        ),
    log:
        "results/{scale}/core/mutation.log",
    conda:
        "../environment.yml"
    params:
        code=lambda wildcards: code_digest(["shared/figures"])[:12],
    shell:
        "python -m shared.figures.mutation --scores {input.scores} --table {output.text} --numbers {output.numbers}"
        " --picture {output.picture} 2>&1 | tee {log}"


rule core_numerics:
    input:
        at_scale("results/{scale}/core/numerics.png"),


rule core_estimators:
    input:
        at_scale("results/{scale}/core/estimators.png"),


rule core_mutation:
    input:
        at_scale("results/{scale}/core/mutation.png"),


rule core:
    input:
        rules.core_numerics.input,
        rules.core_estimators.input,
        rules.core_mutation.input if Path(MUTATION_SCORES).exists() else [],
