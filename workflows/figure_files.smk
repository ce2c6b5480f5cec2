# The files of one figure and their place in the report: functions for the rules that draw.


def shown_file(paper, category, suffix, caption, what=""):
    """One file of figure {figure} that the report shows. what: follows the figure's name in the report."""

    def labels(wildcards):
        # "figure_4" is shown as "Figure 4"; the padding sorts it before 10, and a browser draws one space.
        kind, _, which = wildcards.figure.partition("_")
        return {"item": f"{kind.capitalize()} {which:>2}{what}", "scale": wildcards.scale}

    path = f"results/{{scale}}/{paper}/{{figure}}{suffix}"
    return report(path, caption=caption, category=category, labels=labels)


def figure_files(paper, category, caption):
    """Picture, print version, plotted numbers and list of runs of figure {figure}."""
    return {
        "picture": shown_file(paper, category, ".png", caption),
        "paper": f"results/{{scale}}/{paper}/{{figure}}.pdf",
        "numbers": shown_file(paper, category, ".csv", caption, ": numbers"),
        "sources": f"results/{{scale}}/{paper}/{{figure}}.json",
    }
