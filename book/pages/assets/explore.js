// The figures of the page Explore. Their numbers come from dlib (`python -m book.explore`); this script only draws them.
// A figure's data are fetched when it comes near the window; without scripts, and in print, its picture stays.
(() => {
  const colours = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"];
  const here = new URL(".", document.currentScript.src);

  function whole(text, reach) { // base64 of 16-bit integers → numbers
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return (i) => (view.getInt16(2 * i, true) / 32767) * reach;
  }

  function paper(canvas, height) { // a cleared canvas in page pixels
    const [wide, high, dense] = [canvas.clientWidth, height(canvas.clientWidth), devicePixelRatio || 1];
    canvas.style.height = `${high}px`;
    [canvas.width, canvas.height] = [Math.round(wide * dense), Math.round(high * dense)];
    const pen = canvas.getContext("2d");
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    const ink = getComputedStyle(canvas).color;
    Object.assign(pen, { strokeStyle: ink, fillStyle: ink, lineJoin: "round", font: "12px sans-serif" });
    return [pen, wide, high, ink];
  }

  function line(pen, points, colour, width, dash = []) {
    Object.assign(pen, { strokeStyle: colour, lineWidth: width });
    pen.setLineDash(dash);
    pen.beginPath();
    points.forEach(([x, y], i) => (i ? pen.lineTo(x, y) : pen.moveTo(x, y)));
    pen.stroke();
    pen.setLineDash([]);
  }

  function dot(pen, [x, y], radius, colour) {
    pen.fillStyle = colour;
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen.fill();
  }

  const plane = (size, left, top) => ([x, y]) => [left + size / 2 + (x * size) / 5.2, top + size / 2 - (y * size) / 5.2];

  // ---- the trajectories: one slider for each choice ----

  const paths = {
    sliders: (data) => Object.entries(data.choices).map(([name, values]) => ({ name, words: values.map(String) })),
    start: () => [0, 1, 1, 0],
    draw(data, canvas, chosen) {
      const run = data.runs.find((each) => each.at.every((index, k) => index === chosen[k]));
      const steps = data.choices["network calls"][chosen[2]];
      const value = whole(run.path, data.reach);
      const [pen, wide, high, ink] = paper(canvas, (width) => Math.min(width, 460));
      const at = plane(high, (wide - high) / 2, 0);
      pen.globalAlpha = 0.5;
      data.means.forEach((mean, k) => {
        pen.strokeStyle = ink;
        pen.setLineDash([3, 3]);
        pen.beginPath();
        pen.arc(...at(mean), (2 * data.stds[k] * high) / 5.2, 0, 2 * Math.PI);
        pen.stroke();
      });
      pen.setLineDash([]);
      for (let i = 0; i < data.points; i++) {
        const points = [...Array(steps + 1).keys()].map((step) => at([0, 1].map((axis) => value(2 * (step * data.points + i) + axis))));
        pen.globalAlpha = 0.55;
        line(pen, points, colours[data.modes[i]], 1.4);
        pen.globalAlpha = 1;
        points.slice(1, -1).forEach((point) => dot(pen, point, 1.8, colours[data.modes[i]]));
        dot(pen, points[steps], 4, colours[data.modes[i]]);
      }
      return `off the exact end points by ${run.error.toPrecision(2)}`;
    },
  };

  // ---- the rounds of a parallel sampler: heat map on the left, the same samples on the right ----

  const shade = (byte) => { // dark: large error; fading to paper: settled
    const share = Math.min(1, byte / 240);
    return `rgba(${Math.round(20 + 190 * (1 - share))}, ${Math.round(60 + 120 * (1 - share))}, ${Math.round(120 + 20 * share)}, ${byte ? 0.18 + 0.82 * share : 0})`;
  };

  const relaxation = {
    sliders: (data) => [{ name: "method", words: data.runs.map((run) => run.name) }, { name: "round", words: data.runs.map((run) => run.rounds) }],
    start: () => [0, 3],
    limit: (data, chosen) => [data.runs.length - 1, data.runs[chosen[0]].rounds],
    draw(data, canvas, [which, round]) {
      const run = data.runs[which];
      const bytes = Uint8Array.from(atob(run.errors), (letter) => letter.charCodeAt(0));
      const [pen, wide, , ink] = paper(canvas, (width) => (width < 560 ? 2 * width : width / 2));
      const side = wide < 560 ? wide : wide / 2;
      const [cell, row] = [(side - 46) / run.at.length, (side - 46) / (run.rounds + 1)];
      for (let r = 0; r <= run.rounds; r++) {
        pen.globalAlpha = r <= round ? 1 : 0.15;
        for (let j = 0; j < run.at.length; j++) {
          pen.fillStyle = shade(bytes[r * run.at.length + j]);
          const [x, y] = [36 + Math.round(j * cell), 6 + Math.round(r * row)];
          pen.fillRect(x, y, 36 + Math.round((j + 1) * cell) - x, 6 + Math.round((r + 1) * row) - y);
        }
      }
      Object.assign(pen, { globalAlpha: 1, strokeStyle: colours[4], lineWidth: 2, fillStyle: ink });
      pen.strokeRect(36, 6 + round * row, side - 46, row);
      pen.fillText("noise", 36, side - 16);
      pen.fillText("data", side - 36, side - 16);
      pen.save();
      pen.translate(14, side / 2);
      pen.rotate(-Math.PI / 2);
      pen.fillText("rounds ⟵", -30, 0);
      pen.restore();
      this.samples(pen, data, run, round, wide < 560 ? plane(side, 0, side) : plane(side, side, 0), ink);
      const settled = [...run.at.keys()].findIndex((j) => bytes[round * run.at.length + j] > 0);
      const worst = Math.max(...bytes.slice(round * run.at.length, (round + 1) * run.at.length));
      const near = `within 1e-${data.digits} of the sequential path`;
      return settled < 0
        ? `after ${round} rounds: every point ${near}`
        : `after ${round} rounds: ${settled} points ${near}, largest error about 1e${Math.round(worst / data.decade - data.digits)}`;
    },
    samples(pen, data, run, round, at, ink) {
      const [n, count] = [run.at.length, data.samples];
      const [now, truth] = [whole(run.path, data.reach), whole(run.truth, data.reach)];
      for (let i = 0; i < count; i++) {
        const point = (value, from) => [...Array(n).keys()].map((j) => at([0, 1].map((axis) => value(2 * (from + j * count + i) + axis))));
        line(pen, point(truth, 0), ink, 1, [4, 4]);
        line(pen, point(now, round * n * count), colours[i], 2);
        dot(pen, point(now, round * n * count)[n - 1], 4, colours[i]);
      }
    },
  };

  // ---- the page ----

  function build(figure, kind, data) {
    const chosen = kind.start();
    const sliders = kind.sliders(data);
    const canvas = document.createElement("canvas");
    const panel = document.createElement("div");
    const readout = document.createElement("p");
    canvas.setAttribute("role", "img");
    panel.className = "explore-controls";
    readout.className = "explore-readout";
    readout.setAttribute("aria-live", "polite");
    panel.innerHTML = sliders.map((slider, k) => `<label for="${figure.id}-${k}">${slider.name}</label>
      <input id="${figure.id}-${k}" type="range" min="0" value="${chosen[k]}"><output for="${figure.id}-${k}"></output>`).join("");
    const [inputs, outputs] = ["input", "output"].map((tag) => [...panel.querySelectorAll(tag)]);

    function show() {
      inputs.forEach((input, k) => (chosen[k] = +input.value));
      const most = kind.limit ? kind.limit(data, chosen) : sliders.map((slider) => slider.words.length - 1);
      inputs.forEach((input, k) => {
        input.max = most[k];
        chosen[k] = Math.min(chosen[k], most[k]);
        input.value = chosen[k];
        const words = kind.limit && k === 1 ? `${chosen[k]} of ${most[k]}` : sliders[k].words[chosen[k]];
        outputs[k].textContent = words;
        input.setAttribute("aria-valuetext", words);
      });
      readout.textContent = kind.draw(data, canvas, chosen);
      canvas.setAttribute("aria-label", `${figure.dataset.alt} ${readout.textContent}`);
    }

    figure.querySelector("img").after(canvas, readout, panel);
    figure.classList.add("live");
    panel.addEventListener("input", show);
    new ResizeObserver(() => canvas.clientWidth !== Math.round(canvas.width / (devicePixelRatio || 1)) && show()).observe(figure);
    new MutationObserver(show).observe(document.body, { attributes: true, attributeFilter: ["data-md-color-scheme"] });
    show();
  }

  const kinds = { paths, relaxation };
  const watch = new IntersectionObserver((seen) => {
    for (const { target, isIntersecting } of seen) {
      if (!isIntersecting) continue;
      watch.unobserve(target);
      const name = target.dataset.figure;
      const script = document.createElement("script");
      script.src = new URL(`explore-${name}.js`, here).href;
      script.onload = () => build(target, kinds[name], window.exploreData[name]);
      document.head.append(script);
    }
  }, { rootMargin: "400px" });
  document.querySelectorAll("figure.explore").forEach((figure) => watch.observe(figure));
})();
