# PlaNet: a target per published figure or table, and `planet` for all of them. What a figure needs is told by its entry
# in experiments.yaml; each comes as picture and print version, with the plotted numbers and the list of runs behind it.
from workflows.scripts.plan import read_experiments


include: "figure_files.smk"


PLANET = list(read_experiments("planet"))
PLANET_SPECIAL = ("table_1", "figure_10", "figure_11", "figure_12")  # the others are learning curves


rule draw_planet:
    input:
        runs=lambda wildcards: run_files("planet", wildcards.figure),
        reference="data/reference/planet_table_1.csv",
    output:
        **figure_files("planet", "PlaNet", "report/planet_curves.rst"),
    log:
        "results/{scale}/planet/{figure}.log",
    wildcard_constraints:
        figure="|".join(figure for figure in PLANET if figure not in PLANET_SPECIAL),
    conda:
        "../environment.yml"
    params:
        seeds=lambda wildcards: planned_seeds("planet", wildcards.figure),
        code=lambda wildcards: drawing_code("planet"),
    shell:
        "python -m replications.planet.figures {wildcards.figure} --runs {input.runs} --reference {input.reference}"
        " --scale {wildcards.scale} --seeds {params.seeds} --figure {output.paper} --numbers {output.numbers}"
        " --sources {output.sources} 2>&1 | tee {log}"


use rule draw_planet as draw_planet_table with:
    output:
        **figure_files("planet", "PlaNet", "report/planet_table_1.rst"),
        text="results/{scale}/planet/{figure}.md",
    wildcard_constraints:
        figure="table_1",


use rule draw_planet as draw_planet_film with:
    output:
        **figure_files("planet", "PlaNet", "report/planet_figure_10.rst"),
        film=shown_file("planet", "PlaNet", ".gif", "report/planet_figure_10.rst", ": film"),
    wildcard_constraints:
        figure="figure_10",


# Small networks read the simulator's states from the features of a finished run; the run is not touched.
rule planet_diagnostics:
    input:
        "results/{scale}/planet/{framework}/{variant}/{task}/seed_{seed}.h5",
    output:
        "results/{scale}/planet/{framework}/{variant}/{task}/seed_{seed}.diagnostics.h5",
    log:
        "results/{scale}/planet/{framework}/{variant}/{task}/seed_{seed}.diagnostics.log",
    benchmark:
        "results/{scale}/planet/{framework}/{variant}/{task}/seed_{seed}.diagnostics.benchmark.tsv"
    conda:
        "../environment.yml"
    threads: 1
    resources:
        mem_mb=4_000,
        runtime="2h",
    shell:
        "OMP_NUM_THREADS={threads} python -m replications.planet.diagnostics --run {input} --out {output} --threads {threads} 2>&1 | tee {log}"


use rule draw_planet as draw_planet_states with:
    input:
        runs=lambda wildcards: run_files("planet", wildcards.figure),
        reference="data/reference/planet_table_1.csv",
        diagnostics=lambda wildcards: [
            re.sub("h5$", "diagnostics.h5", file) for file in run_files("planet", wildcards.figure)
        ],
    output:
        **figure_files("planet", "PlaNet", "report/planet_figure_11.rst"),
    wildcard_constraints:
        figure="figure_11",


use rule draw_planet as draw_planet_grid with:
    output:
        **figure_files("planet", "PlaNet", "report/planet_figure_12.rst"),
    wildcard_constraints:
        figure="figure_12",


rule planet_figure_4:
    input:
        at_scale("results/{scale}/planet/figure_4.png"),


rule planet_table_1:
    input:
        at_scale("results/{scale}/planet/table_1.png"),


rule planet_figure_5:
    input:
        at_scale("results/{scale}/planet/figure_5.png"),


rule planet_figure_6:
    input:
        at_scale("results/{scale}/planet/figure_6.png"),


rule planet_figure_7:
    input:
        at_scale("results/{scale}/planet/figure_7.png"),


rule planet_figure_8:
    input:
        at_scale("results/{scale}/planet/figure_8.png"),


rule planet_figure_9:
    input:
        at_scale("results/{scale}/planet/figure_9.png"),


rule planet_figure_10:
    input:
        at_scale("results/{scale}/planet/figure_10.png"),


rule planet_figure_11:
    input:
        at_scale("results/{scale}/planet/figure_11.png"),


rule planet_figure_12:
    input:
        at_scale("results/{scale}/planet/figure_12.png"),


rule planet_code_states:
    input:
        at_scale("results/{scale}/planet/code_states.png"),


rule planet:
    input:
        [at_scale(f"results/{{scale}}/planet/{figure}.png") for figure in PLANET],
