// Draws each panel of the page's figure as a plot of its own: one scale, one camera, one switch.
"use strict";
(() => {
  const figure = JSON.parse(document.getElementById("slices-figure").textContent);
  const root = document.getElementById("slices");
  const plots = [...root.querySelectorAll(".plot")];
  const buttons = [...root.querySelectorAll("button[data-scale]")];
  const { meta, coloraxis } = figure.layout;
  const flat = coloraxis === undefined; // lines, all in one panel; else a plane a panel
  const reset = root.querySelector(".reset");
  // Plotly's own buttons would put one scene alone back, and to another view.
  const options = {
    responsive: true,
    displaylogo: false,
    modeBarButtonsToRemove: ["sendDataToCloud", "resetCameraDefault3d", "resetCameraLastSave3d"],
  };
  let { scale } = meta;
  let home = figure.layout.scene?.camera;
  let camera = home;

  const log = (loss) =>
    Array.isArray(loss) ? loss.map(log) : loss === null ? null : Math.log10(loss - meta.least + meta.epsilon);
  const scaled = (losses) => (scale === "log" ? log(losses) : losses);

  // The page's colours follow the reader's light or dark setting; plotly knows no CSS.
  const painted = (layout, axes, notes = []) => {
    const style = getComputedStyle(document.body);
    const [ink, rule, paper] = ["--ink", "--rule", "--paper"].map((name) => style.getPropertyValue(name).trim());
    for (const note of notes) Object.assign(note, { bgcolor: paper, arrowcolor: ink });
    for (const axis of axes) Object.assign(axis, { color: ink, gridcolor: rule, zerolinecolor: rule });
    return Object.assign(layout, { font: { color: ink }, paper_bgcolor: "transparent", plot_bgcolor: "transparent" });
  };

  const lines = () => {
    const data = figure.data.map((trace) => ({ ...trace, y: scaled(trace.y) }));
    const layout = structuredClone(figure.layout);
    layout.yaxis.title.text = meta[scale].title;
    layout.margin = { l: 55, r: 10, t: 10, b: 45 };
    return { data, layout: painted(layout, [layout.xaxis, layout.yaxis]) };
  };

  const plane = (index) => {
    const name = index ? `scene${index + 1}` : "scene";
    const data = figure.data
      .filter((trace) => trace.scene === name)
      .map((trace) => ({ ...trace, scene: "scene", z: scaled(trace.z) }));
    const { [name]: scene, template, margin } = structuredClone(figure.layout);
    const { title, range, ticks } = meta[scale];
    scene.domain = { x: [0, 1], y: [0, 1] };
    scene.camera = structuredClone(camera);
    scene.zaxis.title.text = title;
    scene.zaxis.range = [...range];
    scene.zaxis.tickvals = [...ticks];
    const notes = scene.annotations ?? [];
    for (const note of notes) note.z = scaled(note.z);
    const colors = { ...coloraxis, cmin: range[0], cmax: range[1], showscale: false }; // the page's bar is for all
    const layout = { template, margin, scene, coloraxis: colors };
    return { data, layout: painted(layout, [scene.xaxis, scene.yaxis, scene.zaxis], notes) };
  };

  const bar = () => {
    const { label, range: [low, high] } = meta[scale];
    for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.scale === scale));
    root.querySelector(".scale-label").textContent = label;
    root.querySelector(".colors").hidden = reset.hidden = flat;
    if (flat) return;
    const stops = coloraxis.colorscale.map(([at, color]) => `${color} ${100 * at}%`);
    root.querySelector(".ramp").style.background = `linear-gradient(90deg, ${stops.join(", ")})`;
    const ticks = [...root.querySelectorAll(".ticks span")];
    const values = ticks.map((_, i) => low + ((high - low) * i) / (ticks.length - 1));
    const labels = [3, 4, 5, 6].map((digits) => values.map((value) => Number(value.toPrecision(digits))));
    const told = labels.find((shown) => new Set(shown).size === shown.length) ?? labels[3];
    ticks.forEach((tick, i) => (tick.textContent = told[i]));
  };

  const draw = async () => {
    bar();
    for (const [index, plot] of plots.entries()) {
      const { data, layout } = flat ? lines() : plane(index);
      await Plotly.react(plot, data, layout, options);
      await new Promise((next) => setTimeout(next)); // between two scenes the page can be scrolled
    }
  };

  // Only the plot under the hand leads: one that follows is behind it, and would pull it back.
  let leader = null;
  let until = 0;
  const near = (a, b) =>
    ["eye", "center", "up"].every((of) => ["x", "y", "z"].every((x) => Math.abs(a[of][x] - b[of][x]) < 1e-6));
  const follow = () => {
    if (leader === null) return;
    const turned = leader._fullLayout.scene._scene.getCamera(); // on touch, plotly turns it and says nothing
    const rests = near(turned, camera);
    if (!rests) {
      camera = turned;
      for (const plot of plots) if (plot !== leader) Plotly.relayout(plot, { "scene.camera": camera });
    }
    if (!rests || performance.now() < until) requestAnimationFrame(follow); // it glides on when the hand has gone
    else leader = null;
  };
  const lead = (plot, event) => {
    if (event.type === "pointermove" && !event.buttons) return; // it only hovers
    const idle = leader === null;
    leader = plot;
    until = performance.now() + 500;
    if (idle) requestAnimationFrame(follow);
  };
  const link = (plot) => {
    for (const input of ["pointerdown", "pointermove", "touchstart", "touchmove", "touchend", "wheel"])
      plot.addEventListener(input, (event) => lead(plot, event), { capture: true, passive: true });
  };

  for (const button of buttons) {
    button.addEventListener("click", () => {
      scale = button.dataset.scale;
      draw();
    });
  }
  reset.addEventListener("click", () => {
    leader = null;
    for (const plot of plots) Plotly.relayout(plot, { "scene.camera": home });
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  const begin = async () => {
    await draw();
    if (!flat) {
      camera = home = plots[0]._fullLayout.scene._scene.getCamera(); // whole: with its centre and what is up
      plots.forEach(link);
    }
    root.dataset.drawn = "yes";
  };
  addEventListener("load", begin); // the rest of the page is there first
})();
