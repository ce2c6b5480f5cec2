# DreamerV3: a target per published figure or table, and `dreamerv3` for all of them. What a figure needs is told by its
# entry in experiments.yaml; Figure 1 takes what four others have; settings and what is only printed take no run. Each
# comes as picture and print version, with the plotted numbers and the list of runs. Released curves and scores are drawn
# whether runs of ours exist or not.
from workflows.scripts.plan import read_experiments


include: "figure_files.smk"


DREAMERV3_SETTINGS = ("table_2", "table_3", "table_4", "table_5", "table_10", "elsewhere")
DREAMERV3_SCORES = ("table_6", "table_9", "table_11", "table_12")
DREAMERV3_FILMS = ("figure_4",)
DREAMERV3_SUMMARY = ("figure_1",)
DREAMERV3 = [*DREAMERV3_SUMMARY, *DREAMERV3_SETTINGS, *read_experiments("dreamerv3")]
PRECISION_CODE = ["shared/formulas", *Path("shared").glob("layers_*.py")]
PRECISION_CODE += [path for path in Path("replications/dreamerv3").glob("*.py") if not path.name.startswith("figures")]
DREAMERV3_DATA = expand("data/reference/dreamerv3_{table}.csv", table=["finals", "curves", "tables"])


rule draw_dreamerv3:
    input:
        runs=lambda wildcards: run_files("dreamerv3", wildcards.figure),
        reference="data/reference/dreamerv3_games.csv",
        beside=DREAMERV3_DATA,
    output:
        **figure_files("dreamerv3", "DreamerV3", "report/dreamerv3_curves.rst"),
    log:
        "results/{scale}/dreamerv3/{figure}.log",
    wildcard_constraints:
        figure="|".join(
            figure
            for figure in DREAMERV3
            if figure not in (*DREAMERV3_SUMMARY, *DREAMERV3_SETTINGS, *DREAMERV3_SCORES, *DREAMERV3_FILMS)
        ),
    conda:
        "../environment.yml"
    params:
        seeds=lambda wildcards: planned_seeds("dreamerv3", wildcards.figure),
        code=lambda wildcards: drawing_code("dreamerv3"),
    shell:
        "python -m replications.dreamerv3.figures {wildcards.figure} --runs {input.runs} --reference {input.reference}"
        " --scale {wildcards.scale} --seeds {params.seeds} --figure {output.paper} --numbers {output.numbers}"
        " --sources {output.sources} 2>&1 | tee {log}"


use rule draw_dreamerv3 as draw_dreamerv3_tables with:
    output:
        **figure_files("dreamerv3", "DreamerV3", "report/dreamerv3_tables.rst"),
        text="results/{scale}/dreamerv3/{figure}.md",
    wildcard_constraints:
        figure="|".join(DREAMERV3_SCORES),


use rule draw_dreamerv3 as draw_dreamerv3_films with:
    output:
        **figure_files("dreamerv3", "DreamerV3", "report/dreamerv3_films.rst"),
        film=shown_file("dreamerv3", "DreamerV3", ".gif", "report/dreamerv3_films.rst", ": film"),
    wildcard_constraints:
        figure="|".join(DREAMERV3_FILMS),


use rule draw_dreamerv3 as draw_dreamerv3_summary with:
    input:
        runs=lambda wildcards: [run for table in DREAMERV3_SCORES for run in run_files("dreamerv3", table)],
        reference="data/reference/dreamerv3_games.csv",
        beside=DREAMERV3_DATA,
    output:
        **figure_files("dreamerv3", "DreamerV3", "report/dreamerv3_summary.rst"),
    wildcard_constraints:
        figure="|".join(DREAMERV3_SUMMARY),
    params:
        seeds=lambda wildcards: planned_seeds("dreamerv3", DREAMERV3_SCORES[0]),
        code=lambda wildcards: drawing_code("dreamerv3"),


use rule draw_dreamerv3 as draw_dreamerv3_settings with:
    input:
        runs=[],
        settings=expand("replications/dreamerv3/{file}.yaml", file=["paper", "experiments"]),
        reference="data/reference/dreamerv3_games.csv",
        beside=DREAMERV3_DATA,
    output:
        **figure_files("dreamerv3", "DreamerV3", "report/dreamerv3_settings.rst"),
        text="results/{scale}/dreamerv3/{figure}.md",
    wildcard_constraints:
        figure="|".join(DREAMERV3_SETTINGS),
    params:
        seeds=1,
        code=lambda wildcards: drawing_code("dreamerv3"),


# For the page of core_numerics: one update with bfloat16 products and without, in both frameworks. No run is needed.
rule measure_precision:
    input:
        values="replications/dreamerv3/paper.yaml",
    output:
        report(
            "results/{scale}/core/precision.csv",
            caption="report/core_numerics.rst",
            category="Core",
            labels={"item": "Mixed precision: numbers", "scale": "{scale}"},
        ),
    log:
        "results/{scale}/core/precision.log",
    conda:
        "../environment.yml"
    params:
        size="tiny" if SCALE["name"] == "smoke" else "1m",
        code=lambda wildcards: code_digest(PRECISION_CODE)[:12],
    shell:
        "python -m replications.dreamerv3.precision --numbers {output} --size {params.size} 2>&1 | tee {log}"


rule dreamerv3_figure_1:
    input:
        at_scale("results/{scale}/dreamerv3/figure_1.png"),


rule dreamerv3_figure_4:
    input:
        at_scale("results/{scale}/dreamerv3/figure_4.png"),


rule dreamerv3_figure_6:
    input:
        at_scale("results/{scale}/dreamerv3/figure_6.png"),


rule dreamerv3_figure_10:
    input:
        at_scale("results/{scale}/dreamerv3/figure_10.png"),


rule dreamerv3_figure_13:
    input:
        at_scale("results/{scale}/dreamerv3/figure_13.png"),


rule dreamerv3_figure_14:
    input:
        at_scale("results/{scale}/dreamerv3/figure_14.png"),


rule dreamerv3_figure_15:
    input:
        at_scale("results/{scale}/dreamerv3/figure_15.png"),


rule dreamerv3_figure_17:
    input:
        at_scale("results/{scale}/dreamerv3/figure_17.png"),


rule dreamerv3_figure_18:
    input:
        at_scale("results/{scale}/dreamerv3/figure_18.png"),


rule dreamerv3_table_2:
    input:
        at_scale("results/{scale}/dreamerv3/table_2.png"),


rule dreamerv3_table_3:
    input:
        at_scale("results/{scale}/dreamerv3/table_3.png"),


rule dreamerv3_table_4:
    input:
        at_scale("results/{scale}/dreamerv3/table_4.png"),


rule dreamerv3_table_5:
    input:
        at_scale("results/{scale}/dreamerv3/table_5.png"),


rule dreamerv3_table_6:
    input:
        at_scale("results/{scale}/dreamerv3/table_6.png"),


rule dreamerv3_table_9:
    input:
        at_scale("results/{scale}/dreamerv3/table_9.png"),


rule dreamerv3_table_10:
    input:
        at_scale("results/{scale}/dreamerv3/table_10.png"),


rule dreamerv3_table_11:
    input:
        at_scale("results/{scale}/dreamerv3/table_11.png"),


rule dreamerv3_table_12:
    input:
        at_scale("results/{scale}/dreamerv3/table_12.png"),


rule dreamerv3_elsewhere:
    input:
        at_scale("results/{scale}/dreamerv3/elsewhere.png"),


rule dreamerv3_crafter:
    input:
        at_scale("results/{scale}/dreamerv3/crafter.png"),


rule dreamerv3_entropies:
    input:
        at_scale("results/{scale}/dreamerv3/entropies.png"),


rule dreamerv3_agents:
    input:
        at_scale("results/{scale}/dreamerv3/agents.png"),


rule dreamerv3_agents_vision:
    input:
        at_scale("results/{scale}/dreamerv3/agents_vision.png"),


rule dreamerv3_agents_atari:
    input:
        at_scale("results/{scale}/dreamerv3/agents_atari.png"),


rule dreamerv3_agents_atari100k:
    input:
        at_scale("results/{scale}/dreamerv3/agents_atari100k.png"),


rule dreamerv3:
    input:
        [at_scale(f"results/{{scale}}/dreamerv3/{figure}.png") for figure in DREAMERV3],
