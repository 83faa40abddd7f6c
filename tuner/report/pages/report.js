"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  // A finger that scrolls the page must not be caught by a plot.
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const buttons = [["toImage", "resetScale2d"]];

  const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--text").trim();

  // On a narrow screen colours are explained above a plot and names below it, one a line.
  function narrowed(data, layout) {
    for (const trace of data) {
      const bar = trace.colorbar ?? trace.marker?.colorbar;
      if (!bar) continue;
      Object.assign(bar, { orientation: "h", x: 0.5, y: 1.01, yanchor: "bottom", len: 1 });
      bar.title.side = "top";
      layout.height += 50;
    }
    const named = data.filter((trace) => trace.name && layout.showlegend !== false);
    if (named.length > 1) layout.height += 20 * named.length;
  }

  function draw(place, figure) {
    const { data, layout } = structuredClone(figure);
    const isNarrow = place.clientWidth < 600 && window.innerWidth < 700;
    layout.font.color = ink();
    if (touch) layout.dragmode = false;
    if (isNarrow) narrowed(data, layout);
    // Plotly forgets a layout's height when the window changes, and asks the place for its own.
    place.style.height = `${layout.height}px`;
    const shown = { responsive: true, displaylogo: false, modeBarButtons: buttons };
    return Plotly.react(place, data, layout, { ...shown, displayModeBar: !isNarrow });
  }

  function drawPlots() {
    for (const [name, figure] of Object.entries(data.plots)) {
      draw(document.getElementById(`plot-${name}`), figure);
    }
  }

  drawPlots();

  const chooser = document.getElementById("trial");
  const story = document.getElementById("trial-story");

  function showTrial() {
    const shown = data.trials[chooser.value];
    story.textContent = shown.story;
    shown.plots.forEach((plot, index) => {
      const place = document.getElementById(`trial-plot-${index}`);
      const words = document.getElementById(`trial-words-${index}`);
      Plotly.purge(place);
      place.hidden = plot.figure === null;
      words.textContent = plot.figure === null ? `No plot: ${plot.missing}.` : "";
      if (plot.figure !== null) draw(place, plot.figure);
    });
  }

  if (chooser) {
    chooser.addEventListener("change", showTrial);
    showTrial();
  }

  // A phone that is turned gets the other layout.
  window.matchMedia("(max-width: 699px)").addEventListener("change", () => {
    drawPlots();
    if (chooser) showTrial();
  });

  dark.addEventListener("change", () => {
    for (const place of document.querySelectorAll(".js-plotly-plot")) {
      Plotly.relayout(place, { "font.color": ink() });
    }
  });
})();
