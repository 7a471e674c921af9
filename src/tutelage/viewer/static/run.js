// One run: how it was started, its evaluations, and what its method does over time.
import { html, useState } from "./html.js";
import { Chart, Histogram } from "./chart.js";
import { AXES, useSeries } from "./curves.js";
import { useData } from "./data.js";
import { interval, number, visible } from "./format.js";
import { go, link } from "./route.js";
import { Bar, State } from "./runs.js";

// What a schedule multiplied: a signal and the same signal times its schedule are both in the log.
function schedules(keys) {
  const out = [];
  for (const key of keys) {
    const plain = key.replace(/schedule \* /, "");
    if (key.startsWith("means.schedule * ") && keys.includes(plain)) out.push([key, plain]);
  }
  return out;
}

function ratio(scaled, plain) {
  return scaled.map((value, k) => (value === null || !plain[k] ? null : value / plain[k]));
}

function Gates({ run, version, columns }) {
  const [step, choose] = useState("");
  const [column, pick] = useState("");
  const [found, error] = useData(`run/${run}/histogram`, { step, column, version });
  if (!columns) return null;
  if (error) return html`<p class="error">${visible(error)}</p>`;
  if (!found || !found.bins.length) return null;
  const at = Math.max(0, found.steps.indexOf(found.step));
  return html`<section class="charts" id="gates">
    <div><${Histogram} title=${`${visible(found.column)}: tokens of step ${found.step}`} bins=${found.bins} groups=${found.parts}/>
      <div class="bar tools"><label>signal <select value=${found.column} onChange=${(e) => pick(e.target.value)}>
        ${found.columns.map((name) => html`<option value=${name}>${visible(name)}</option>`)}</select></label>
      <label>step <input type="range" min="0" max=${found.steps.length - 1} value=${at}
        onChange=${(e) => choose(String(found.steps[Number(e.target.value)]))}/> <output>${found.step}</output></label></div></div>
  </section>`;
}

function Method({ run, about }) {
  const keys = (about.keys || { train: [] }).train;
  const pick = (pattern) => keys.filter((key) => pattern.test(key));
  const applied = schedules(keys);
  const acted = pick(/^(actors|chances)\./);
  const charts = [
    ["Share of turns by who acted", acted.length > 1 ? acted : [], true],
    [about.summary.method === "pi_distill" ? "Loss by term: KL of both sides" : "Loss by term", pick(/^losses\./), false],
    ["Means of signals", pick(/^means\.(gate|gap|t_dur|group_relative|varied|acted_by)/), false],
    ["Skills chosen", pick(/^skills\./), false],
    ["Hints: tokens that each view is shown", pick(/^hints\..*\.mean/), false],
  ].filter(([, mine]) => mine.length);
  const wanted = [...new Set([...charts.flatMap(([, mine]) => mine), ...applied.flat()])];
  const series = useSeries([run], wanted, "train", about.summary.version)[run];
  if (!wanted.length || !series) return null;
  const line = (key, k) => ({ name: visible(key.replace(/^chances\./, "chance of ").replace(/^\w+\./, "")), k, x: series.x.step, y: series.values[key] || [] });
  return html`<section class="charts" id="method">
    ${charts.map(([title, mine, share]) => html`<${Chart} title=${title} lines=${mine.map(line)} xlabel=${AXES.step} height=${220} percent=${share}/>`)}
    ${applied.length ? html`<${Chart} title="Schedules as they were applied: what each signal was multiplied by" xlabel=${AXES.step} height=${220}
      lines=${applied.map(([scaled, plain], k) => ({ name: `on ${visible(plain.replace("means.", ""))}`, k, x: series.x.step,
        y: ratio(series.values[scaled] || [], series.values[plain] || []) }))}/>` : null}
  </section>`;
}

// A long name may be broken before an underscore.
function breakable(name) {
  return name.split("_").flatMap((part, k) => (k ? [html`<wbr/>`, `_${part}`] : [part]));
}

function Evaluations({ lines }) {
  if (!lines.length) return html`<p class="soft">It was not evaluated yet.</p>`;
  const families = [...new Set(lines.flatMap((line) => Object.keys(line.families || {})))];
  return html`<div class="wide"><table class="list" id="evaluations"><thead><tr><th>step</th><th>policy</th><th>tasks solved</th><th></th><th>n</th><th>panel</th>
    <th>turns</th><th>invalid</th>${families.length > 1 ? families.map((name) => html`<th class="wrap">${breakable(visible(name))}</th>`) : null}</tr></thead>
    <tbody>${lines.map((line) => html`<tr><td class="number">${line.step}</td><td>${visible(line.name || "student")}</td>
      <td class="number">${interval(line)}</td><td><${Bar} evaluation=${line}/></td><td class="number">${line.n}</td>
      <td class="soft" title=${visible(line.panel || "")}>${visible(line.split || "")} ${visible((line.panel || "").slice(0, 8))}</td><td class="number">${number(line.turns, 3)}</td>
      <td class="number">${line.invalid === undefined ? "" : `${(100 * line.invalid).toFixed(0)} %`}</td>
      ${families.length > 1 ? families.map((name) => html`<td class="number">${(line.families || {})[name] ? `${line.families[name][0]}/${line.families[name][1]}` : ""}</td>`) : null}
    </tr>`)}</tbody></table></div>`;
}

function settings(table, before = "") {
  return Object.entries(table).flatMap(([key, value]) => (value && typeof value === "object" && !Array.isArray(value)
    ? settings(value, `${before}${key}.`) : [[`${before}${key}`, JSON.stringify(value)]]));
}

function Run({ id }) {
  const [about, error] = useData(`run/${id}`, {}, { live: true });
  const [all, show] = useState(false);
  if (!about) return error ? html`<p class="error">${visible(error)}</p>` : html`<p class="wait">Loading</p>`;
  const row = about.summary;
  const rows = settings(about.config);
  return html`<main>
    <div class="bar"><h1>${visible(row.name)}</h1><${State} row=${row}/>
      <span class="soft">${visible(row.method)}${row.suite ? ` on ${visible(row.suite)}` : ""}${row.model ? `, ${visible(row.model)}` : ""}${row.kind === "run" ? `, step ${number(row.done)} of ${number(row.steps)}, seed ${row.seed}` : ""}</span>
      <span class="grow"></span>
      ${row.kind === "run" ? html`<a class="button" href=${link(["curves"], { runs: id })}>curves</a>` : null}
      <a class="button" href=${link(["episodes", id])}>${number(about.facets.n)} episodes</a></div>
    ${row.problem ? html`<p class="error">${visible(row.problem)}</p>` : null}
    ${row.command ? html`<pre class="command-line">${visible(row.command)}</pre>` : null}
    <h2>Evaluations</h2><${Evaluations} lines=${about.evaluations}/>
    ${row.kind === "run" ? html`<h2>What the method does</h2><${Method} run=${id} about=${about}/>
      <${Gates} run=${id} version=${row.version} columns=${row.columns}/>` : null}
    <details open=${all} onToggle=${(e) => show(e.target.open)}><summary><h2>Settings</h2> <span class="soft">${rows.length}</span></summary>
      ${all ? html`<table class="numbers">${rows.map(([key, value]) => html`<tr><th>${visible(key)}</th><td><code>${visible(value)}</code></td></tr>`)}
        ${settings(about.meta).map(([key, value]) => html`<tr><th class="soft">${visible(key)}</th><td><code>${visible(value)}</code></td></tr>`)}</table>` : null}
    </details>
  </main>`;
}

export { Run };
