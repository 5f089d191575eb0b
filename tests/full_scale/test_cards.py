"""What a model card says is so: its code makes a picture without this repository, stock
diffusers makes the pictures that it is said to make, and what it cannot do is said.
"""

import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
import torch
import tyro
from diffusers import DDIMScheduler
from PIL import Image

import full_scale.sample as sampling
from dlib import SOLVERS, discrete, grid, scaled_linear
from dlib.lora import adapters, twin
from dlib.recipes import METHODS
from full_scale import export
from full_scale.families import open_family
from full_scale.families.unet import STOCK, TRAILING
from full_scale.out import card
from full_scale.run.recipe_file import RECIPES
from full_scale.run.settings import as_table, read, recipe_from
from full_scale.sampling.request import Config

FILES = sorted(path.stem for path in RECIPES.glob("*.toml") if path.stem != "lcm_shapes")
WORDS = {name: [name] for name in FILES} | {
    name: ["--method", name] for name in METHODS if name not in FILES
}
PHASES = {f"pcm, {n} phases": ["pcm", "--hyper.phases", f"{n}"] for n in (2, 8)}
WORDS |= PHASES
WORDS["in time"] = ["progressive", "--hyper.spacing", "time"]
NOT_STOCK = {"diff_instruct", "in time"}
COMPARED = {"ect", "pcm_normalcfg", "lcm_with_omega", "consistency_distillation", *PHASES}
"""Beside the recipes whose two pictures `test_train.py` compares."""

ALONE = """
import sys

class Absent:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] in ("dlib", "full_scale", "toy_data"):
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
import torch
"""


def about(*words, family="sd"):
    """What an export of a run with these words says of itself."""
    s = as_table(
        read([*words, "--family", family, "--tiny", "--out", "run", "--prompts", "a red circle"])
    )
    s |= {"sampler": recipe_from(s).sampler.facts}
    return dict(what="student", step=1, settings=s, licence=None, versions={})


def code_of(said: str) -> str | None:
    """The Python of a card."""
    found = re.search("```python\n(.*?)```", said, re.DOTALL)
    return found and found[1]


def written(folder, family, facts):
    """An export, as `full_scale.export` writes it, of the weights that a run starts from."""
    s = facts["settings"]
    call = family.denoiser().net
    if s["lora_rank"]:
        torch.manual_seed(0)
        found = adapters(twin(call, s["lora_rank"], s["lora_alpha"], s["lora_targets"]))
    else:
        call = family.told_omega(call) if recipe_from(s).told else call
        found = {name: weight.detach().clone() for name, weight in call.named_parameters()}
    folder.mkdir()
    export.write(folder, family, found, facts)
    return (folder / "README.md").read_text()


def ours(said: str, folder: str) -> np.ndarray:
    """The picture of a card's shell line, made in this process."""
    line = re.search(r"python -m full_scale.sample (.*)", said)[1].replace(
        "FOLDER", shlex.quote(folder)
    )
    made = sampling.run(tyro.cli(Config, args=shlex.split(line)))
    return np.asarray(Image.open(made / "grid.png")).astype(int)


def test_every_card_is_run_alone_or_names_what_runs_it(family, eps_pipe, tmp_path, monkeypatch):
    """All the code of all cards on Stable Diffusion's weights, each once, in one process that
    can import nothing of this repository; where there is none, the command, here.
    """
    monkeypatch.chdir(tmp_path)
    eps_pipe.save_pretrained("WEIGHTS")  # the name that cards give to tiny weights
    made, script, said, folder = set(), ALONE, {}, "of {}".format
    for name, words in WORDS.items():
        facts = about(*words)
        s = facts["settings"]
        code = code_of(card.text(facts, lora=bool(s["lora_rank"])))
        assert (code is None) == (name in NOT_STOCK), name
        key = code, card.scheduler(s)[0], recipe_from(s).told
        if key in made and name not in COMPARED | NOT_STOCK:
            continue  # the same code on a folder like that one
        made.add(key)
        said[name] = written(tmp_path / folder(name), family, facts)
        assert code_of(said[name]) == code
        if code:
            script += f"FOLDER, seed = {folder(name)!r}, torch.Generator().manual_seed(0)\n"
            script += code.replace("= pipe(", "= pipe(generator=seed, prompt=")
            script += f"picture.save({name + '.png'!r})\n"
    script += "assert not {'dlib', 'full_scale'} & set(sys.modules)\n"
    assert script.count("picture.save") == len(said) - len(NOT_STOCK) >= 12
    assert "eta=0.3" in script and script.count("load_lora_weights") >= 3
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    for name, text in said.items():
        if name in NOT_STOCK:
            assert "No scheduler of diffusers" in text and "diffusers import" not in text
            assert ours(text, folder(name)).std() > 5
            continue
        theirs = np.asarray(Image.open(f"{name}.png")).astype(int)
        assert theirs.shape == (128, 128, 3) and theirs.std() > 5, name
        assert ("since 32 does not divide 1000" in text) == (name == "progressive")
        if name in COMPARED:
            assert np.abs(ours(text, folder(name)) - theirs).max() <= 2, name
    facts = about("ect", family="shapes")  # which diffusers does not know
    shapes = open_family("shapes", None, torch.device("cpu"))
    said = written(tmp_path / "shapes", shapes, facts)
    assert code_of(said) is None and ours(said, "shapes").std() > 5


def test_diffusers_ddim_meets_its_own_levels_where_the_card_says_so(eps_pipe):
    """For each number of steps up to 50: the levels that it starts at, and those that it steps
    to; the last is σ = 0.
    """
    facts = about("progressive")
    stock_ddim = DDIMScheduler.from_config(eps_pipe.scheduler.config, **TRAILING)
    for n in range(1, 51):
        facts["settings"]["sampler"]["steps"] = n
        stock_ddim.set_timesteps(n)
        starts = stock_ddim.timesteps.tolist()
        x, lands = torch.ones(1, dtype=torch.float64), []
        for t in starts:
            eps = torch.zeros_like(x)  # so that a step is a ratio of two α
            lands.append(float(stock_ddim.step(eps, t, x).prev_sample) ** 2)
        alphas = stock_ddim.alphas_cumprod.double()
        wanted = [*(alphas[starts[1:]] / alphas[starts[:-1]]), 1 / alphas[starts[-1]]]
        met = len(starts) == n and lands == pytest.approx([float(w) for w in wanted], rel=1e-5)
        assert met == (card.stock(facts["settings"])[1] == card.SAME), n
        if met:
            ladder = grid(discrete(scaled_linear()), n, "sd_trailing")
            assert starts == (1000 * ladder[:-1] - 1).round().tolist()


@pytest.mark.parametrize(
    ("family", "words", "says"),
    [
        ("sd", ["pcm"], card.SAME),
        ("sd", ["pcm", "--hyper.spacing", "time"], card.NOT),
        ("sd", ["--method", "knowledge", "--hyper.start", "0.9"], card.NOT),
        ("sd3", ["lcm"], card.NOT),
        ("sd3", ["finetune"], card.OWN.format(solver="dpm_solver_pp_2m")),
    ],
)
def test_a_card_says_what_stock_diffusers_does(family, words, says):
    facts = about(*words, family=family)
    assert says in card.text(facts, lora=False)
    assert card.stock(facts["settings"]) == (says != card.NOT, says)


def test_a_solver_without_a_scheduler_of_diffusers_is_said_to_have_none():
    """Every solver, on the levels of each of the schedulers: the picture is the same by the
    table's pairs alone.
    """
    s, same = about("progressive")["settings"], set()
    walks = [("sd_trailing", "clean"), ("lcm", "clean"), ("lcm", "grid")]
    for solver in SOLVERS:
        for spacing, end in walks:
            s["sampler"] |= {"solver": solver, "spacing": spacing, "end": end, "steps": 4}
            able, said = card.stock(s)
            same |= {(solver, spacing, end)} if said == card.SAME else set()
            assert said in (card.SAME, card.OWN.format(solver=card.MANY), card.NOT)
            assert (said == card.NOT) == (not able)
            assert solver == card.MANY or solver in STOCK or said == card.NOT
            assert solver in STOCK or card.scheduler(s) == ("", {})
    assert same == {
        ("ddim", *walks[0]),
        ("dpm_solver_1", *walks[0]),
        ("lcm", *walks[1]),
        ("tcd", *walks[2]),
    }
    assert STOCK.keys() <= SOLVERS.keys() and card.MANY in SOLVERS
