# DreamerV2: a target per published figure or table, and `dreamerv2` for all of them. What a figure needs is told by its
# entry in experiments.yaml; each comes as picture and print version, with the plotted numbers and the list of runs.
# Released curves and scores are drawn in every one, whether runs of ours exist or not.
from workflows.scripts.plan import read_experiments


include: "figure_files.smk"


DREAMERV2 = list(read_experiments("dreamerv2"))
DREAMERV2_SCORES = ("figure_1", "figure_e1")
DREAMERV2_TABLES = ("table_1", "table_2", "table_k1")
DREAMERV2_FILMS = ("figure_a1", "figure_b1")


rule draw_dreamerv2:
    input:
        runs=lambda wildcards: run_files("dreamerv2", wildcards.figure),
        reference="data/reference/dreamerv2_games.csv",
        beside=expand(
            "data/reference/dreamerv2_{table}.csv", table=["finals", "curves", "start", "aggregates", "tables"]
        ),
    output:
        **figure_files("dreamerv2", "DreamerV2", "report/dreamerv2_curves.rst"),
    log:
        "results/{scale}/dreamerv2/{figure}.log",
    wildcard_constraints:
        figure="|".join(
            figure for figure in DREAMERV2 if figure not in (*DREAMERV2_SCORES, *DREAMERV2_TABLES, *DREAMERV2_FILMS)
        ),
    conda:
        "../environment.yml"
    params:
        seeds=lambda wildcards: planned_seeds("dreamerv2", wildcards.figure),
        code=lambda wildcards: drawing_code("dreamerv2"),
    shell:
        "python -m replications.dreamerv2.figures {wildcards.figure} --runs {input.runs} --reference {input.reference}"
        " --scale {wildcards.scale} --seeds {params.seeds} --figure {output.paper} --numbers {output.numbers}"
        " --sources {output.sources} 2>&1 | tee {log}"


use rule draw_dreamerv2 as draw_dreamerv2_scores with:
    output:
        **figure_files("dreamerv2", "DreamerV2", "report/dreamerv2_scores.rst"),
    wildcard_constraints:
        figure="|".join(DREAMERV2_SCORES),


use rule draw_dreamerv2 as draw_dreamerv2_tables with:
    output:
        **figure_files("dreamerv2", "DreamerV2", "report/dreamerv2_tables.rst"),
        text="results/{scale}/dreamerv2/{figure}.md",
    wildcard_constraints:
        figure="|".join(DREAMERV2_TABLES),


use rule draw_dreamerv2 as draw_dreamerv2_films with:
    output:
        **figure_files("dreamerv2", "DreamerV2", "report/dreamerv2_films.rst"),
        film=shown_file("dreamerv2", "DreamerV2", ".gif", "report/dreamerv2_films.rst", ": film"),
    wildcard_constraints:
        figure="|".join(DREAMERV2_FILMS),


rule dreamerv2_figure_1:
    input:
        at_scale("results/{scale}/dreamerv2/figure_1.png"),


rule dreamerv2_figure_4:
    input:
        at_scale("results/{scale}/dreamerv2/figure_4.png"),


rule dreamerv2_table_1:
    input:
        at_scale("results/{scale}/dreamerv2/table_1.png"),


rule dreamerv2_figure_5:
    input:
        at_scale("results/{scale}/dreamerv2/figure_5.png"),


rule dreamerv2_table_2:
    input:
        at_scale("results/{scale}/dreamerv2/table_2.png"),


rule dreamerv2_figure_a1:
    input:
        at_scale("results/{scale}/dreamerv2/figure_a1.png"),


rule dreamerv2_figure_a2:
    input:
        at_scale("results/{scale}/dreamerv2/figure_a2.png"),


rule dreamerv2_figure_b1:
    input:
        at_scale("results/{scale}/dreamerv2/figure_b1.png"),


rule dreamerv2_figure_b2:
    input:
        at_scale("results/{scale}/dreamerv2/figure_b2.png"),


rule dreamerv2_figure_e1:
    input:
        at_scale("results/{scale}/dreamerv2/figure_e1.png"),


rule dreamerv2_figure_f1:
    input:
        at_scale("results/{scale}/dreamerv2/figure_f1.png"),


rule dreamerv2_figure_g1:
    input:
        at_scale("results/{scale}/dreamerv2/figure_g1.png"),


rule dreamerv2_figure_h1:
    input:
        at_scale("results/{scale}/dreamerv2/figure_h1.png"),


rule dreamerv2_figure_i1:
    input:
        at_scale("results/{scale}/dreamerv2/figure_i1.png"),


rule dreamerv2_figure_j1:
    input:
        at_scale("results/{scale}/dreamerv2/figure_j1.png"),


rule dreamerv2_table_k1:
    input:
        at_scale("results/{scale}/dreamerv2/table_k1.png"),


rule dreamerv2_control:
    input:
        at_scale("results/{scale}/dreamerv2/control.png"),


rule dreamerv2_versions:
    input:
        at_scale("results/{scale}/dreamerv2/versions.png"),


rule dreamerv2_catch:
    input:
        at_scale("results/{scale}/dreamerv2/catch.png"),


rule dreamerv2_start:
    input:
        at_scale("results/{scale}/dreamerv2/start.png"),


rule dreamerv2:
    input:
        [at_scale(f"results/{{scale}}/dreamerv2/{figure}.png") for figure in DREAMERV2],
