// Loads MathJax (copied beside this file when the site is built) on pages that have formulas; fits wide equations and makes wide boxes reachable.
(() => {
  const here = new URL(".", document.currentScript.src);

  window.MathJax = {
    loader: {
      paths: { mathjax: new URL("mathjax", here).href },
      load: ["core", "input/tex-base", "[tex]/ams", "[tex]/boldsymbol", "output/svg", "a11y/assistive-mml"],
    },
    tex: {
      packages: ["base", "ams", "boldsymbol"],
      inlineMath: [["\\(", "\\)"]],
      displayMath: [["\\[", "\\]"]],
      tagSide: "right",
    },
    options: { ignoreHtmlClass: ".*", processHtmlClass: "arithmatex|md-nav__link" },
    svg: { fontCache: "global" },
  };

  // A full stop after a formula must not start a line.
  const keepTogether = () => {
    for (const formula of document.querySelectorAll("span.arithmatex")) {
      const next = formula.nextSibling;
      const mark = next?.nodeType === Node.TEXT_NODE && next.data.match(/^[.,;:!?)\]]+/);
      if (!mark) continue;
      const pair = document.createElement("span");
      pair.className = "together";
      formula.before(pair);
      next.data = next.data.slice(mark[0].length);
      pair.append(formula, mark[0]);
    }
  };

  // Tells the style sheet how many ems a displayed equation wants, its number included: MathJax counts in ex, and also where nothing is shown yet.
  const measure = () => {
    const probe = document.createElement("span");
    probe.style.cssText = "position: absolute; width: 100ex; font-size: 100px";
    document.querySelector("article").append(probe);
    const ex = probe.getBoundingClientRect().width / 1e4;
    probe.remove();
    for (const formula of document.querySelectorAll("div.arithmatex > mjx-container")) {
      const width = formula.style.minWidth || formula.querySelector("svg").getAttribute("width");
      formula.style.setProperty("--ems", (parseFloat(width) * ex).toFixed(3));
    }
  };

  // Boxes that scroll sideways can be reached and scrolled with the keyboard.
  const reachable = () => {
    for (const box of document.querySelectorAll("div.arithmatex, .md-typeset__scrollwrap, .highlight code")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    }
  };

  document.addEventListener("DOMContentLoaded", () => {
    if (!document.querySelector(".arithmatex")) return reachable();
    keepTogether();
    const script = document.createElement("script");
    script.src = new URL("mathjax/startup.js", here).href;
    script.onload = () => window.MathJax.startup.promise.then(measure).then(reachable);
    document.head.append(script);
  });
})();
