// Two episodes beside each other: two runs, two steps, or two copies, of one task.
import { html, useState } from "./html.js";
import { useData } from "./data.js";
import { number, visible } from "./format.js";
import { go, link } from "./route.js";
import { ENDS, Outcome } from "./episodes.js";
import { Colouring, Conversation } from "./episode.js";
import { Inspector, Legend } from "./tokens.js";

function split(text) {
  const [run = "", id = ""] = (text || "").split("/");
  return { run, id };
}

function Picker({ runs, chosen, set, task }) {
  const [found] = useData(chosen.run ? `run/${chosen.run}/episodes` : null, { task, limit: 200, order: "step" });
  const rows = found ? found.rows : [];
  return html`<div class="bar tools">
    <label>run <select aria-label="run" value=${chosen.run} onChange=${(e) => set(`${e.target.value}/`)}>
      <option value="">choose</option>${runs.map((row) => html`<option value=${row.id}>${visible(row.name)}</option>`)}</select></label>
    ${chosen.run ? html`<label>episode <select aria-label="episode" value=${chosen.id} onChange=${(e) => set(`${chosen.run}/${e.target.value}`)}>
      <option value="">${rows.length ? `choose one of ${rows.length}` : "this run has not played the task"}</option>
      ${rows.map((row) => html`<option value=${String(row.id)}>${row.policy ? `${visible(row.policy)}, ` : ""}${row.phase === "warm_start" ? "warm start, " : ""}step ${row.step}, copy ${row.copy}, ${row.won ? "won" : "lost"}${task ? "" : `, ${visible(row.task)}`}</option>`)}
    </select></label>` : null}
  </div>`;
}

function Half({ chosen, runs, task, set, look, name }) {
  const [found, error] = useData(chosen.id ? `run/${chosen.run}/episode/${chosen.id}` : null);
  const [picked, pick] = useState(null);
  const mine = found && found.columns[look.column] ? look.column : "";
  const group = found ? found.group.find((row) => row.id === found.row.id) : null;
  return html`<section class="half" aria-label=${name}>
    <${Picker} runs=${runs} chosen=${chosen} set=${set} task=${task}/>
    ${error ? html`<p class="error">${visible(error)}</p>` : null}
    ${found && chosen.id ? html`
      <p><a href=${link(["episode", chosen.run, chosen.id], { column: look.column })}>${visible(found.row.task)}</a> <${Outcome} row=${found.row}/>
        <span class="soft"> step ${found.row.step}, return ${number(found.row.ret, 3)}${group && group.advantage !== undefined && group.advantage !== null ? `, advantage ${number(group.advantage, 3)}` : ""},${" "}
        ${found.row.turns} turns, ${found.row.invalid} invalid, ended by ${ENDS[found.row.stop] || visible(found.row.stop)}</span></p>
      ${mine ? html`<${Legend} columns=${found.columns} column=${mine} scale=${look.scale}/>
        <div class="peek"><${Inspector} found=${{ ...found, columns: { [mine]: found.columns[mine] } }} column=${mine} at=${picked}/></div>` : null}
      <${Conversation} found=${found} look=${{ ...look, column: mine, picked, pick }}/>` : null}
  </section>`;
}

function Side({ query }) {
  const [listed] = useData("runs");
  const a = split(query.a);
  const b = split(query.b || (a.run ? `${a.run}/` : ""));
  const [first] = useData(a.id ? `run/${a.run}/episode/${a.id}` : null);
  const [second] = useData(b.id ? `run/${b.run}/episode/${b.id}` : null);
  const task = first ? first.row.task : second ? second.row.task : "";
  const set = (changed) => go(["side"], { ...query, ...changed }, { replace: true });
  const columns = { ...(first ? first.columns : {}), ...(second ? second.columns : {}) };
  const look = { column: query.column || "", scale: query.scale || "", prompt: query.prompt === "yes" };
  const runs = listed ? listed.runs : [];
  return html`<main>
    <div class="bar"><h1>Side by side</h1><${Colouring} columns=${columns} query=${query} set=${set}/>
      ${task ? html`<span class="soft">${visible(task)}</span>` : html`<span class="soft">choose an episode on the left, then one of the same task on the right</span>`}
      ${task ? html`<button class="quiet" onClick=${() => go(["side"], {})}>other task</button>` : null}</div>
    <div class="halves">
      <${Half} name="left" chosen=${a} runs=${runs} task=${query.b && !a.id ? task : a.id ? task : ""} set=${(text) => set({ a: text })} look=${look}/>
      <${Half} name="right" chosen=${b} runs=${runs} task=${task} set=${(text) => set({ b: text })} look=${look}/>
    </div>
  </main>`;
}

export { Side };
