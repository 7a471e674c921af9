// The list of a run's episodes, filtered and searched.
import { html, useEffect, useMemo, useRef, useState } from "./html.js";
import { useData } from "./data.js";
import { bytes, number, percent, visible } from "./format.js";
import { go, link } from "./route.js";

const PAGE = 100;
const COLUMNS = [
  ["step", "step"], ["task", "task"], ["", "family"], ["", "copy"], ["", "outcome"], ["return", "return"],
  ["turns", "turns"], ["invalid", "invalid"], ["tokens", "tokens"], ["", "ended by"], ["", "who acted"],
];
const ENDS = { done: "environment", turns: "turn limit", tokens: "context limit", error: "error", timeout: "timeout" };

// What the list showed last, so that an episode's page can go to the next one.
const last = { run: "", ids: [], query: {} };

function Outcome({ row }) {
  return row.won ? html`<span class="won">\u2713 won</span>` : html`<span class="lost">\u2717 lost</span>`;
}

function actors(row) {
  return row.actors.split(",").filter(Boolean).join(", ");
}

function Choice({ name, query, set, values, label, names }) {
  if (!values || values.length < 2) return null;
  return html`<label>${label} <select id=${name} value=${query[name] || ""} onChange=${(e) => set({ [name]: e.target.value })}>
    <option value="">all</option>${values.map((v) => html`<option value=${v}>${visible(names ? names[v] : v)}</option>`)}</select></label>`;
}

function Range({ name, label, query, set }) {
  const box = (end, hint) => html`<input type="number" step="any" class="small" id=${`${end}_${name}`}
    placeholder=${hint} aria-label=${`${end === "low" ? "least" : "most"} ${label}`}
    value=${query[`${end}_${name}`] || ""} onInput=${(e) => set({ [`${end}_${name}`]: e.target.value })}/>`;
  return html`<span class="pair">${label} ${box("low", "from")}${box("high", "to")}</span>`;
}

function Episodes({ run, query }) {
  const [about] = useData(`run/${run}`, {}, { live: true });
  const page = Number(query.page || 0);
  const { page: _, ...filters } = query;
  const asked = { order: "step", way: "down", ...filters, limit: PAGE, offset: page * PAGE };
  const [found, error] = useData(`run/${run}/episodes`, asked, { live: true });
  const [text, setText] = useState(query.text || "");
  const timer = useRef(0);
  const set = (changed) => go(["episodes", run], { ...query, page: "", ...changed }, { replace: true });
  const typed = (value) => {
    setText(value);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => set({ text: value }), 100);
  };
  useEffect(() => {
    if (found) Object.assign(last, { run, ids: found.rows.map((row) => row.id), query });
  }, [found]);
  const facets = about ? about.facets : {};
  const [done, total] = found ? found.indexed : [0, 0];
  const latest = useRef(set);
  latest.current = set; // the table below may be older than the filters
  const sort = (key) => key && latest.current({ order: key, way: asked.order === key && asked.way === "down" ? "up" : "down" });
  // made once for each answer: not again for every key that is typed
  const table = useMemo(() => found && html`<div class="wide"><table class="list" id="episodes">
      <thead><tr>${COLUMNS.map(([key, name]) => html`<th aria-sort=${key && asked.order === key ? (asked.way === "down" ? "descending" : "ascending") : undefined}>
        ${key ? html`<button class="quiet" onClick=${() => sort(key)}>${name}${asked.order === key ? (asked.way === "down" ? " \u2193" : " \u2191") : ""}</button>` : name}</th>`)}</tr></thead>
      <tbody>${found.rows.map((row) => html`<tr key=${row.id}>
        <td class="number">${row.phase === "warm_start" ? html`<span class="soft">warm </span>` : null}${row.step}</td>
        <td><a href=${link(["episode", run, String(row.id)])}>${visible(row.task)}</a></td>
        <td>${visible(row.family)}</td><td class="number">${row.copy}</td><td><${Outcome} row=${row}/></td>
        <td class="number">${number(row.ret, 3)}</td><td class="number">${row.turns}</td>
        <td class=${`number ${row.invalid ? "bad" : ""}`}>${row.invalid || ""}</td><td class="number">${number(row.tokens)}</td>
        <td title=${visible(row.error)}>${ENDS[row.stop] || visible(row.stop)}</td><td>${visible(actors(row))}</td>
      </tr>`)}</tbody></table></div>`, [found, asked.order, asked.way]);
  return html`<main>
    <div class="bar">
      <h1>Episodes</h1>
      <input type="search" id="search" class="long" placeholder='words in the conversation, "several in order"'
        aria-label="search the text of episodes" value=${text} onInput=${(e) => typed(e.target.value)}/>
      <${Choice} name="won" label="outcome" values=${["yes", "no"]} names=${{ yes: "won", no: "lost" }} query=${query} set=${set}/>
      <${Choice} name="phase" label="phase" values=${facets.phase} query=${query} set=${set}/>
      <${Choice} name="split" label="split" values=${facets.split} query=${query} set=${set}/>
      <${Choice} name="family" label="family" values=${facets.family} query=${query} set=${set}/>
      <${Choice} name="actor" label="who acted" values=${facets.actor} query=${query} set=${set}/>
      <${Choice} name="stop" label="ended by" values=${facets.stop} names=${{ ...Object.fromEntries((facets.stop || []).map((v) => [v, v])), ...ENDS }} query=${query} set=${set}/>
      <${Choice} name="policy" label="policy" values=${facets.policy} query=${query} set=${set}/>
      <${Choice} name="invalid" label="invalid turns" values=${["yes", "no"]} query=${query} set=${set}/>
      <${Range} name="step" label="step" query=${query} set=${set}/>
      <${Range} name="return" label="return" query=${query} set=${set}/>
      ${query.task ? html`<button onClick=${() => set({ task: "" })}>task ${visible(query.task)} \u2715</button>` : null}
      <button class="quiet" onClick=${() => { setText(""); go(["episodes", run], {}, { replace: true }); }}>clear</button>
    </div>
    ${error && html`<p class="error">${error}</p>`}
    ${about && about.index_problem ? html`<p class="error">${visible(about.index_problem)}</p>` : null}
    ${found && done < total ? html`<p class="note" id="indexing">reading the episodes: ${bytes(done)} of ${bytes(total)};
      what is read already can be searched</p>` : null}
    ${found ? html`<p class="soft" id="count">${number(found.total)} episodes, ${number(found.won)} won
      ${found.total ? ` (${percent(found.won / found.total)})` : ""}, mean return ${number(found.return, 3)}</p>` : html`<p class="wait">Loading</p>`}
    ${found ? html`${table}
      <p class="pager"><button disabled=${page === 0} onClick=${() => set({ page: page - 1 || "" })}>\u2190 newer page</button>
        <span>${found.total ? page * PAGE + 1 : 0}\u2013${Math.min(found.total, (page + 1) * PAGE)} of ${number(found.total)}</span>
        <button disabled=${(page + 1) * PAGE >= found.total} onClick=${() => set({ page: page + 1 })}>next page \u2192</button></p>` : null}
  </main>`;
}

export { Episodes, Outcome, actors, last, ENDS };
