// What a reader of the page that is open could not see, a line each. narrow: boxes may scroll sideways.
(narrow) => {
  const found = new Map(), article = document.querySelector("article"), room = document.documentElement.clientWidth;
  const tell = (what, node) => {
    const element = node.nodeType === 1 ? node : node.parentElement, block = element.closest("pre, table, article > *") ?? element;
    if (!found.has(block)) found.set(block, `${what}: ${node.textContent.trim().slice(0, 60)} (in ${block.localName} ${block.className || block.parentElement.className})`);
  };
  const seen = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const boxes = (selector) => [...document.querySelectorAll(selector)].filter(seen).map((element) => [element, element.getBoundingClientRect()]);
  const meets = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1;
  if (document.documentElement.scrollWidth > room) found.set(document, `the page is ${document.documentElement.scrollWidth} px wide in a window of ${room}`);

  for (const details of document.querySelectorAll("details")) details.open = true;
  const lists = boxes(".md-sidebar"), buttons = new Map(boxes(".md-code__nav").map(([button, box]) => [button.parentElement, box]));
  // The boxes that cut what is in an element: its own and those around it, up to the article.
  const cutting = new Map([[article, []]]);
  const cuts = (element) => {
    if (!cutting.has(element)) {
      const { overflowX: x, overflowY: y } = getComputedStyle(element);
      const own = x === "visible" ? [] : [{ box: element.getBoundingClientRect(), scrolls: x !== "hidden" && x !== "clip", flat: y === "hidden" || y === "clip" }];
      cutting.set(element, [...own, ...cuts(element.parentElement)]);
    }
    return cutting.get(element);
  };
  const look = (node, ink) => {
    const around = cuts(node.parentElement), pre = node.parentElement.closest("pre");
    for (let box of ink) {
      if (!box.width || !box.height) continue;
      if (buttons.has(pre) && node.nodeType === 3 && meets(box, buttons.get(pre))) return tell("under the copy button", node);
      for (const { box: frame, scrolls, flat } of around) {
        if (flat && (box.top < frame.top - 2 || box.bottom > frame.bottom + 2)) return tell("cut at the top or bottom", node);
        const out = box.left < frame.left - 1 || box.right > frame.right + 1;
        if (out && !(scrolls && narrow)) return tell(scrolls ? "must be scrolled" : "cut", node);
        if (scrolls) box = frame; // what lies around cuts the scrolling box, not what is in it
      }
      if (around.length === 0 && (box.left < -1 || box.right > room + 1)) return tell("leaves the page", node);
      if (around.length === 0 && lists.some(([, list]) => box.left < list.right - 1 && list.left < box.right - 1)) return tell("lies over a list", node);
    }
  };
  const aside = "mjx-assistive-mml, .headerlink, .md-code__nav, script, style, nav";
  const walker = document.createTreeWalker(article, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, (node) =>
    node.parentElement.localName === "svg" || (node.nodeType === 1 && (node.matches(aside) || !seen(node))) ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
  const range = document.createRange();
  for (let node = walker.nextNode(); node; node = walker.nextNode()) {
    if (node.nodeType === 3) { if (node.data.trim()) { range.selectNodeContents(node); look(node, range.getClientRects()); } }
    else if (node.localName === "svg") look(node, [...node.children].map((child) => child.getBoundingClientRect()));
    else if (node.matches("img, canvas, input, button") || cuts(node.parentElement).length === 0) look(node, [node.getBoundingClientRect()]);
  }

  // A long word in a neighbour's cell, a command mostly, leaves a column so narrow that its text is a tower.
  if (room > 1000) for (const [cell, box] of boxes("article td:not(.linenos)")) if (box.width < 190 && box.height > 330 && cell.textContent.length > 120) tell("squeezed into a narrow column", cell);

  const blocks = boxes("article > *").filter(([element]) => getComputedStyle(element).float === "none");
  blocks.slice(1).forEach(([element, box], i) => { if (box.top < blocks[i][1].bottom - 1) tell("lies over the block before", element); });
  for (const equation of document.querySelectorAll(".equation")) {
    const number = equation.querySelector("svg[data-labels] > g")?.getBoundingClientRect(), formula = equation.querySelector("svg[data-table]");
    const signs = [...formula.querySelectorAll("use")].filter((sign) => sign.closest("svg") === formula); // stretched ones are cut to size
    if (!number?.width) tell("has no number", equation);
    else if (signs.some((sign) => meets(number, sign.getBoundingClientRect()))) tell("its number lies on it", equation);
  }
  return [...found.values()];
}
