// The home page's experiment: the same noise through a first- and a second-order solver, towards the exact flow of the
// book's five-mode mixture (GMM5). The paths come from dlib (`python -m book.play`); this script only draws them.
(() => {
  const colours = ["#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00"];
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const { points, reach, means, stds, modes, runs } = window.playData;
  const names = [...new Set(runs.map((run) => run.solver))];
  const counts = [...new Set(runs.map((run) => run.steps))];

  // ---- the paths: base64 of 16-bit integers, (steps + 1) × points × 2 ----

  function unpack(run) {
    const bytes = Uint8Array.from(atob(run.path), (letter) => letter.charCodeAt(0));
    const view = new DataView(bytes.buffer);
    return (step, i, axis) => (view.getInt16(2 * ((step * points + i) * 2 + axis), true) / 32767) * reach;
  }

  // ---- drawing ----

  function draw(canvas, run, place, progress) {
    const size = canvas.clientWidth;
    const dense = devicePixelRatio || 1;
    if (canvas.width !== Math.round(size * dense)) canvas.width = canvas.height = Math.round(size * dense);
    const pen = canvas.getContext("2d");
    const at = ([x, y]) => [size / 2 + (x * size) / 5.6, size / 2 - (y * size) / 5.6];
    pen.setTransform(dense, 0, 0, dense, 0, 0);
    pen.clearRect(0, 0, size, size);
    pen.setLineDash([3, 3]);
    pen.strokeStyle = getComputedStyle(canvas).color;
    means.forEach((mean, k) => circle(pen, at(mean), (2 * stds[k] * size) / 5.6, "stroke"));
    pen.setLineDash([]);
    const step = Math.min(Math.floor(progress * run.steps), run.steps - 1);
    const part = progress * run.steps - step;
    modes.forEach((mode, i) => {
      const [x, y] = [0, 1].map((axis) => (1 - part) * place(step, i, axis) + part * place(step + 1, i, axis));
      pen.fillStyle = colours[mode];
      circle(pen, at([x, y]), size / 130, "fill");
    });
  }

  function circle(pen, [x, y], radius, verb) {
    pen.beginPath();
    pen.arc(x, y, radius, 0, 2 * Math.PI);
    pen[verb]();
  }

  // ---- the page ----

  const box = document.getElementById("play");
  box.innerHTML = `
    <div class="panels">${names.map((name) => `
      <figure class="panel"><canvas role="img" aria-label="${name}: ${box.dataset.alt}"></canvas>
      <figcaption><b>${name}</b><span></span></figcaption></figure>`).join("")}
    </div>
    <div class="controls"><label for="steps">network calls</label><input id="steps" type="range" min="0" max="${counts.length - 1}" value="2">
    <output for="steps"></output><button type="button">again</button></div>`;
  const [canvases, errors] = [box.querySelectorAll("canvas"), box.querySelectorAll("figcaption span")];
  const [slider, readout, button] = ["input", "output", "button"].map((tag) => box.querySelector(tag));
  let current = 0;

  function play() {
    const steps = counts[+slider.value];
    const chosen = names.map((name) => runs.find((run) => run.solver === name && run.steps === steps));
    const places = chosen.map(unpack);
    chosen.forEach((run, k) => (errors[k].textContent = `off by ${run.error.toFixed(3)}`));
    readout.textContent = steps;
    slider.setAttribute("aria-valuetext", `${steps} calls`);
    const [mine, began] = [++current, performance.now()];
    const frame = (now) => {
      if (mine !== current) return;
      const progress = still ? 1 : Math.min(1, Math.max(0, (now - began - 300) / 2600));
      chosen.forEach((run, k) => draw(canvases[k], run, places[k], progress));
      if (progress < 1) requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  slider.addEventListener("input", play);
  button.addEventListener("click", play);
  let width = innerWidth;
  addEventListener("resize", () => {
    if (innerWidth !== width) play(); // a phone's address bar changes only the height
    width = innerWidth;
  });
  play();
})();
