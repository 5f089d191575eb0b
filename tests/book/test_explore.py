"""The page Explore: its numbers are dlib's, its files are light, and its sliders move what
they should, by mouse or by key.
"""

import base64
import json
import threading

import numpy as np
import pytest

from book import explore
from book.site import server


def _load(text):
    return json.loads(text.split(" = ", 1)[1].rstrip().rstrip(";"))


def _close(old, new, unit):
    """Packed numbers agree to one unit, for another machine's rounding."""
    a, b = (np.frombuffer(base64.b64decode(text), unit).astype(int) for text in (old, new))
    return a.shape == b.shape and np.abs(a - b).max() <= 1


@pytest.fixture(scope="module")
def fresh():
    return {name: _load(text.split("\n", 1)[1]) for name, text in explore.scripts().items()}


def kept(name):
    return _load((explore.ASSETS / f"explore-{name}.js").read_text().split("\n", 1)[1])


def test_the_committed_trajectories_are_what_the_library_computes(fresh):
    old, new = kept("paths"), fresh["paths"]
    assert (
        old["choices"] == new["choices"] and len(old["runs"]) == len(new["runs"]) == 3 * 4 * 5 * 4
    )
    for a, b in zip(old["runs"], new["runs"]):
        assert (
            a["at"] == b["at"]
            and a["error"] == pytest.approx(b["error"], rel=0.02)
            and _close(a["path"], b["path"], "<i2")
        )


def test_the_committed_rounds_are_what_the_library_computes(fresh):
    old, new = kept("relaxation"), fresh["relaxation"]
    for a, b in zip(old["runs"], new["runs"], strict=True):
        assert (a["name"], a["rounds"], a["at"]) == (b["name"], b["rounds"], b["at"])
        assert _close(a["path"], b["path"], "<i2") and _close(a["errors"], b["errors"], "u1")
        errors = np.frombuffer(base64.b64decode(a["errors"]), np.uint8).reshape(
            a["rounds"] + 1, len(a["at"])
        )
        assert all((errors[k, : k + 1] == 0).all() for k in range(a["rounds"] + 1)), (
            "point k is exact after k rounds"
        )
        assert errors[:-1].any(axis=1).all() and not errors[-1].any()


def test_what_the_page_says_of_the_trajectories_is_so(fresh):
    """Schedule, solver, calls, guidance, by their places on the sliders."""
    error = {tuple(run["at"]): run["error"] for run in fresh["paths"]["runs"]}
    assert all(
        error[1, 0, n, g]
        == pytest.approx(error[1, 1, n, g], rel=0.011)  # one in the last of 3 digits
        for n in range(5)
        for g in range(4)
    ), "on straight paths Euler is DDIM"
    assert all(error[2, 0, 0, g] > 5 * error[2, 1, 0, g] for g in range(4)), (
        "on EDM's schedule it is lost with four calls"
    )
    for solver, apart in ((1, 1.2), (2, 1.5)):
        assert all(
            max(error[s, solver, n, g] for s in range(3))
            < apart * min(error[s, solver, n, g] for s in range(3))
            for n in range(5)
            for g in range(4)
        )
    assert all(
        error[s, 3, 0, g] > error[s, 1, 0, g] and 2 * error[s, 3, 3, g] < error[s, 1, 3, g]
        for s in range(3)
        for g in range(4)
    ), "high order pays late"
    assert all(error[s, 1, n, 3] > error[s, 1, n, 1] for s in range(3) for n in range(5)), (
        "guidance makes it harder"
    )


def test_the_files_are_light_and_the_page_computes_nothing():
    for path in explore.ASSETS.glob("explore-*"):
        assert path.stat().st_size <= 300_000, path.name
    script = (explore.ASSETS / "explore.js").read_text()
    assert not any(
        word in script for word in ("Math.exp", "Math.log", "sigma", "alpha", "import(", "fetch(")
    )


@pytest.fixture(scope="module")
def address(real_site):
    with server(real_site, 8931) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/explore.html"
        http.shutdown()


@pytest.fixture
def page(chromium, address):
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    yield page
    context.close()


def ink(figure):
    return figure.evaluate(
        "figure => { const c = figure.querySelector('canvas'); return c.toDataURL() }"
    )


def test_sliders_move_the_trajectories(page, address):
    page.goto(address)
    figure = page.locator("#paths.live")
    figure.wait_for()
    before, said = ink(figure), figure.locator(".explore-readout").inner_text()
    errors = {tuple(run["at"]): run["error"] for run in kept("paths")["runs"]}
    assert said == f"off the exact end points by {errors[0, 1, 1, 0]:.2g}"
    for place, (slider, steps) in enumerate(
        (("schedule", 2), ("solver", 1), ("network calls", 3), ("guidance", 2))
    ):
        box = figure.get_by_role("slider", name=slider, exact=True)
        box.focus()
        for _ in range(steps):
            page.keyboard.press("ArrowRight")
    assert figure.locator("output").all_inner_texts() == [
        "variance exploding (EDM)",
        "DPM-Solver++(2M)",
        "22",
        "ω = 1",
    ]
    assert float(figure.locator(".explore-readout").inner_text().split()[-1]) == pytest.approx(
        errors[2, 2, 4, 2], rel=0.06
    )
    assert ink(figure) != before and figure.locator("canvas").get_attribute(
        "aria-label"
    ).endswith(figure.locator(".explore-readout").inner_text())


def test_rounds_are_scrubbed_and_end_exact(page, address):
    page.goto(address)
    page.locator("#relaxation").scroll_into_view_if_needed()
    figure = page.locator("#relaxation.live")
    figure.wait_for()
    rounds = figure.get_by_role("slider", name="round", exact=True)
    seen = []
    for place in (0, 3, 10_000):
        rounds.fill(str(min(place, int(rounds.get_attribute("max")))))
        seen.append((ink(figure), figure.locator(".explore-readout").inner_text()))
    assert (
        len(set(seen)) == 3
        and int(seen[1][1].split()[3]) >= 4
        and "every point within 1e-10" in seen[2][1]
    )
    most = int(rounds.get_attribute("max"))
    figure.get_by_role("slider", name="method", exact=True).fill("2")
    assert int(rounds.get_attribute("max")) > most, "with noise it takes more rounds"


def test_data_wait_until_the_figure_is_near(page, address):
    asked = []
    page.on("request", lambda request: asked.append(request.url.rsplit("/", 1)[-1]))
    page.set_viewport_size({"width": 1280, "height": 300})
    page.goto(address)
    page.wait_for_timeout(300)
    assert "explore-relaxation.js" not in asked
    page.locator("#relaxation").scroll_into_view_if_needed()
    page.locator("#relaxation.live").wait_for()
    assert "explore-relaxation.js" in asked


def test_without_scripts_and_in_print_there_is_a_picture(chromium, address):
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(address)
    assert page.locator("#paths img").is_visible() and page.locator("#paths canvas").count() == 0
    context.close()
    context = chromium.new_context()
    page = context.new_page()
    page.goto(address)
    page.locator("#paths.live").wait_for()
    assert not page.locator("#paths img").is_visible()
    page.emulate_media(media="print")
    assert (
        page.locator("#paths img").is_visible() and not page.locator("#paths canvas").is_visible()
    )
    context.close()
