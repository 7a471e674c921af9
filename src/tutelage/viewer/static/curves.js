// Curves of one or several runs: every number that was logged, by step, episodes, tokens or seconds.
import { html, useEffect, useMemo, useState } from "./html.js";
import { Chart, Swatch, smooth } from "./chart.js";
import { get, useData } from "./data.js";
import { visible } from "./format.js";
import { go, link } from "./route.js";

const AXES = { step: "step", episodes: "episodes played", tokens: "tokens trained on", seconds: "seconds" };
const TITLES = {
  success: "success: share of the step's episodes that were won", return: "return: mean of the step's episodes",
  varied: "varied: share of groups whose returns differ", invalid: "invalid: share of turns", lr: "lr: learning rate",
};
const GROUPS = [
  ["Outcome", (key) => /^(success|return|won|turns|invalid|varied)$/.test(key)],
  ["Loss", (key) => /^(loss|losses\..*|grad_norm)$/.test(key)],
  ["Signals", (key) => key.startsWith("means.")],
  ["Who acted, schedules", (key) => /^(actors|chances)\.|^(taken|lr)$/.test(key)],
  ["Sampler against trainer", (key) => key.startsWith("mismatch.")],
  ["Seconds by phase", (key) => key.startsWith("seconds.")],
  ["Hints and skills", (key) => /^(hints|written|skills)\./.test(key)],
  ["All else", () => true],
];

function grouped(keys) {
  const left = new Set(keys);
  return GROUPS.map(([name, fits]) => {
    const mine = [...left].filter(fits);
    mine.forEach((key) => left.delete(key));
    return [name, mine];
  }).filter(([, mine]) => mine.length);
}

// Series of several runs: {run: {x, values}}. Asked again while a run goes on.
function useSeries(runs, keys, phase, versions) {
  const [found, set] = useState({});
  const asked = `${runs.join()}|${keys.join("\n")}|${phase}|${versions}`;
  useEffect(() => {
    let over = false;
    Promise.all(runs.map((run) => get(`run/${run}/series`, { keys: keys.join("\n"), phase })))
      .then((all) => over || set(Object.fromEntries(runs.map((run, k) => [run, all[k]]))))
      .catch(() => over || set({}));
    return () => {
      over = true;
    };
  }, [asked]);
  return found;
}

// Runs that differ in their seed alone become one line: their mean, with a band from least to most.
function pooled(members, lineOf) {
  const lines = members.map(lineOf).filter((line) => line && line.x.length);
  if (lines.length < 2) return lines[0];
  const at = new Map();
  lines.forEach((line) => line.x.forEach((x, k) => {
    const value = line.y[k];
    if (value !== null && value !== undefined) at.set(x, [...(at.get(x) || []), value]);
  }));
  const x = [...at.keys()].sort((a, b) => a - b).filter((key) => at.get(key).length === lines.length);
  const mean = (values) => values.reduce((a, b) => a + b, 0) / values.length;
  return {
    ...lines[0], x, y: x.map((key) => mean(at.get(key))),
    low: x.map((key) => Math.min(...at.get(key))), high: x.map((key) => Math.max(...at.get(key))),
  };
}

function Curves({ query }) {
  const [listed, error] = useData("runs", {}, { live: true });
  const every = listed ? listed.runs.filter((row) => row.kind === "run") : [];
  const asked = (query.runs || "").split(",").filter(Boolean);
  const chosen = asked.length ? every.filter((row) => asked.includes(row.id)) : every.slice(0, 4);
  const axis = AXES[query.x] ? query.x : "step";
  const phase = query.phase || "train";
  const strength = Number(query.smooth || 0);
  const bands = query.bands === "yes";
  const [open, setOpen] = useState({ Outcome: true, Loss: true });
  const [words, say] = useState("");
  const versions = chosen.map((row) => row.version).join();
  const [about, setAbout] = useState({});
  useEffect(() => {
    let over = false;
    Promise.all(chosen.map((row) => get(`run/${row.id}`)))
      .then((all) => over || setAbout(Object.fromEntries(all.map((one) => [one.summary.id, one]))))
      .catch(() => {});
    return () => {
      over = true;
    };
  }, [versions, chosen.map((row) => row.id).join()]);
  const set = (changed) => go(["curves"], { ...query, runs: chosen.map((r) => r.id).join(","), ...changed }, { replace: true });
  const known = chosen.filter((row) => about[row.id] && about[row.id].keys);
  const keys = [...new Set([...known.flatMap((row) => about[row.id].keys[phase])])];
  const sections = grouped(keys.filter((key) => key.toLowerCase().includes(words.toLowerCase())));
  const drawn = sections.filter(([name]) => open[name] || words).flatMap(([, mine]) => mine);
  const series = useSeries(known.map((row) => row.id), drawn, phase, versions);
  const units = useMemo(() => {
    if (!bands) return chosen.map((row) => [row.name, [row]]);
    const groups = new Map();
    chosen.forEach((row) => groups.set(row.group, [...(groups.get(row.group) || []), row]));
    return [...groups.values()].map((rows) => [
      rows.length > 1 ? `${rows[0].method}, ${rows.length} seeds` : rows[0].name, rows]);
  }, [bands, versions]);
  if (!listed) return error ? html`<p class="error">${error}</p>` : html`<p class="wait">Loading</p>`;

  const lines = (key) => units.map(([name, rows], k) => pooled(rows, (row) => {
    const one = series[row.id];
    if (!one || !one.values[key] || one.values[key].every((v) => v === null)) return null;
    return { name: visible(name), k, x: one.x[axis], y: smooth(one.values[key], strength) };
  })).filter(Boolean);
  const success = units.map(([name, rows], k) => pooled(rows, (row) => {
    const one = about[row.id];
    const xs = series[row.id] && series[row.id].x;
    if (!one) return null;
    const evals = one.evaluations.filter((line) => !line.hint && line.success !== undefined);
    // an evaluation stands after a step; what was spent up to it is known from that step's line
    const at = (step) => (axis === "step" ? step : step === 0 ? 0 : xs && xs[axis][xs.step.indexOf(step)]);
    const placed = evals.filter((line) => at(line.step) !== undefined);
    return {
      name: visible(name), k, x: placed.map((line) => at(line.step)), y: placed.map((line) => line.success),
      low: placed.map((line) => line.low), high: placed.map((line) => line.high),
    };
  })).filter(Boolean);
  return html`<main>
    <div class="bar">
      <h1>Curves</h1>
      <label>by <select id="axis" value=${axis} onChange=${(e) => set({ x: e.target.value })}>
        ${Object.entries(AXES).map(([key, name]) => html`<option value=${key}>${name}</option>`)}</select></label>
      <label>phase <select value=${phase} onChange=${(e) => set({ phase: e.target.value })}>
        <option value="train">training</option><option value="warm_start">warm start</option></select></label>
      <label>smoothing <input type="range" id="smooth" min="0" max="0.98" step="0.02" value=${strength}
        onInput=${(e) => set({ smooth: e.target.value })}/> <output>${strength.toFixed(2)}</output></label>
      <label><input type="checkbox" id="bands" checked=${bands}
        onChange=${() => set({ bands: bands ? "" : "yes" })}/> seeds as bands</label>
      <input type="search" id="search" placeholder="name of a number" aria-label="search numbers" value=${words}
        onInput=${(e) => say(e.target.value)}/>
    </div>
    <details class="chooser" open=${every.length <= 8}><summary>${chosen.length} of ${every.length} runs</summary>
      <div class="checks">${every.map((row) => {
        const ids = chosen.map((r) => r.id);
        const now = ids.includes(row.id) ? ids.filter((id) => id !== row.id) : [...ids, row.id];
        return html`<label key=${row.id}><input type="checkbox" checked=${ids.includes(row.id)}
          onChange=${() => set({ runs: now.join(",") || row.id })}/>${visible(row.name)}</label>`;
      })}</div></details>
    <p class="legend-row" id="legend">${units.map(([name, rows], k) => html`<span><${Swatch} k=${k}/>
      <a href=${link(["run", rows[0].id])}>${visible(name)}</a></span>`)}</p>
    <section class="charts first"><${Chart} title="tasks of the panel solved (band: 95 % interval${bands ? ", or least to most of the seeds" : ""})"
      lines=${success} xlabel=${AXES[axis]} height=${260} percent=${true} sync="curves"/></section>
    ${sections.map(([name, mine]) => html`<details key=${name} open=${Boolean(open[name] || words)}
        onToggle=${(e) => setOpen((old) => ({ ...old, [name]: e.target.open }))}>
      <summary><h2>${name}</h2> <span class="soft">${mine.length}</span></summary>
      ${open[name] || words ? html`<section class="charts">${mine.map((key) => html`<${Chart} key=${key}
        title=${TITLES[key] || visible(key)} lines=${lines(key)} xlabel=${AXES[axis]} sync="curves" percent=${key === "success"}/>`)}</section>` : null}
    </details>`)}
  </main>`;
}

export { Curves, useSeries, AXES };
