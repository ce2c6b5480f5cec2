# PlaNet: one rule per published figure or table, and the target `planet` for all of them.
# Each rule writes picture and print version, the plotted numbers, and the list of runs behind them.


rule planet_figure_4:
    input:
        runs=run_files("planet", "figure_4"),
        reference="data/reference/planet_table_1.csv",
    output:
        picture=report(
            "results/{scale}/planet/figure_4.png",
            caption="report/planet_figure_4.rst",
            category="PlaNet",
            labels={"item": "Learning curves: Figure 4", "scale": "{scale}"},
        ),
        paper="results/{scale}/planet/figure_4.pdf",
        numbers=report(
            "results/{scale}/planet/figure_4.csv",
            caption="report/planet_figure_4.rst",
            category="PlaNet",
            labels={"item": "Learning curves: numbers", "scale": "{scale}"},
        ),
        sources="results/{scale}/planet/figure_4.json",
    log:
        "results/{scale}/planet/figure_4.log",
    conda:
        "../environment.yml"
    params:
        seeds=planned_seeds("planet", "figure_4"),
        code=lambda wildcards: drawing_code("planet"),
    shell:
        "python -m replications.planet.figures figure_4 --runs {input.runs} --reference {input.reference}"
        " --scale {wildcards.scale} --seeds {params.seeds} --figure {output.paper} --numbers {output.numbers}"
        " --sources {output.sources} 2>&1 | tee {log}"


rule planet_table_1:
    input:
        runs=run_files("planet", "table_1"),
        reference="data/reference/planet_table_1.csv",
    output:
        picture=report(
            "results/{scale}/planet/table_1.png",
            caption="report/planet_table_1.rst",
            category="PlaNet",
            labels={"item": "Scores: Table 1", "scale": "{scale}"},
        ),
        paper="results/{scale}/planet/table_1.pdf",
        text="results/{scale}/planet/table_1.md",
        numbers=report(
            "results/{scale}/planet/table_1.csv",
            caption="report/planet_table_1.rst",
            category="PlaNet",
            labels={"item": "Scores: numbers", "scale": "{scale}"},
        ),
        sources="results/{scale}/planet/table_1.json",
    log:
        "results/{scale}/planet/table_1.log",
    conda:
        "../environment.yml"
    params:
        seeds=planned_seeds("planet", "table_1"),
        code=lambda wildcards: drawing_code("planet"),
    shell:
        "python -m replications.planet.figures table_1 --runs {input.runs} --reference {input.reference}"
        " --scale {wildcards.scale} --seeds {params.seeds} --figure {output.paper} --numbers {output.numbers}"
        " --sources {output.sources} 2>&1 | tee {log}"


rule planet_figure_10:
    input:
        runs=run_files("planet", "figure_10"),
    output:
        picture=report(
            "results/{scale}/planet/figure_10.png",
            caption="report/planet_figure_10.rst",
            category="PlaNet",
            labels={"item": "Video prediction: Figure 10", "scale": "{scale}"},
        ),
        film=report(
            "results/{scale}/planet/figure_10.gif",
            caption="report/planet_figure_10.rst",
            category="PlaNet",
            labels={"item": "Video prediction: film", "scale": "{scale}"},
        ),
        paper="results/{scale}/planet/figure_10.pdf",
        numbers=report(
            "results/{scale}/planet/figure_10.csv",
            caption="report/planet_figure_10.rst",
            category="PlaNet",
            labels={"item": "Video prediction: numbers", "scale": "{scale}"},
        ),
        sources="results/{scale}/planet/figure_10.json",
    log:
        "results/{scale}/planet/figure_10.log",
    conda:
        "../environment.yml"
    params:
        seeds=planned_seeds("planet", "figure_10"),
        code=lambda wildcards: drawing_code("planet"),
    shell:
        "python -m replications.planet.figures figure_10 --runs {input.runs}"
        " --scale {wildcards.scale} --seeds {params.seeds} --figure {output.paper} --numbers {output.numbers}"
        " --sources {output.sources} 2>&1 | tee {log}"


rule planet:
    input:
        at_scale("results/{scale}/planet/figure_4.png"),
        at_scale("results/{scale}/planet/table_1.png"),
        at_scale("results/{scale}/planet/figure_10.png"),
