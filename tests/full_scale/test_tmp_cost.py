from full_scale.cost.needs import needs
from full_scale.run.settings import read


def test_it(sd15):
    for words in (
        ["finetune", "--micro", "2"],
        ["finetune", "--micro", "2", "--recompute"],
        ["ect", "--micro", "2"],
        ["ect", "--micro", "2", "--no-recompute"],
        ["ect", "--micro", "9"],
    ):
        s = read([*words, "--weights", str(sd15)])
        need = needs(s, 8)
        print(
            words,
            s.recompute,
            [(n, c.flops / 1e12 / s.micro, c.peak / 1e9) for n, e, c in need.phases],
        )
