"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  // A finger that scrolls the page must not be caught by a plot.
  const touch = window.matchMedia("(pointer: coarse)").matches;
  const settings = {
    responsive: true,
    displaylogo: false,
    displayModeBar: touch ? false : "hover",
    modeBarButtonsToRemove: ["lasso2d", "select2d"],
  };

  const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--text").trim();

  function draw(place, figure) {
    const layout = structuredClone(figure.layout);
    layout.font.color = ink();
    if (touch) layout.dragmode = false;
    const named = figure.data.filter((trace) => trace.name && layout.showlegend !== false);
    // A legend that has no room beside another entry takes a line for each.
    if (place.clientWidth < 600 && named.length > 1) layout.height += 20 * named.length;
    return Plotly.react(place, figure.data, layout, settings);
  }

  for (const [name, figure] of Object.entries(data.plots)) {
    draw(document.getElementById(`plot-${name}`), figure);
  }

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

  dark.addEventListener("change", () => {
    for (const place of document.querySelectorAll(".js-plotly-plot")) {
      Plotly.relayout(place, { "font.color": ink() });
    }
  });
})();
