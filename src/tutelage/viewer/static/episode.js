// One episode: the conversation, who said what, its tokens, and what each view was shown.
import { html, useEffect, useState } from "./html.js";
import { useData } from "./data.js";
import { number, parts, visible } from "./format.js";
import { go, link } from "./route.js";
import { ENDS, Outcome, last } from "./episodes.js";
import { Inspector, Legend, Long, Tokens } from "./tokens.js";

const SHAPES = { student: "\u25cf", teacher: "\u25b2", expert: "\u25a0", astray: "\u25c6" };

function Actor({ name }) {
  const known = SHAPES[name] ? name : "other";
  return html`<span class=${`actor ${known}`}><span aria-hidden="true">${SHAPES[name] || "\u25b2"}</span> ${visible(name)}</span>`;
}

function Reply({ turn }) {
  return html`${parts(turn.text).map(([kind, text]) => {
    if (kind === "thought") return html`<details class="thought"><summary>thought${" "} <span class="soft">${visible(text.slice(0, 90))}${text.length > 90 ? "\u2026" : ""}</span></summary><${Long} text=${text}/></details>`;
    if (kind === "action") return html`<p class="action"><span class="soft">\u203a</span> <${Long} text=${text}/></p>`;
    return html`<p><${Long} text=${text}/></p>`;
  })}`;
}

function Turn({ turn, number: k, columns, look }) {
  const marks = [
    turn.taken ? html`<span class="soft">ended by <${Actor} name=${turn.taken[1]}/> from token ${turn.taken[0]}</span>` : null,
    turn.valid ? null : html`<span class="invalid">\u2717 invalid action</span>`,
    turn.reward ? html`<span class="reward">reward ${number(turn.reward)}</span>` : null,
    turn.penalty ? html`<span class="lost">penalty ${number(turn.penalty)}</span>` : null,
    turn.fresh ? html`<span class="soft">new prompt</span>` : null,
  ];
  return html`<li class=${`turn ${turn.valid ? "" : "refused"}`} id=${`turn-${k}`}>
    <div class="seen"><span class="who">environment</span><${Long} text=${turn.seen}/></div>
    <div class=${`reply by-${SHAPES[turn.actor] ? turn.actor : "other"}`}>
      <div class="who"><span class="soft">${k}</span> <${Actor} name=${turn.actor}/> ${marks}</div>
      ${look.column ? html`<${Tokens} turn=${turn} columns=${columns} ...${look}/>` : html`<${Reply} turn=${turn}/>`}
    </div>
  </li>`;
}

function Views({ run, id }) {
  const [found, error] = useData(`run/${run}/episode/${id}/views`);
  if (error) return html`<p class="soft">${visible(error)}</p>`;
  if (!found) return html`<p class="wait">Making the text</p>`;
  if (found.why) return html`<p class="soft">${visible(found.why)}</p>`;
  const views = Object.entries(found.views);
  if (!views.length) return html`<p class="soft">No view of this run is shown anything besides the conversation.</p>`;
  return html`<div class="views">${views.map(([name, text]) => html`<div><${Actor} name=${name}/>
    ${text ? html`<${Long} text=${text}/>` : html`<span class="soft">${name === "student" ? "the conversation alone" : "nothing is known of this task"}</span>`}</div>`)}</div>`;
}

function Group({ run, found }) {
  if (found.group.length < 2) return null;
  return html`<details open><summary><h3>Copies of this group</h3></summary>
    <table class="numbers" id="group"><thead><tr><th>copy</th><th>outcome</th><th>return</th>${found.advantage ? html`<th>${visible(found.advantage)}</th>` : null}</tr></thead>
    <tbody>${found.group.map((row) => html`<tr class=${row.id === found.row.id ? "now" : ""}>
      <td><a href=${link(["episode", run, String(row.id)])}>${row.copy}</a></td><td><${Outcome} row=${row}/></td>
      <td class="number">${number(row.ret, 3)}</td>${found.advantage ? html`<td class="number">${number(row.advantage, 3)}</td>` : null}</tr>`)}</tbody></table></details>`;
}

function defaultColumn(columns) {
  const names = Object.keys(columns);
  const wanted = [/^gate/, /t_dur/, /^gap/, /relative|advantage/, /importance/, /entropy/];
  for (const pattern of wanted) {
    const found = names.find((name) => pattern.test(name));
    if (found) return found;
  }
  return names[0] || "";
}

// The conversation with its colours; `look` holds what is chosen.
function Conversation({ found, look }) {
  const { turns } = found.line;
  const move = (event) => {
    if (!look.column || (event.key !== "ArrowRight" && event.key !== "ArrowLeft")) return;
    const most = turns.reduce((n, turn) => n + turn.ids.length, 0) - 1;
    const next = look.picked === null ? 0 : look.picked + (event.key === "ArrowRight" ? 1 : -1);
    look.pick(Math.max(0, Math.min(most, next)));
    event.preventDefault();
  };
  return html`<ol class="conversation" tabindex="0" onKeyDown=${move} aria-label="conversation">
    ${turns.map((turn, k) => html`<${Turn} key=${k} turn=${turn} number=${k + 1} columns=${found.columns} look=${look}/>`)}
    ${found.line.error ? html`<li class="error"><${Long} text=${found.line.error}/></li>` : null}
  </ol>`;
}

function Colouring({ columns, query, set }) {
  const names = Object.keys(columns);
  return html`<label>colour by <select id="column" value=${query.column || ""} onChange=${(e) => set({ column: e.target.value })}>
      <option value="">nothing</option>${query.column && !columns[query.column] ? html`<option value=${query.column}>${visible(query.column)}: not recorded here</option>` : null}${names.map((name) => html`<option value=${name}>${visible(name)}</option>`)}</select></label>
    ${query.column ? html`<label>scale <select value=${query.scale || ""} onChange=${(e) => set({ scale: e.target.value })}>
      <option value="">as it fits</option><option value="root">square root</option><option value="linear">linear</option></select></label>
      <label><input type="checkbox" checked=${query.prompt === "yes"} onChange=${() => set({ prompt: query.prompt === "yes" ? "" : "yes" })}/> prompt tokens</label>` : null}`;
}

function Episode({ run, id, query }) {
  const [found, error] = useData(`run/${run}/episode/${id}`);
  const [picked, pick] = useState(null);
  const set = (changed) => go(["episode", run, id], { ...query, ...changed }, { replace: true });
  const ids = last.run === run ? last.ids : [];
  const at = ids.indexOf(Number(id));
  const near = (step) => {
    const next = at < 0 ? Number(id) + step : ids[at + step];
    if (next !== undefined && next > 0) go(["episode", run, String(next)], query);
  };
  useEffect(() => {
    const key = (event) => {
      if (event.target.closest("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "j") near(1);
      if (event.key === "k") near(-1);
      if (event.key === "c" && found) set({ column: query.column ? "" : defaultColumn(found.columns) });
    };
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  });
  useEffect(() => pick(null), [run, id]);
  if (!found) return error ? html`<p class="error">${visible(error)}</p>` : html`<p class="wait">Loading</p>`;
  const { row, line } = found;
  const look = { column: found.columns[query.column] ? query.column : "", scale: query.scale || "", picked, pick, prompt: query.prompt === "yes" };
  return html`<main class="episode">
    <div class="bar">
      <a class="back" href=${link(["episodes", run], last.run === run ? last.query : {})}>\u2190 episodes</a>
      <h1>${visible(row.task)}</h1> <${Outcome} row=${row}/>
      <span class="soft">${row.policy ? `${visible(row.policy)}, ` : ""}${row.phase === "warm_start" ? "warm start, " : ""}step ${row.step}, copy ${row.copy}, ${visible(row.family)},
        return ${number(row.ret, 3)}, ${row.turns} turns, ended by ${ENDS[row.stop] || visible(row.stop)}</span>
      <span class="grow"></span>
      <span class="pair"><button title="previous (k)" onClick=${() => near(-1)}>\u2191</button><button title="next (j)" onClick=${() => near(1)}>\u2193</button>
        <a class="button" href=${link(["side"], { a: `${run}/${id}`, column: query.column })}>side by side</a></span>
    </div>
    ${error && html`<p class="error">${visible(error)}</p>`}
    <div class="split">
      <div class="reading"><div class="bar tools"><${Colouring} columns=${found.columns} query=${query} set=${set}/>
        ${Object.keys(found.columns).length < 2 ? html`<span class="soft">per-token signals are recorded with run.columns = true</span>` : null}
        ${found.tokenizer && look.column ? html`<span class="soft">${visible(found.tokenizer)}</span>` : null}</div>
        <${Conversation} found=${found} look=${look}/></div>
      <aside>
        ${look.column ? html`<section><h3>${visible(look.column)}</h3><${Legend} columns=${found.columns} column=${look.column} scale=${look.scale}/>
          <${Inspector} found=${found} column=${look.column} at=${picked}/></section>` : null}
        <section><details open><summary><h3>What each view is shown besides</h3></summary><${Views} key=${id} run=${run} id=${id}/></details></section>
        <section><${Group} run=${run} found=${found}/></section>
        ${found.same_task.length > found.group.length ? html`<section><details><summary><h3>Same task elsewhere in this run</h3></summary>
          <ul class="plain">${found.same_task.filter((other) => other.step !== row.step || other.phase !== row.phase || other.policy !== row.policy).map((other) => html`<li>
            <a href=${link(["side"], { a: `${run}/${id}`, b: `${run}/${other.id}`, column: query.column })}>${other.policy ? `${visible(other.policy)}, ` : ""}${other.phase === "warm_start" ? "warm start, " : ""}step ${other.step}, copy ${other.copy}</a> <${Outcome} row=${other}/></li>`)}</ul></details></section>` : null}
      </aside>
    </div>
  </main>`;
}

export { Episode, Conversation, Colouring, Actor, defaultColumn };
