// The list of runs.
import { html, useState } from "./html.js";
import { useData } from "./data.js";
import { interval, number, visible } from "./format.js";
import { go, link } from "./route.js";

const SIGNS = { running: "\u25b6", stopped: "\u275a\u275a", finished: "\u2713", broken: "\u26a0" };

function State({ row }) {
  return html`<span class=${`state ${row.state}`} title=${visible(row.problem)}>
    <span aria-hidden="true">${SIGNS[row.state]}</span> ${row.state}</span>`;
}

function Bar({ evaluation }) {
  // the interval as a bar, the estimate as a mark on it
  if (!evaluation || evaluation.success === undefined) return null;
  const { success, low, high } = evaluation;
  return html`<svg class="interval" viewBox="0 0 100 10" aria-hidden="true" preserveAspectRatio="none">
    <rect x="0" y="4" width="100" height="2" class="track"/>
    <rect x=${100 * low} y="2.5" width=${Math.max(1, 100 * (high - low))} height="5" class="range"/>
    <rect x=${100 * success - 0.9} y="0" width="1.8" height="10" class="mark"/></svg>`;
}

function progress(row) {
  if (row.kind !== "run") return "\u2013";
  const warm = row.done ? "" : row.warm ? ` (warm start ${row.warm})` : "";
  return `${number(row.done)} / ${number(row.steps)}${warm}`;
}

function Runs() {
  const [found, error] = useData("runs", {}, { live: true });
  const [chosen, choose] = useState([]);
  const [words, say] = useState("");
  if (error && !found) return html`<p class="error">${error}</p>`;
  if (!found) return html`<p class="wait">Loading</p>`;
  const wanted = words.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = found.runs.filter((row) => {
    const text = `${row.name} ${row.path} ${row.method} ${row.suite} ${row.model} ${row.state}`.toLowerCase();
    return wanted.every((word) => text.includes(word));
  });
  const toggle = (id) => choose(chosen.includes(id) ? chosen.filter((x) => x !== id) : [...chosen, id]);
  return html`<main>
    <div class="bar">
      <h1>Runs</h1>
      <input type="search" id="search" placeholder="name, method, suite" aria-label="search runs" value=${words}
        onInput=${(event) => say(event.target.value)}/>
      <span class="soft">${rows.length} of ${found.runs.length}</span>
      <span class="grow"></span>
      <button disabled=${!chosen.length} onClick=${() => go(["curves"], { runs: chosen.join(",") })}>
        Curves of ${chosen.length || "the chosen"}</button>
    </div>
    ${error && html`<p class="error">${error}</p>`}
    <div class="wide"><table class="list" id="runs">
      <thead><tr><th><span class="hidden">choose</span></th><th>run</th><th>method</th><th>suite</th><th>state</th>
        <th>steps</th><th>tasks solved, last panel</th><th></th><th>panel</th><th>command</th></tr></thead>
      <tbody>${rows.map((row) => html`<tr key=${row.id}>
        <td><input type="checkbox" aria-label=${`choose ${row.name}`} checked=${chosen.includes(row.id)}
          onChange=${() => toggle(row.id)}/></td>
        <td><a href=${link(["run", row.id])}>${visible(row.name)}</a>
          ${row.seed ? html` <span class="soft">seed ${row.seed}</span>` : null}</td>
        <td>${visible(row.method || row.kind)}</td>
        <td>${visible(row.suite)}</td>
        <td><${State} row=${row}/></td>
        <td class="number">${progress(row)}</td>
        <td class="number">${interval(row.evaluation)}</td>
        <td><${Bar} evaluation=${row.evaluation}/></td>
        <td class="soft">${row.evaluation.n ? `${visible(row.evaluation.split || "")}, n = ${row.evaluation.n}` : ""}</td>
        <td><code class="command" title=${visible(row.command)}>${visible(row.command)}</code></td>
      </tr>`)}</tbody>
    </table></div>
    ${rows.filter((row) => row.problem).map((row) => html`<p class="error">${visible(row.name)}: ${visible(row.problem)}</p>`)}
  </main>`;
}

export { Runs, State, Bar };
