"""DreamerV3's figures from synthetic runs: numbers by hand, which agent ran, and what a figure must say on its face."""

import fnmatch
import json
import math
from types import SimpleNamespace

import jinja2
import pytest
from numpy.testing import assert_allclose
from PIL import Image

from replications.dreamerv3 import figures
from replications.dreamerv3.figures_curves import ABLATION_TASKS, CRAFTER_TASK, CURVES, PARTS, agent
from replications.dreamerv3.figures_published import BESIDE, CRAFTER, REFERENCE, SUITES, tasks_of
from replications.dreamerv3.figures_scores import TABLES
from replications.dreamerv3.figures_settings import PAPER_TABLE_2
from shared.config import ROOT, leaves, resolve
from shared.figures.command import Request
from shared.figures.page import texts
from shared.figures.sources import check_mixture, check_scale, load_runs
from workflows.scripts.plan import planned_runs, read_experiments, read_scale

DRAW = {name: item.draw for name, item in figures.FIGURES.items()}
EXPERIMENTS = read_experiments("dreamerv3")
WITHOUT_RUNS = {**figures.SUMMARY, **figures.WITHOUT_RUNS}
PROFILES = ROOT / "workflows" / "profiles"
TASKS = {suite: tuple(tasks_of(REFERENCE, suite)) for suite in SUITES}
ALL_TASKS = (*dict.fromkeys(task for tasks in TASKS.values() for task in tasks), CRAFTER_TASK)
CAPTIONS = {
    **dict.fromkeys(CURVES, "dreamerv3_curves"),
    **dict.fromkeys(TABLES, "dreamerv3_tables"),
    **dict.fromkeys(figures.WITHOUT_RUNS, "dreamerv3_settings"),
    "figure_1": "dreamerv3_summary",
    "figure_4": "dreamerv3_films",
}
PUBLISHED = {"figure_10": "atari", "figure_13": "atari100k", "figure_14": "proprio", "figure_15": "vision", **TABLES}
LONGEST_ARGUMENT = 128 * 1024  # bytes of one argument on Linux; the workflow hands a whole command to bash as one
LARGE = ("figure_10", "agents_atari", "table_6")  # 57 games; drawn as others are


@pytest.fixture
def run(make_run):
    """A run of DreamerV3 of 25 episodes: training returns 10 n + 100 s."""

    def make(task="cartpole_swingup", variant="dreamerv3", **options):
        options = {"test_episodes": 1, "training": lambda seed, number: 10.0 * number + 100 * seed, **options}
        return make_run(task, paper="dreamerv3", variant=variant, **options)

    return make


@pytest.fixture
def whole_suite(run):
    """Runs of one seed on all 18 tasks of control from vectors; task k has k more than 10 n + 100 s."""

    def make(seed=0, variant="proprio-2023", **options):
        return [
            run(task, variant, seed=seed, training=lambda s, n, k=k: 10.0 * n + 100 * s + k, **options)
            for k, task in enumerate(TASKS["proprio"])
        ]

    return make


def request(paths, *, scale="paper", seeds=None) -> Request:
    sources = load_runs(paths, paper="dreamerv3", tasks=ALL_TASKS, variants=["*"])
    return Request(sources, check_scale(sources, scale), seeds, REFERENCE, check_mixture(sources, allow=False))


def command(name, folder, *arguments):
    stem = folder / name
    outputs = [f"--figure={stem}.pdf", f"--numbers={stem}.csv", f"--sources={stem}.json"]
    return figures.main([name, *map(str, arguments), *outputs]), stem


def words(figure) -> str:
    """Everything on the page, line breaks as spaces."""
    return " ".join("\n".join(texts(figure)).split())


def rows(numbers, **where):
    for name, value in where.items():
        numbers = numbers[numbers[name] == value]
    return numbers


# ------------------------------------------------------------------------------------------------ of what


def test_every_experiment_has_a_figure_and_every_figure_an_experiment_or_needs_none():
    assert set(EXPERIMENTS) | set(WITHOUT_RUNS) == set(DRAW) == set(CAPTIONS)
    assert not set(EXPERIMENTS) & set(WITHOUT_RUNS)
    published = {f"figure_{name}" for name in (1, 4, 6, 10, 13, 14, 15, 17, 18)}
    published |= {f"table_{name}" for name in (2, 3, 4, 5, 6, 9, 10, 11, 12)}
    ours = {"agents", "agents_vision", "agents_atari", "agents_atari100k", "entropies", "crafter", "elsewhere"}
    assert set(DRAW) == published | ours


@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_the_variants_of_a_figure_are_those_of_its_experiment(name):
    runs = planned_runs("dreamerv3", name, read_scale(PROFILES / "paper" / "scale.yaml"))
    planned, drawn = {one.variant for one in runs}, figures.FIGURES[name].variants
    assert {pattern for pattern in drawn if not fnmatch.filter(planned, pattern)} == set(), "drawn and not planned"
    assert {one for one in planned if one not in drawn} == set()
    assert len(" ".join(one.file for one in runs)) + 2000 < LONGEST_ARGUMENT


def test_figure_1_can_be_asked_for_in_one_command():
    scale = read_scale(PROFILES / "paper" / "scale.yaml")
    runs = [one for table in TABLES for one in planned_runs("dreamerv3", table, scale)]
    assert len(" ".join(one.file for one in runs)) + 2000 < LONGEST_ARGUMENT


@pytest.mark.parametrize(("name", "suite"), PUBLISHED.items())
def test_a_figure_with_published_numbers_runs_the_agent_that_made_them_on_the_suites_tasks(name, suite):
    assert EXPERIMENTS[name].tasks == TASKS[suite]
    (variant,) = EXPERIMENTS[name].variants
    assert variant == SUITES[suite].variant
    assert SUITES[suite].published.removeprefix("dreamerv3-") == agent(variant).removesuffix(" agent")


@pytest.mark.parametrize("name", [name for name in CURVES if name not in PUBLISHED])
def test_a_figure_of_another_agent_has_no_published_curve(run, name):
    curves = CURVES[name]
    assert not curves.released
    suite = {CRAFTER_TASK} if curves.suite is CRAFTER else set(TASKS[curves.suite.name])
    assert set(EXPERIMENTS[name].tasks) in (set(ABLATION_TASKS), suite)
    if name not in LARGE:
        assert "published curve" not in set(DRAW[name](request([])).numbers.get("kind", ()))


def test_hue_tells_methods_apart_within_every_panel():
    groups = [curves.methods for curves in CURVES.values() if not curves.pooled] + [methods for _, methods in PARTS]
    for methods in groups:
        colors = [color for method in methods.values() for color in method.colors.values()]
        assert len(set(colors)) == len(colors)


@pytest.mark.parametrize("name", list(DRAW))
def test_a_figure_without_runs_says_so_and_which_agent_it_is_of(name):
    drawn = DRAW[name](request([]))
    page = words(drawn.figure)
    assert "agent" in page or "last commit" in page
    assert "NOT RUN" in page or name in figures.WITHOUT_RUNS
    assert ("published numbers only" in page) == (name in figures.PRINTED)
    if name in PUBLISHED:
        assert set(drawn.numbers["kind"]) & {"published", "published curve"}
        assert f"DreamerV3, {agent(SUITES[PUBLISHED[name]].variant)}" in page


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if name not in LARGE])
def test_a_figure_of_a_smoke_run_is_stamped(run, name):
    variant = figures.FIGURES[name].variants[0]
    others = {"atari": "atari_pong", "crafter": CRAFTER_TASK}
    task = next((task for suite, task in others.items() if variant.startswith(suite)), "cartpole_swingup")
    drawn = DRAW[name](request([run(task, variant, scale="smoke")], scale="smoke"))
    assert "smoke: not a result" in words(drawn.figure)


@pytest.mark.parametrize("name", list(CAPTIONS))
def test_a_caption_knows_its_figure(name):
    text = (ROOT / "workflows" / "report" / f"{CAPTIONS[name]}.rst").read_text()
    job = SimpleNamespace(wildcards={"figure": name, "scale": "paper"})
    caption = " ".join(jinja2.Template(text, undefined=jinja2.StrictUndefined).render(snakemake=job).split())
    kind, _, which = name.partition("_")
    heading = f"{kind.capitalize()} {which}" if which.isdigit() else kind
    assert caption.startswith(f"**DreamerV3, {heading}")


@pytest.mark.parametrize("scale", ["smoke", "laptop"])
def test_a_small_scale_plans_few_runs_that_fit_their_suites(scale):
    content = read_scale(PROFILES / scale / "scale.yaml")
    runs = {one for name in EXPERIMENTS for one in planned_runs("dreamerv3", name, content)}
    assert 4 <= len(runs) <= 14
    for one in runs:
        vectors = resolve("dreamerv3", one.variant, content)["values"]["environment"]["observations"] == "vectors"
        assert not (vectors and one.task.startswith(("atari", "crafter")))
        assert one.variant.startswith("crafter") == (one.task == CRAFTER_TASK)
    if scale == "smoke":
        every = {
            (one.framework, figure) for figure in EXPERIMENTS for one in planned_runs("dreamerv3", figure, content)
        }
        assert every == {(framework, figure) for framework in ("torch", "jax") for figure in EXPERIMENTS}


# ------------------------------------------------------------------------------------------------ curves


def test_a_curve_is_of_training_episodes_mean_of_runs_in_bins(run):
    paths = [run("walker_walk", "proprio-2023", seed=seed) for seed in (0, 1)]
    curve = rows(DRAW["figure_14"](request(paths)).numbers, kind="curve", task="walker_walk")
    # episodes end at 1, 2, ... 25 k env steps; bins of 10 k after the first: n = 1; 2 to 11; 12 to 21; 22 to 25
    assert curve["env_steps"].tolist() == [1000, 11_000, 21_000, 25_000]
    assert_allclose(curve["mean"].astype(float), [60, 65 + 50, 165 + 50, 235 + 50])
    assert_allclose((curve["high"] - curve["mean"]).astype(float), 50)


def test_figure_14_has_the_2023_agents_curve_five_methods_and_another_groups(run):
    drawn = DRAW["figure_14"](request([run(variant="proprio-2023")]))
    lines = rows(drawn.numbers, kind="published curve")
    counts = lines.groupby("method")["task"].nunique().to_dict()
    names = ("DreamerV3, 2023 agent", "DreamerV3, another group", "PPO", "DDPG", "DMPO", "D4PG", "MPO")
    assert counts == {f"{name}, released": 20 for name in names}
    page = texts(drawn.figure)
    assert page.count("published data alone") == 17 and page.count("ours: 1 of 18 tasks") == 2
    assert "DreamerV3, 2023 agent, ours: torch" in page


def test_averages_of_ours_by_hand(whole_suite):
    numbers = DRAW["figure_14"](request([*whole_suite(0), *whole_suite(1)])).numbers
    curve = rows(numbers, kind="curve", task="task_mean").sort_values("env_steps")
    # bins of 10 k: n = 1 to 10, 11 to 20, 21 to 25; tasks add (0 + ... + 17) / 18 = 8.5, seeds 50
    assert curve["env_steps"].tolist() == [10_000, 20_000, 30_000]
    assert_allclose(curve["mean"].astype(float), [55 + 58.5, 155 + 58.5, 230 + 58.5])
    assert_allclose(rows(numbers, kind="curve", task="task_median")["mean"].astype(float), curve["mean"].astype(float))


def test_averages_wait_for_every_task(whole_suite):
    drawn = DRAW["figure_14"](request(whole_suite()[:-1]))
    assert rows(drawn.numbers, kind="curve", task="task_mean").empty
    assert texts(drawn.figure).count("ours: 17 of 18 tasks") == 2


def test_figure_6_pools_its_tasks_part_by_part(run):
    paths = [run(task, variant) for task in ABLATION_TASKS[:2] for variant in ("dreamerv3", "size1m", "ratio-32")]
    paths += [run(ABLATION_TASKS[0], "no-unimix", training=lambda s, n: 7.0)]
    paths += [run(CRAFTER_TASK, "crafter", training=lambda s, n: 5.0)]
    drawn = DRAW["figure_6"](request(paths))
    curves = rows(drawn.numbers, kind="curve").drop_duplicates(["task", "method"])
    full = "DreamerV3, last commit, 12M, ratio 512"
    assert set(zip(curves["task"], curves["method"], strict=True)) == {
        ("robustness techniques", full),
        ("robustness techniques", "no unimix"),
        ("learning signals", full),
        ("model sizes", full),
        ("model sizes", "1M parameters"),
        ("replay ratios", full),
        ("replay ratios", "replay ratio 32"),
        ("sizes, crafter", "Crafter, last commit, 200M, ratio 512"),
        ("ratios, crafter", "Crafter, last commit, 200M, ratio 512"),
    }
    assert set(rows(drawn.numbers, kind="curve", task="sizes, crafter")["mean"]) == {5.0}
    assert [axes.get_ylim() for axes in drawn.figure.axes[:6]] == [(0, 1000)] * 4 + [(-1, 22)] * 2
    assert [axes.get_xlim()[1] for axes in drawn.figure.axes[:6]] == [500_000] * 4 + [1_000_000] * 2
    assert set(rows(drawn.numbers, kind="curve", method="no unimix")["mean"]) == {7.0}
    page = words(drawn.figure)
    assert "2 tasks" in page and "these five tasks are ours" in page


def test_a_small_scale_shows_the_agents_on_tasks_that_were_run(run):
    paths = [run(scale="laptop"), run(scale="laptop", seed=1)]
    drawn = DRAW["agents"](request(paths, scale="laptop"))
    assert set(drawn.numbers["task"]) == {"cartpole_swingup"}
    page = words(drawn.figure)
    assert "DreamerV3, last commit, ours: torch" in page and "DreamerV3, 2023 agent: NOT RUN" in page
    assert drawn.figure.axes[0].get_xlim() == (0, 25_000)


def test_crafter_is_drawn_alone_and_says_why(run):
    drawn = DRAW["crafter"](request([run(CRAFTER_TASK, "crafter", seed=seed) for seed in (0, 1)]))
    assert set(drawn.numbers["task"]) == {CRAFTER_TASK} and set(drawn.numbers["kind"]) == {"curve", "seed"}
    page = words(drawn.figure)
    assert "no published curve and no number of it" in page and "last commit, ours: torch" in page
    assert drawn.figure.axes[0].get_ylim() == (-1, 22) and drawn.figure.axes[0].get_xlim() == (0, 1_000_000)


def test_an_unfinished_run_is_told_with_its_progress(run):
    path = run("walker_walk", "vision", complete=False, total=10**6, scale="laptop")
    page = words(DRAW["agents_vision"](request([path], scale="laptop", seeds=5)).figure)
    assert "partial: 0 of 5 seeds, 25k of 1M env steps" in page


# ------------------------------------------------------------------------------------------------ tables and bars


def test_a_table_has_published_recomputed_printed_and_ours_with_verdicts(run):
    paths = [
        run("walker_walk", "proprio-2023", framework=name, evaluated_at=(5000, 490_000)) for name in ("torch", "jax")
    ]
    drawn = DRAW["table_11"](request(paths))
    page, text = words(drawn.figure), drawn.further[".md"].decode()
    for part in ("753.5", "754", "870.6", "871", "task mean, recomputed", "ours, 2023 agent (jax)"):
        assert part in page and part in text
    ours = rows(drawn.numbers, kind="ours").set_index("framework")
    # episodes beyond 460 k env steps: n = 461 to 490
    assert_allclose(ours["score"].astype(float), 10 * 475.5)
    assert_allclose(ours["difference"].astype(float), 10 * 475.5 - ours["published"].astype(float))
    assert set(ours["verdict"]) == {"too few seeds to say"}


def test_a_final_score_averages_runs_first_as_the_published_ones_do(run):
    """Seed 1 ends its episodes twice as fast: of the last 30 k env steps it has six for seed 0's three."""
    paths = [
        run(
            *("walker_walk", "proprio-2023"),
            seed=seed,
            episode=episode,
            evaluated_at=(490_000,),
            values={"schedule": {"prefill_env_steps": 0}},
            training=lambda seed, number: 1000.0 - 800 * seed,
        )
        for seed, episode in enumerate((10_000, 5_000))
    ]
    ours = rows(DRAW["table_11"](request(paths)).numbers, kind="ours")
    assert_allclose(ours["score"].astype(float), 600.0)


def test_a_short_run_is_not_compared(run):
    page = words(DRAW["table_12"](request([run("walker_walk", "vision-2024")])).figure)
    assert "not comparable: 25k of 960k env steps" in page


def test_another_agents_runs_are_in_no_table(run):
    drawn = DRAW["table_11"](request([run("walker_walk", "dreamerv3")]))
    assert rows(drawn.numbers, kind="ours").empty and "No run of ours (proprio-2023): NOT RUN" in words(drawn.figure)


def test_figure_1_has_the_published_bars_and_ours_when_whole(whole_suite):
    numbers = DRAW["figure_1"](request(whole_suite())).numbers
    bars = rows(numbers, kind="recomputed").set_index(["suite", "method"])["value"]
    assert_allclose(bars["atari", "DreamerV3, 2024 agent"], 829.9, atol=0.1)
    assert_allclose(bars["proprio", "DreamerV3, 2023 agent"], 753.5, atol=0.1)
    assert set(rows(numbers, kind="printed")["suite"]) == {"procgen", "dmlab", "minecraft"}
    ours = rows(numbers, kind="ours").set_index("suite")
    # a window of 30 k env steps holds all 25 episodes: 130, and 8.5 from the tasks
    assert_allclose(ours.at["proprio", "value"], 138.5)
    assert math.isnan(ours.at["vision", "value"]) and ours.at["vision", "framework"] == "–"


# ------------------------------------------------------------------------------------------------ settings


def test_table_2_sets_the_papers_benchmarks_beside_the_configuration():
    frame = DRAW["table_2"](request([])).numbers.set_index("settings of")
    columns = ["tasks", "env steps", "action repeat", "environments", "replay ratio", "size"]
    paper = frame.loc["paper, Table 2", columns].to_numpy().tolist()
    assert paper == [list(values) for values in PAPER_TABLE_2.values()]
    here = frame.loc["here, last commit", columns].to_numpy().tolist()
    assert paper[-1][2] == "–" and here[-1][2] == 1  # Crafter's action repeat is not in our source
    assert here == [*paper[:-1], [*paper[-1][:2], 1, *paper[-1][3:]]], "the last commit's agent has all of it"
    assert "here, crafter" not in frame.index
    # the published agents: 2024's in a ratio and in environments, 2023's in environments and size
    assert frame.loc["here, vision-2024", columns].tolist() == [20, 1_000_000, 2, 8, 512, "12M"]
    assert frame.loc["here, atari100k-2024", columns].tolist() == [26, 400_000, 4, 1, 256, "200M"]
    assert frame.loc["here, proprio-2023", columns].tolist() == [18, 500_000, 2, 4, 512, "S (2023)"]
    assert len(frame.filter(like="out of scope", axis=0)) == 4


def test_table_4_shows_what_is_the_same_in_all_suites():
    """And leaves out nothing else but where the world is, sizes, and what nothing is learned from."""
    of = [
        dict(leaves(resolve("dreamerv3", suite.last_commit, {"name": "paper"})["values"], where=""))
        for suite in (*SUITES.values(), CRAFTER)
    ]
    differing = {key for key in of[0] if any(values[key] != of[0][key] for values in of)}
    shown = set(DRAW["table_4"](request([])).numbers["key"])
    assert len(shown) > 50 and not differing & shown
    left = {key for key in of[0] if key not in shown | differing}
    assert all(key.startswith(("environment.", "sizes.", "video.", "evaluation.")) for key in left), left


def test_table_3_and_4_are_read_from_the_configuration():
    sizes = DRAW["table_3"](request([])).numbers.set_index("size")
    assert sizes.loc["12m"].tolist() == [2048, 256, 16, 16, 10_492_616, 11_808_850]
    assert list(sizes.index)[-2:] == ["400m", "s2023"]
    table = DRAW["table_4"](request([])).numbers.set_index("key")
    assert table.loc["optimisers.laprop.beta2"].tolist()[:3] == [0.999] * 3
    assert table.at["loss.dynamics_scale", "2023"] == 0.5 and table.at["loss.dynamics_scale", "last commit"] == 1.0
    assert table.iloc[:, -1].str.contains("paper|code|ours").all()


def test_table_10_tells_how_a_score_is_made():
    table = DRAW["table_10"](request([])).numbers.set_index("benchmark")
    columns = ["env steps", "last env steps that count", "seeds, released", "seeds, ours", "over tasks"]
    assert table.loc["Atari", columns].tolist() == [200_000_000, 2_000_000, "3–6", "5", "mean, median of gamer's %"]
    assert table.loc["Control from vectors", columns].tolist() == [500_000, 30_000, "5", "5", "mean, median"]
    assert table["tested besides"].tolist() == ["1 episode each " + each for each in ("1M", "100k", "10k", "10k")]


@pytest.mark.parametrize("name", figures.PRINTED)
@pytest.mark.parametrize("scale", ["smoke", "paper"])
def test_what_is_only_published_says_so_at_every_scale(name, scale):
    drawn = DRAW[name](request([], scale=scale))
    page = words(drawn.figure)
    assert "published numbers only" in page and "no run of ours stands behind this page" in page
    assert "not replicated" in texts(drawn.figure), "the stamp"
    assert "smoke: not a result" not in page and set(drawn.numbers["kind"]) == {"printed"}
    assert "Published numbers only, not replicated" in drawn.further[".md"].decode()


def test_printed_numbers_of_benchmarks_out_of_scope():
    """As the fact sheet has them: Figures 11 and 12, Table 5."""
    table = DRAW["elsewhere"](request([])).numbers
    values = table.groupby("benchmark", sort=False)["value"].apply(list).to_dict()
    assert values == {"ProcGen": [66.0, 64.9, 42.8], "DMLab": [71.4], "Minecraft": [9.1, 7.1, 6.3, 5.1]}
    assert table["method"].tolist()[:4] == ["DreamerV3, 2024 agent", "PPG", "PPO", "DreamerV3, 2024 agent"]
    minecraft = DRAW["table_5"](request([])).numbers
    assert minecraft["value"].tolist() == values["Minecraft"] and set(minecraft["printed in"]) == {"Figure 8, Table 5"}


# ------------------------------------------------------------------------------------------------ video


def test_frames_are_shown_for_every_framework_and_agent(run, make_video):
    truth, prediction = make_video()
    paths = [
        run("walker_walk", variant, framework=name, video=(truth, prediction))
        for variant in ("vision", "vision-2024")
        for name in ("torch", "jax")
    ]
    drawn = DRAW["figure_4"](request(paths))
    strips = [text.split("\n")[1:3] for text in texts(drawn.figure) if text.startswith("Walker Walk\n")]
    assert strips == [[words, f"ours, {name},"] for words in ("2024 agent", "last commit") for name in ("torch", "jax")]
    assert_allclose(rows(drawn.numbers, context=False)["error"].astype(float), 0.2)
    assert drawn.further[".gif"][:6] == b"GIF89a"


def test_a_partial_run_has_no_video_yet(run):
    page = words(DRAW["figure_4"](request([run("walker_walk", "vision", complete=False)])).figure)
    assert "partial: the video comes with the finished run" in page


# ------------------------------------------------------------------------------------------------ command line


def test_the_command_writes_picture_numbers_and_sources_with_every_published_file(run, tmp_path):
    run("walker_walk", "proprio-2023"), run("walker_walk", "no-unimix")
    root = run().parents[4]
    status, stem = command("table_11", tmp_path, "--results-root", root)
    assert status == 0 and {path.suffix for path in tmp_path.glob("table_11.*")} == {
        ".pdf", ".png", ".csv", ".json", ".md"
    }  # fmt: skip
    content = json.loads(stem.with_suffix(".json").read_text())
    assert {one["variant"] for one in content["runs"]} == {"proprio-2023"}
    assert {path.rpartition("/")[2] for path in content["beside"]} == set(BESIDE)
    assert Image.open(stem.with_suffix(".png")).width == pytest.approx(7.2 * 220, abs=1)


def test_settings_are_drawn_without_runs(tmp_path):
    assert command("table_3", tmp_path, "--scale", "smoke", "--runs")[0] == 0


def test_the_same_runs_give_the_same_bytes(run, tmp_path):
    path = run()
    for folder in ("one", "two"):
        assert command("figure_17", tmp_path / folder, "--runs", path)[0] == 0
    for suffix in (".png", ".csv", ".json"):
        one, two = ((tmp_path / folder / "figure_17").with_suffix(suffix) for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
