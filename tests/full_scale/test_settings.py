"""What a run can be asked: files, flags and hyper-parameters, and the answers to misspelt
ones.
"""

import inspect
import re

import pytest

from dlib import Part, Phase, Recipe, Sampler, discrete, recipes, scaled_linear
from full_scale import estimate
from full_scale.run.checks import check, check_rows
from full_scale.run.numbers import HYPER, ROLE, RUN
from full_scale.run.settings import as_table, learning_rate, nearest, read, recipe_of, role_of
from full_scale.train import rehearse

OK = ["finetune", "--tiny", "--data", "somewhere"]


def test_flags_win_over_the_file_and_the_file_over_the_defaults(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'method = "finetune"\nlr = 3e-4\nbatch = 16\nbetas = [0.8, 0.9]\n[hyper]\nweight = "v"\n'
    )
    found = read([str(path), "--batch", "32"])
    assert (found.lr, found.batch, found.betas, found.hyper.weight, found.micro) == (
        3e-4,
        32,
        (0.8, 0.9),
        "v",
        8,
    )
    assert read([str(path), "--hyper.weight", "x0"]).hyper.weight == "x0"
    assert as_table(found)["hyper"] == {"weight": "v"} and as_table(found)["out"] == "runs/train"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('method = "finetun"', "did you mean 'finetune'"),
        ('method = "finetune"\nlearning_rate = 1', "key 'learning_rate' does not exist"),
        ('method = "finetune"\nbach = 1', "did you mean 'batch'"),
        (
            'method = "finetune"\n[hyper]\nwieght = "v"',
            "hyper. 'wieght' does not exist: did you mean 'weight'",
        ),
        (
            'method = "swiftbrush"\n[roles.fake]\nlr = "fast"',
            "roles.fake. lr = 'fast': wanted a number",
        ),
        ('method = "swiftbrush"\n[roles]\nfake = 1', "fake = 1: wanted a table"),
        ('method = "finetune"\nhyper = 3', "key hyper = 3: wanted a table"),
        ('method = "finetune"\nbatch = "64"', "key batch = '64': wanted a whole number"),
        ('method = "finetune"\nbatch = 64.0', "key batch = 64.0: wanted a whole number"),
        ('method = "finetune"\ntiny = 1', "key tiny = 1: wanted true or false"),
        ('method = "finetune"\nlr = true', "key lr = true: wanted a number"),
        ('method = "finetune"\nbetas = [0.9]', "wanted a list of 2: a number, a number"),
        ('method = "finetune"\nprompts = "a cat"', "wanted a list, each a text"),
        ('method = "finetune"\nparallel = "dpp"', "wanted 'ddp' or 'fsdp'"),
        ('method = "finetune"\nout = 3', "key out = 3: wanted a text"),
        ('method = "lcm"\n[hyper]\nomega = [1, "2"]', "hyper. omega .* a list of 2"),
        ("method = 3", "key method = 3: wanted a text"),
        ("method =", "is not TOML"),
        ('method = "finetune"\nprompts = ["\\ud83d"]', "is not TOML"),
        ('method = "finetune"\nprompts = ["caf\udce9"]', "is not TOML: 'utf-8' codec"),
        ("batch = 1", "name a recipe file"),
    ],
)
def test_a_misspelt_file_is_answered_with_the_right_name(tmp_path, text, says):
    (tmp_path / "mine.toml").write_text(text, errors="surrogateescape")
    with pytest.raises(ValueError, match=says):
        read([str(tmp_path / "mine.toml")])


def test_an_unknown_file_or_flag_is_answered(capsys):
    for name in ("finetoon", "finetoon.toml", "recipes/finetune.tml"):
        with pytest.raises(ValueError, match=f"no recipe file {name}; .* mean 'finetune'"):
            read([name])
    for words in (["--method", "finetun"], ["--method=finetun"]):
        with pytest.raises(ValueError, match="did you mean 'finetune'"):
            read(words)
    with pytest.raises(ValueError, match="no method; name a recipe file"):
        read(["--method"])
    with pytest.raises(SystemExit):
        read(["finetune", "--bach", "3"])
    assert "--batch" in capsys.readouterr().err


def test_a_recipe_s_name_wins_over_a_folder_or_file_of_that_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lcm").mkdir()
    assert read(["lcm"]).method == "lcm_with_omega"
    (tmp_path / "dpo").write_text('method = "finetune"')
    assert read(["dpo"]).method == "dpo" and read(["./dpo"]).method == "finetune"


@pytest.mark.parametrize(
    ("flags", "count", "says"),
    [
        (["finetune", "--tiny"], 1, "--data is missing"),
        (
            [
                "pcm_adversarial",
                "--tiny",
                "--data",
                "d",
                "--lora-rank",
                "0",
                "--parallel",
                "fsdp",
            ],
            1,
            "fsdp with heads .discriminator.: they read .* use --parallel ddp",
        ),
        (
            ["swiftbrush", "--tiny", "--data", "d", "--parallel", "fsdp"],
            1,
            "fsdp with adapters .fake.: a twin shares",
        ),
        (
            ["lcm", "--tiny", "--data", "d", "--roles.target.decay", "1"],
            1,
            "--roles.target.decay 1: wanted at least 0 and below 1",
        ),
        (["lcm", "--tiny", "--data", "d", "--lora-rank", "4"], 1, "no input for ω"),
        (["finetune", "--data", "d"], 1, "neither --weights nor --tiny"),
        ([*OK, "--weights", "w"], 1, "both --weights and --tiny"),
        ([*OK, "--batch", "10", "--micro", "4"], 1, "try --batch 8"),
        ([*OK, "--batch", "8", "--micro", "4"], 4, "4 process.* try --batch 16"),
        (
            ["--method", "ct", "--family", "sd3", "--tiny", "--data", "d"],
            1,
            "λ = −∞ at t_max = 1 on flow",
        ),
        ([*OK, "--steps", "0"], 1, "--steps 0: wanted at least 1"),
        ([*OK, "--ema", "1"], 1, "--ema 1: wanted at least 0 and below 1"),
        (
            [*OK, "--prompts", "a cat", "caf\udce9"],
            1,
            r"^--prompts caf\\udce9: not UTF-8.*UTF-8$",
        ),
        ([*OK, "--prompts", "\ud83d"], 1, r"^--prompts \\ud83d: not UTF-8"),
        ([*OK, "--parallel", "fsdp", "--lora-rank", "4"], 1, "adapters .student.: a twin shares"),
    ],
)
def test_what_cannot_work_is_refused_before_the_work(flags, count, says):
    with pytest.raises(ValueError, match=says):
        check(read(flags), count)


@pytest.mark.parametrize(
    ("name", "sampler", "says"),
    [
        ("student", None, "does not say how its student is sampled"),
        (
            "net",
            Sampler("ddim", "lam", 4),
            'trains net, and what is shown .* is the part "student"',
        ),
    ],
)
def test_a_recipe_that_cannot_be_shown_is_refused_before_the_work(
    monkeypatch, name, sampler, says
):
    def method(schedule, null):
        return Recipe((Phase(name, lambda *given: None),), {name: Part("copy")}, sampler)

    monkeypatch.setitem(recipes.METHODS, "own", method)
    with pytest.raises(ValueError, match=says):
        check(read(["--method", "own", "--tiny", "--data", "d"]))


ONE, ZERO, SHARE = "at least 1", "at least 0", "at least 0 and below 1"
NUMBERS = {
    "--lr": ("-1 nan inf", ZERO),
    "--clip": ("-1 nan", ZERO),
    "--weight-decay": ("-0.1", ZERO),
    "--betas": ("2,3 0.9,1 -0.1,0.9 nan,0.9", SHARE),
    "--warmup": ("-5", ZERO),
    "--ema": ("1 -0.1 nan", SHARE),
    "--drop": ("1.5", SHARE),
    "--lora-rank": ("-4", ZERO),
    "--lora-alpha": ("0 -8 inf", "above 0"),
    "--seed": (f"-5 {2**64}", f"0 … {2**64 - 1}"),
    "--skip-rows": ("3,-1", ZERO),
    "--held-out": ("-1", ZERO),
    "--show-every": ("-1", ZERO),
    **{f"--{n}": ("0 -1", ONE) for n in "steps batch micro keep save-every log-every".split()},
    "--validate-every": ("0", ONE),
    "--roles.fake.lr": ("-1 nan", ZERO),
    "--roles.fake.betas": ("0.9,2", SHARE),
    "--roles.fake.clip": ("-1", ZERO),
    "--roles.fake.rank": ("-1", ZERO),
    "--roles.fake.alpha": ("0", "above 0"),
    "--hyper.omega": ("-1 nan inf", ZERO),
    "--hyper.omega-fake": ("-1", ZERO),
    "--hyper.fake-steps": ("0", ONE),
    "--hyper.dropout": ("1", SHARE),
    "--hyper.t-max": ("1.5 nan", "a time from 0 to 1"),
    "lcm --hyper.huber-c": ("-1 nan", ZERO),
    "lcm --hyper.omega": ("-1,2 2,nan", ZERO),
    "lcm --hyper.omega ": ("3,2", "the smaller one first"),
    "lcm --hyper.skip": ("0", ONE),
    "lcm --roles.target.decay": ("1 -1", SHARE),
    "ect --hyper.q": ("1", "above 1"),
    "ect --hyper.every": ("0", ONE),
    "ect --hyper.mean": ("nan inf", "a finite number"),
    "dpo --hyper.beta": ("0 -1 nan", "above 0"),
    "ddpo --hyper.group": ("0", ONE),
    "ddpo --hyper.kl": ("-1 nan", ZERO),
    "flow_grpo --hyper.noise": ("0", "above 0"),
}


@pytest.mark.parametrize("flag", NUMBERS)
def test_a_number_that_no_run_can_have_is_named_with_its_flag(flag):
    """In training, and in what reads the same flags; and a method has what its row names."""
    values, wanted = NUMBERS[flag]
    recipe, _, name = f"swiftbrush {flag}".rpartition(" --")
    for value in values.split():
        words = [recipe.split()[-1], "--tiny", "--data", "d", f"--{name.strip()}"]
        said = value.replace(",", " ")
        with pytest.raises(ValueError) as found:
            check(read([*words, *said.split()]))
        shown = re.escape(f"--{name.strip()} {said}")
        assert re.fullmatch(f"{shown}: wanted {wanted}", str(found.value)), found.value


def test_every_hyper_parameter_of_the_table_is_a_method_s():
    known = {n for f in recipes.METHODS.values() for n in inspect.signature(f).parameters}
    assert {*HYPER} <= known and {*RUN} <= {*vars(read(["finetune"]))} | {*ROLE}


@pytest.mark.parametrize("run", [rehearse, estimate.main])
def test_an_estimate_refuses_such_numbers_too(run, capsys):
    words = ["finetune", "--tiny", "--micro", "0"]
    with pytest.raises((ValueError, SystemExit), match="--micro 0: wanted at least 1"):
        run(words if run is estimate.main else read(words))


def test_an_out_that_cannot_be_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    for out in ("file", "file/run"):
        with pytest.raises(ValueError, match=f"--out .*{out}: .*file is a file, wanted a folder"):
            check(read([*OK, "--out", str(tmp_path / out)]))


@pytest.mark.parametrize(
    ("rows", "count", "batch", "micro", "says"),
    [
        (40, 1, 64, 8, "pass --batch 40, or"),
        (40, 3, 48, 4, "on 3 process.*pass --batch 36, or"),
        (40, 8, 64, 8, "pass --micro 1 --batch 40, or"),
        (5, 8, 8, 1, "prepare at least 8 rows, or start at most 5"),
    ],
)
def test_too_few_rows_for_these_processes_are_answered_with_what_works(
    rows, count, batch, micro, says
):
    flags = [*OK, "--batch", str(batch), "--micro", str(micro)]
    with pytest.raises(ValueError, match=says):
        check_rows(read(flags), range(rows), count)
    check_rows(read(flags), range(batch), count)
    if found := re.search(r"(?:--micro 1 )?--batch \d+", says):
        better = read([*OK, "--micro", str(micro), *found[0].split()])
        check(better, count)
        check_rows(better, range(rows), count)


def test_no_row_left_to_train_on_is_said_as_it_is():
    for flags, says in (
        (["--held-out", "100"], "--held-out 100: somewhere has 60 rows: hold out fewer"),
        (["--held-out", "60"], "--held-out 60: somewhere has 60 rows: hold out fewer"),
        (["--skip-rows", *map(str, range(60))], "no row of somewhere is left .*: skip fewer"),
        (["--held-out", "59", "--skip-rows", "0"], "--skip-rows 0: no row of somewhere is left"),
    ):
        with pytest.raises(ValueError, match=says):
            check_rows(read([*OK, *flags]), range(60))


def test_an_unknown_weight_is_named():
    with pytest.raises(ValueError, match="no weight 'epsilon'; there are elbo, eps"):
        recipe_of(read([*OK, "--hyper.weight", "epsilon"]), None, None)


def test_the_learning_rate_rises_and_falls():
    s = read([*OK, "--lr", "2", "--warmup", "4", "--steps", "12", "--schedule", "cosine"])
    rates = [learning_rate(s, "student", step) for step in range(12)]
    assert (
        rates[:4] == [0.5, 1.0, 1.5, 2.0]
        and rates[8] == pytest.approx(1.0)
        and rates == sorted(rates[:5]) + sorted(rates[5:], reverse=True)
    )
    line = read([*OK, "--lr", "2", "--warmup", "0", "--steps", "4", "--schedule", "linear"])
    assert [learning_rate(line, "student", step) for step in range(4)] == [2.0, 1.5, 1.0, 0.5]
    brush = read(["swiftbrush", "--tiny", "--data", "d", "--lr", "2"])
    assert learning_rate(brush, "fake", 0) == 1e-3 and learning_rate(brush, "student", 0) == 2.0


def test_a_role_has_a_table_and_what_it_leaves_out_is_the_student_s():
    s = read(["swiftbrush", "--tiny", "--data", "d", "--roles.fake.betas", "0", "0.99"])
    fake, student = role_of(s, "fake"), role_of(s, "student")
    assert (fake.lr, fake.rank, fake.betas) == (1e-3, 64, (0.0, 0.99))
    assert (student.lr, student.rank, student.betas) == (1e-6, 0, (0.9, 0.999))
    assert fake.alpha == student.alpha == 108.0


def test_a_role_that_the_method_has_not_is_named(tmp_path):
    file = tmp_path / "mine.toml"
    file.write_text('method = "swiftbrush"\n[roles.fakes]\nlr = 1.0\n')
    with pytest.raises(
        ValueError, match="key roles. 'fakes' does not exist: did you mean 'fake'"
    ):
        read([str(file)])
    file.write_text('method = "swiftbrush"\n[roles.fake]\nrnk = 1\n')
    with pytest.raises(ValueError, match="key roles.fake. 'rnk' does not exist: did you mean"):
        read([str(file)])


def test_nothing_near_is_no_suggestion():
    assert nearest("zzz", ["batch"]) == "" and "batch" in nearest("batsch", ["batch", "micro"])


def test_prompts_alone_are_enough_for_methods_that_look_at_no_picture(monkeypatch):
    """The engine asks the data for pictures, or not, as the recipe says."""
    from types import SimpleNamespace

    import torch

    from full_scale import train

    asked = []
    monkeypatch.setattr(train, "open_start", lambda *given: SimpleNamespace(told=False))
    monkeypatch.setattr(
        train,
        "Rows",
        lambda folder, reads: SimpleNamespace(
            pictures=False, check=lambda family, batch: asked.append(reads)
        ),
    )
    monkeypatch.setattr(train, "check_rows", lambda *given: None)
    monkeypatch.setattr(train, "Engine", lambda *given: None)
    for method in ("swiftbrush", "finetune"):
        train.open_engine(
            read([method, "--tiny", "--data", "d", "--show-every", "0"]),
            SimpleNamespace(device=torch.device("cpu"), leads=False, size=1),
        )
    assert asked == ["texts", "pictures"]


def test_a_run_is_the_chapter_s_own_code_and_a_copy_is_seen(monkeypatch):
    """Chapter 20 says it of SwiftBrush: what `recipe_of` returns was made by the function of
    dlib, not by one that reads the same.
    """
    schedule, asked = discrete(scaled_linear()), read(["swiftbrush"])
    code = lambda recipe: inspect.getclosurevars(recipe.phases[0].loss).nonlocals["loss"].__code__
    ours = code(recipes.swiftbrush(schedule, None))
    assert code(recipe_of(asked, schedule, None)) is ours
    scope = dict(vars(inspect.getmodule(recipes.swiftbrush)))
    exec(inspect.getsource(recipes.swiftbrush), scope)
    monkeypatch.setitem(recipes.METHODS, "swiftbrush", scope["swiftbrush"])
    assert code(recipe_of(asked, schedule, None)) is not ours


def test_the_shipped_swiftbrush_guides_both_scores_as_published():
    """The released code's scale is 4.5 = 1 + ω, on the teacher and on the fake."""
    inner = inspect.getclosurevars(
        recipe_of(read(["swiftbrush"]), discrete(scaled_linear()), None).phases[0].loss
    ).nonlocals["loss"]
    found = inspect.getclosurevars(inner).nonlocals
    assert (found["omega"], found["omega_fake"]) == (3.5, 3.5)
