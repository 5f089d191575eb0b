"""The site in a real browser: formulas, references, search, schemes, narrow screens, paper, and
not one request to elsewhere.
"""

import re
import threading
from pathlib import Path

import pytest
from tinybook import STEM

from book.site import server

PAGE = f"chapters/{STEM}.html"
WORD = "extrapolate"
LAYOUT = (Path(__file__).parent / "layout.js").read_text(encoding="utf-8")
WIDE, NARROW = ("screen", 1440), ("screen", 360)
PAPER = ("print", 670)  # A4 between the style sheet's margins


@pytest.fixture(scope="module")
def served(real_site):
    """(folder, address) of this book's site, served over http."""
    with server(real_site, 8901) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield real_site, f"http://127.0.0.1:{http.server_port}/"
        http.shutdown()


@pytest.fixture
def open_page(chromium, served):
    """Opens a page and waits until its formulas are set; at the end, the console must be clean
    and no request have left.
    """
    _, address = served
    complaints, contexts = [], []

    def complain(wrong: bool, what: str) -> None:
        unsearchable = (
            what.startswith(("failed: file:", "Failed to load resource", "Invalid script: file:"))
            and "file:" in what
            and "search_index.js" in what
        )
        # from a folder, the search finds nothing: browsers allow no worker there
        if wrong and not unsearchable:
            complaints.append(what)

    def open_page(path, width=1280, scheme="light", base=address):
        context = chromium.new_context(
            viewport={"width": width, "height": 800}, color_scheme=scheme, reduced_motion="reduce"
        )
        contexts.append(context)
        page = context.new_page()
        page.on(
            "console",
            lambda message: complain(
                message.type in ("error", "warning"),
                f"{message.text} ({message.location['url']})",
            ),
        )
        page.on("pageerror", lambda error: complain(True, str(error)))
        # aborted: the page was left
        page.on(
            "requestfailed",
            lambda request: complain(
                request.failure != "net::ERR_ABORTED", f"failed: {request.url}"
            ),
        )
        page.on(
            "request",
            lambda request: complain(
                not request.url.startswith((base, "data:")), f"asked for {request.url}"
            ),
        )
        page.goto(base + path)
        settle(page)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def settle(page) -> None:
    """Wait until every formula is set, if the page has any."""
    page.wait_for_load_state("load")
    page.wait_for_function(
        "document.querySelectorAll('.arithmatex').length === "
        "document.querySelectorAll('.arithmatex > mjx-container').length && "
        "[...document.querySelectorAll('div.arithmatex > mjx-container')]"
        ".every(formula => formula.style.getPropertyValue('--ems'))"
    )


def layout(page, media, width):
    """What cannot be seen of the open page; on a narrow screen, boxes may scroll sideways."""
    page.emulate_media(media=media)
    page.set_viewport_size({"width": width, "height": 800})
    return page.evaluate(LAYOUT, (media, width) == NARROW)


def pages(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))


def test_maths_is_set_and_references_lead_to_their_equation(open_page):
    page = open_page(PAGE)
    assert (
        page.locator("mjx-container").count() >= 8
        and page.locator("mjx-merror, [data-mml-node=merror]").count() == 0
    )
    assert not re.search(r"\$\$|\\\(|\\\[|\\tag|\\eqref", page.evaluate(PROSE))
    reference = page.locator("article a[href^='#eq-']").first
    number, target = reference.inner_text(), reference.get_attribute("href")
    assert (
        number.strip("()")
        in page.locator(f".equation{target} mjx-assistive-mml").first.text_content()
    )
    reference.click()
    assert page.url.endswith(target) and 0 <= page.locator(target).bounding_box()["y"] < 800


def test_search_finds_a_word_of_the_chapter(open_page):
    page = open_page("index.html")
    page.locator("[data-md-component=search-query]").click()
    page.keyboard.type(WORD)
    result = page.locator(f".md-search-result__link[href*='{STEM}']").first
    result.wait_for(timeout=10_000)
    assert WORD in page.locator(".md-search-result").inner_text().lower()


def test_the_scheme_follows_the_system_and_the_toggle(open_page):
    background = "getComputedStyle(document.body).backgroundColor"
    dark, light = open_page(PAGE, scheme="dark"), open_page(PAGE)
    night, day = dark.evaluate(background), light.evaluate(background)
    assert (day, night) == ("rgb(253, 252, 249)", "rgb(20, 24, 27)")
    light.locator("label.md-header__button[title='Switch to dark mode']").click()
    light.wait_for_function(f"{background} === '{night}'")


def test_on_every_page_nothing_is_cut_or_covered_and_every_picture_has_words(open_page, served):
    page, wrong = open_page("index.html"), []
    # every page would index the whole book for its search, which nobody uses here
    page.route("**/search_index.json", lambda route: route.fulfill(json=NO_BOOK))
    for path in pages(served[0]):
        page.emulate_media(media="screen")
        page.goto(served[1] + path)
        settle(page)
        for view in (WIDE, NARROW, PAPER):
            wrong += [f"{path}, {view}: {what}" for what in layout(page, *view)]
        if page.evaluate("[...document.images].filter(image => !image.alt.trim()).length"):
            wrong.append(f"{path}: a picture without words")
        if page.locator("h1").count() != 1:
            wrong.append(f"{path}: {page.locator('h1').count()} headings of the first rank")
    assert not wrong, "\n".join(wrong[:20])


def test_what_is_cut_or_covered_is_found(open_page):
    page = open_page(PAGE)
    for says, view, style in SPOILT:
        page.evaluate(
            "css => document.head.append(Object.assign(document.createElement('style'), "
            "{ id: 'spoilt', textContent: css }))",
            style,
        )
        found = layout(page, *view)
        assert any(what.startswith(says) for what in found), (style, found)
        page.evaluate("document.getElementById('spoilt').remove()")
    assert all(layout(page, *view) == [] for view in (WIDE, NARROW, PAPER))


def test_paper_shows_what_is_folded_and_is_white(open_page):
    page = open_page(PAGE, scheme="dark")
    page.emulate_media(media="print")
    assert (
        page.evaluate(
            "[...document.querySelectorAll('article details')].map(details => [details.open, "
            "[...details.children].every(child => child.checkVisibility())])"
        )
        == [[False, True]] * page.locator("article details").count()
    )
    assert page.locator("article details").count() >= 2
    assert (
        page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )


def test_wide_equations_scroll_in_their_own_box_by_keyboard(open_page):
    page = open_page(PAGE, width=360)
    wide = (
        "[...document.querySelectorAll('div.arithmatex')].filter(box => box.scrollWidth > "
        "box.clientWidth)"
    )
    page.wait_for_function(f"{wide}.length > 0 && {wide}.every(box => box.tabIndex === 0)")


def test_the_first_tab_skips_to_the_content(open_page):
    page = open_page(PAGE)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.classList.contains('md-skip')")


def test_text_stands_out_from_its_ground(open_page):
    for scheme in ("light", "dark"):
        page = open_page(PAGE, scheme=scheme)
        assert page.evaluate(CONTRAST) == []


def test_pages_formulas_and_figures_work_from_a_folder(open_page, served):
    page = open_page(PAGE, base=served[0].as_uri() + "/")
    page.locator("article figure img").first.scroll_into_view_if_needed()
    page.wait_for_function("document.querySelector('article figure img').naturalWidth > 0")
    page.locator(".md-footer__link--next").click()  # relative links work from a folder too
    settle(page)
    assert page.locator("mjx-container").count() > 20


def test_the_home_page_experiment_runs(open_page):
    page = open_page("index.html")
    errors = page.locator(".panel span")
    first, second = (float(errors.nth(i).inner_text().split()[-1]) for i in (0, 1))
    assert 0 < second < first / 2
    page.locator("#steps").fill(page.locator("#steps").get_attribute("max"))
    page.wait_for_function(
        "parseFloat(document.querySelectorAll('.panel span')[1].innerText.split(' ').pop()) < "
        f"{second} / 4"
    )
    ink = (
        "(() => { const c = document.querySelector('.panel canvas'); return "
        "c.getContext('2d').getImageData(0, 0, c.width, c.height).data.some(v => v) })()"
    )
    page.wait_for_function(ink)


NO_BOOK = {"config": {"lang": [], "separator": " ", "pipeline": [], "fields": {}}, "docs": []}

# What layout.js must say of a page that is spoilt by a line of style.
SPOILT = [
    ("must be scrolled", WIDE, ".cell code { font-size: 1rem !important }"),
    (
        "must be scrolled",
        PAPER,
        ".cell code { white-space: pre !important; overflow: auto !important; width: 9rem }",
    ),
    ("cut", NARROW, ".highlight code { overflow: hidden !important }"),
    (
        "cut",
        PAPER,
        ".cell { width: 9rem; overflow: hidden } .cell code { white-space: pre !important }",
    ),
    ("lies over a list", WIDE, ".cell { margin-left: -9rem !important }"),
    ("the page is", NARROW, "article p { white-space: nowrap }"),
    ("leaves the page", PAPER, ".equation > div > mjx-container { font-size: 3em !important }"),
    ("under the copy button", WIDE, ".md-code__nav { right: 12rem !important }"),
    ("lies over the block before", WIDE, "article > figure { margin-top: -4rem !important }"),
    ("has no number", WIDE, "svg[data-labels] { display: none }"),
    ("its number lies on it", WIDE, "svg[data-labels] { transform: translateX(-35%) }"),
]

# What is written in the article's paragraphs, lists and tables, without their code.
PROSE = """
[...document.querySelectorAll('article :is(p, li, td, figcaption)')].map(element => {
  const copy = element.cloneNode(true);
  copy.querySelectorAll('code, pre').forEach(code => code.remove());
  return copy.innerText;
}).join('\\n')
"""

# Elements whose own text has less contrast with their ground than WCAG AA asks for (4.5, or 3 for
# large text).
CONTRAST = """
(() => {
  const pen = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colour, under) => {
    pen.fillStyle = under; pen.fillRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
    return [...pen.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (c) => c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4).reduce((s, v, i) => s + v * [.2126, .7152, .0722][i], 0);
  const ground = (e) => { let chain = []; for (; e; e = e.parentElement) chain.unshift(getComputedStyle(e).backgroundColor);
    return chain.reduce((under, colour) => `rgb(${rgb(colour, under).join()})`, 'rgb(255,255,255)'); };
  return [...document.querySelectorAll('article *, .md-nav__link, .md-footer *')].filter(e =>
    [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.checkVisibility() && !e.closest('mjx-container, .headerlink, .md-button')
  ).map(e => {
    const style = getComputedStyle(e), under = ground(e), [a, b] = [light(rgb(style.color, under)), light(rgb(under, under))];
    return [(Math.max(a, b) + .05) / (Math.min(a, b) + .05), parseFloat(style.fontSize), e.className + ': ' + e.innerText.slice(0, 30)];
  }).filter(([ratio, size]) => ratio < (size >= 24 ? 3 : 4.5)).map(([ratio, , what]) => ratio.toFixed(2) + ' ' + what).slice(0, 10);
})()
"""
