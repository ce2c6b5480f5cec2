# Dreamer: a target per published figure or table, and `dreamer` for all of them. What a figure needs is told by its
# entry in experiments.yaml; each comes as picture and print version, with the plotted numbers and the list of runs.
from workflows.scripts.plan import read_experiments


include: "figure_files.smk"


DREAMER = list(read_experiments("dreamer"))
DREAMER_SPECIAL = ("figure_4", "figure_5", "figure_6", "table_1", "side_by_side_time")  # the others are learning curves


rule draw_dreamer:
    input:
        runs=lambda wildcards: run_files("dreamer", wildcards.figure),
        reference="data/reference/dreamer_table_1.csv",
        beside=["data/reference/dreamer_tf2_curves.csv", "data/reference/dreamer_lines.csv"],
    output:
        **figure_files("dreamer", "Dreamer", "report/dreamer_curves.rst"),
    log:
        "results/{scale}/dreamer/{figure}.log",
    wildcard_constraints:
        figure="|".join(figure for figure in DREAMER if figure not in DREAMER_SPECIAL),
    conda:
        "../environment.yml"
    params:
        seeds=lambda wildcards: planned_seeds("dreamer", wildcards.figure),
        code=lambda wildcards: drawing_code("dreamer"),
    shell:
        "python -m replications.dreamer.figures {wildcards.figure} --runs {input.runs} --reference {input.reference}"
        " --scale {wildcards.scale} --seeds {params.seeds} --figure {output.paper} --numbers {output.numbers}"
        " --sources {output.sources} 2>&1 | tee {log}"


use rule draw_dreamer as draw_dreamer_scores with:
    output:
        **figure_files("dreamer", "Dreamer", "report/dreamer_scores.rst"),
    wildcard_constraints:
        figure="figure_4|figure_6",


use rule draw_dreamer as draw_dreamer_table with:
    output:
        **figure_files("dreamer", "Dreamer", "report/dreamer_table_1.rst"),
        text="results/{scale}/dreamer/{figure}.md",
    wildcard_constraints:
        figure="table_1",


use rule draw_dreamer as draw_dreamer_film with:
    output:
        **figure_files("dreamer", "Dreamer", "report/dreamer_figure_5.rst"),
        film=shown_file("dreamer", "Dreamer", ".gif", "report/dreamer_figure_5.rst", ": film"),
    wildcard_constraints:
        figure="figure_5",


use rule draw_dreamer as draw_dreamer_time with:
    output:
        **figure_files("dreamer", "Dreamer", "report/dreamer_time.rst"),
    wildcard_constraints:
        figure="side_by_side_time",


rule dreamer_figure_4:
    input:
        at_scale("results/{scale}/dreamer/figure_4.png"),


rule dreamer_figure_5:
    input:
        at_scale("results/{scale}/dreamer/figure_5.png"),


rule dreamer_figure_6:
    input:
        at_scale("results/{scale}/dreamer/figure_6.png"),


rule dreamer_figure_7:
    input:
        at_scale("results/{scale}/dreamer/figure_7.png"),


rule dreamer_figure_8:
    input:
        at_scale("results/{scale}/dreamer/figure_8.png"),


rule dreamer_figure_9:
    input:
        at_scale("results/{scale}/dreamer/figure_9.png"),


rule dreamer_figure_10:
    input:
        at_scale("results/{scale}/dreamer/figure_10.png"),


rule dreamer_figure_11:
    input:
        at_scale("results/{scale}/dreamer/figure_11.png"),


rule dreamer_figure_12:
    input:
        at_scale("results/{scale}/dreamer/figure_12.png"),


rule dreamer_table_1:
    input:
        at_scale("results/{scale}/dreamer/table_1.png"),


rule dreamer_side_by_side:
    input:
        at_scale("results/{scale}/dreamer/side_by_side.png"),


rule dreamer_side_by_side_time:
    input:
        at_scale("results/{scale}/dreamer/side_by_side_time.png"),


rule dreamer_lineages:
    input:
        at_scale("results/{scale}/dreamer/lineages.png"),


rule dreamer:
    input:
        [at_scale(f"results/{{scale}}/dreamer/{figure}.png") for figure in DREAMER],
