"use strict";
// The page lives without this: it draws the day's charts, and says whether the node still answers.
(() => {
  const DAY_EVERY_MS = 30000;
  const link = document.getElementById("link");
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const width = (id) => Math.max(220, document.getElementById(id).clientWidth);
  const two = (n) => String(n).padStart(2, "0");
  const clock = (s) => { const at = new Date(1000 * s); return `${two(at.getHours())}:${two(at.getMinutes())}`; };
  let lent = [];

  // While it was lent, the ground is shaded.
  const shade = (plot) => {
    const [times] = plot.data;
    plot.ctx.save();
    plot.ctx.fillStyle = colour("--ready");
    plot.ctx.globalAlpha = 0.12;
    times.forEach((at, i) => {
      if (!lent[i]) return;
      const left = plot.valToPos(at, "x", true);
      const right = plot.valToPos(i + 1 < times.length ? times[i + 1] : at + 300, "x", true);
      plot.ctx.fillRect(left, plot.bbox.top, right - left, plot.bbox.height);
    });
    plot.ctx.restore();
  };
  const made = (id, label, stroke, hooks) => {
    const line = { stroke: () => colour("--line"), width: 1 };
    const axis = { stroke: () => colour("--faint"), grid: line, ticks: line };
    return new uPlot({
      width: width(id),
      height: 200,
      cursor: { drag: { x: false, y: false } },
      scales: { y: { range: (_, low, high) => [0, Math.max(1, high === null ? 1 : high * 1.1)] } },
      axes: [{ ...axis, size: 34, values: (_, times) => times.map(clock) }, { ...axis, size: 64 }],
      series: [{ label: "at", value: (_, at) => (at === null ? "--" : clock(at)) }, { label, stroke: () => colour(stroke), width: 2, points: { show: false } }],
      hooks,
    }, [[], []], document.getElementById(id));
  };
  const power = made("power", "W", "--busy", { drawAxes: [shade] });
  const earned = made("earned", "ucr", "--ready", {});

  const draw = async () => {
    try {
      const answer = await fetch("day.json");
      if (!answer.ok) return;
      const day = await answer.json();
      lent = day.lent;
      power.setData([day.s, day.watts]);
      earned.setData([day.s, day.ucr]);
    } catch {
      // The state's own request tells that the node has gone.
    }
  };
  draw();
  setInterval(draw, DAY_EVERY_MS);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { power.redraw(); earned.redraw(); });
  window.addEventListener("resize", () => {
    power.setSize({ width: width("power"), height: 200 });
    earned.setSize({ width: width("earned"), height: 200 });
  });

  const says = (live) => {
    link.textContent = live ? "live" : "the node does not answer";
    link.className = live ? "live" : "";
  };
  says(true);
  document.body.addEventListener("htmx:afterRequest", (event) => says(event.detail.xhr ? event.detail.xhr.status > 0 : true));
})();
