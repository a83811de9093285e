"use strict";
// Each look comes as an event: its HTML, made and escaped by the server, and one more point for the charts.
(() => {
  const POINTS_MAX = 900;
  const state = document.getElementById("state");
  const events = document.getElementById("events");
  const link = document.getElementById("link");
  // Columns: time_ms, ready, jobs, tokens, yields, accepted, rejected, promised_ucr.
  const columns = JSON.parse(document.getElementById("history").textContent);
  // As a function, so that it is asked for whenever a chart is drawn: the page may become dark in the evening.
  const colour = (name) => () => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

  // The day's time, in 24 hours, as the logs have it: the library's own labels are American.
  const time = (s) => (s === null || s === undefined ? "--" : new Date(s * 1000).toTimeString().slice(0, 8));
  const seconds = () => columns[0].map((ms) => ms / 1000);
  const perSecond = () => columns[3].map((n, i) => {
    if (i === 0) return null;
    const s = (columns[0][i] - columns[0][i - 1]) / 1000;
    return s > 0 ? Math.max(0, n - columns[3][i - 1]) / s : null;
  });
  const charts = [
    { id: "work", series: [["jobs", "--busy", 2], ["for hire", "--ready", 1]] },
    { id: "rate", series: [["tokens/s", "--busy", perSecond]] },
    { id: "judged", series: [["accepted", "--ready", 5], ["not accepted", "--gone", 6], ["yields", "--yielding", 4]] },
    { id: "money", series: [["ucr", "--ready", 7]] },
  ];
  const values = (chart) => [seconds(), ...chart.series.map(([, , from]) => (typeof from === "number" ? columns[from] : from()))];
  const width = (chart) => Math.max(220, document.getElementById(chart.id).clientWidth);

  for (const chart of charts) {
    const axis = { stroke: colour("--faint"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, size: 56 };
    chart.plot = new uPlot({
      width: width(chart),
      height: 190,
      legend: { live: true },
      cursor: { drag: { x: false, y: false } },
      scales: { y: { range: (_, low, high) => [0, Math.max(1, high === null ? 1 : high * 1.1)] } },
      axes: [{ ...axis, size: 34, space: 80, values: (_, ticks) => ticks.map(time) }, axis],
      series: [{ value: (_, s) => time(s) }, ...chart.series.map(([label, name]) => ({ label, stroke: colour(name), width: 2, points: { show: false } }))],
    }, values(chart), document.getElementById(chart.id));
  }
  window.addEventListener("resize", () => charts.forEach((chart) => chart.plot.setSize({ width: width(chart), height: 190 })));

  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => charts.forEach((chart) => chart.plot.redraw()));

  const source = new EventSource("/events");
  source.onopen = () => { link.textContent = "live"; link.className = "live"; };
  source.onerror = () => { link.textContent = "not connected"; link.className = ""; };
  source.onmessage = (event) => {
    const look = JSON.parse(event.data);
    state.innerHTML = look.state;
    events.innerHTML = look.events;
    const times = columns[0];
    if (times.length && look.point[0] <= times[times.length - 1]) return;
    look.point.forEach((value, i) => {
      columns[i].push(value);
      if (columns[i].length > POINTS_MAX) columns[i].shift();
    });
    charts.forEach((chart) => chart.plot.setData(values(chart)));
  };
})();
