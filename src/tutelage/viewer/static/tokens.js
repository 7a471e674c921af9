// Tokens coloured by a recorded signal. Colour is never alone: a bar below a token grows with values above 0, a
// bar above it with values below 0, and tokens that no loss reads are hatched.
import { html, useState } from "./html.js";
import { number, visible } from "./format.js";

const FOLDED = 4000; // characters of one text that are shown before "show all"

// Reductions: how much each token weighs in the mean of a loss; where all are 0, nothing is learnt from it.
const REDUCTIONS = /^(token_mean|sequence_mean|episode_mean|turn_mean|acted_by|varied)/;

function Long({ text, className = "" }) {
  const [all, show] = useState(false);
  const folded = text.length > FOLDED && !all;
  return html`<span class=${`text ${className}`}>${visible(folded ? text.slice(0, FOLDED) : text)}${folded
    ? html`<button class="quiet" onClick=${() => show(true)}>\u2026 show all ${number(text.length)} characters</button>` : null}</span>`;
}

function range(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values || []) {
    if (value === null) continue;
    if (value < low) low = value;
    if (value > high) high = value;
  }
  return low <= high ? [low, high] : null;
}

// How strong a value is shown, from -1 to 1: against the largest in this episode.
function strength(value, [low, high], scale) {
  const most = Math.max(Math.abs(low), Math.abs(high));
  if (!most || value === null || value === undefined) return 0;
  const part = Math.abs(value) / most;
  return Math.sign(value) * (scale === "root" ? Math.sqrt(part) : part);
}

// Signals of one sign are shown as they are; where both signs occur, a few large values would hide all others.
function scaleOf(chosen, values) {
  const [low, high] = range(values) || [0, 0];
  return chosen || (low < 0 && high > 0 ? "root" : "linear");
}

function trained(columns, at) {
  const names = Object.keys(columns).filter((name) => REDUCTIONS.test(name));
  if (!names.length) return null;
  return names.some((name) => columns[name][at] !== 0 && columns[name][at] !== null);
}

function Tokens({ turn, columns, column, scale, picked, pick, prompt }) {
  const values = columns[column] || [];
  const ends = range(values) || [0, 0];
  const way = scaleOf(scale, values);
  const writers = turn.ids.map((_, k) => (turn.taken && k >= turn.taken[0] ? turn.taken[1] : turn.actor));
  return html`<span class="tokens">
    ${prompt ? turn.prompt.map((text, k) => html`<span class="token prompt" title=${`prompt, id ${turn.prompt_ids[k]}: not trained on`}>${visible(text)}</span>`) : null}
    ${turn.tokens.map((text, k) => {
      const at = turn.at + k;
      const v = strength(values[at], ends, way);
      const masked = trained(columns, at) === false;
      const classes = ["token", v < 0 ? "below" : "above", masked ? "masked" : "", picked === at ? "picked" : "",
        writers[k] !== turn.actor ? "taken" : ""].filter(Boolean).join(" ");
      return html`<span class=${classes} data-at=${at} style=${{ "--v": Math.abs(v).toFixed(3) }}
        onMouseEnter=${() => pick(at)} onClick=${() => pick(at)}>${text === "" ? "\u00b7" : text.trim() === "" ? visible(text.replaceAll("\n", "\u23ce\n").replaceAll(" ", "\u2423")) : visible(text)}</span>`;
    })}</span>`;
}

function Legend({ columns, column, scale }) {
  const ends = range(columns[column]);
  if (!ends) return html`<p class="soft">no value was recorded in this episode</p>`;
  const [low, high] = ends;
  const way = scaleOf(scale, columns[column]);
  const both = low < 0 && high > 0;
  return html`<div class="legend">
    <div class="ramp" aria-hidden="true">${Array.from({ length: 41 }, (_, k) => {
      const value = low + ((high - low) * k) / 40;
      const v = strength(low === high ? high : value, ends, way);
      return html`<i class=${v < 0 ? "below" : "above"} style=${{ "--v": Math.abs(v).toFixed(3) }}></i>`;
    })}</div>
    <div class="ends"><span>${number(low)}</span>${both ? html`<span class="zero" style=${{ left: `${(100 * -low) / (high - low)}%` }}>0</span>` : null}<span>${number(high)}</span></div>
    <p class="soft">least and most in this episode, ${way === "root" ? "strength by square root" : "linear strength"}. A bar below a token: above 0; a bar above it: below 0. Hatched: in no loss.</p>
  </div>`;
}

function share(logp) {
  const p = Math.exp(logp ?? -Infinity);
  return p < 5e-4 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`;
}

// The likeliest tokens of each view at one place; the one that was sampled is marked.
function Alternatives({ found, sampled, at }) {
  const views = Object.entries(found.alternatives || {}).filter(([, tokens]) => tokens[at]);
  if (!views.length) return null;
  return html`<div id="alternatives">${views.map(([view, tokens]) => html`<table class="numbers"><caption>${visible(view)}: likeliest tokens</caption>
    <tbody>${tokens[at].map(([id, logp]) => html`<tr class=${id === sampled ? "now" : ""}>
      <th><code class="piece">${visible(JSON.stringify(found.texts[id] ?? `#${id}`))}</code>${id === sampled ? html` <span class="soft">sampled</span>` : null}</th>
      <td class="number" title=${`id ${id}, log p ${number(logp, 4)}`}>${share(logp)}</td></tr>`)}</tbody></table>`)}</div>`;
}

function Inspector({ found, column, at }) {
  const { columns } = found;
  const { turns } = found.line;
  const turn = turns.find((t) => at !== null && at >= t.at && at < t.at + t.ids.length);
  if (!turn) return html`<p class="soft">Point at a token, or move with \u2190 and \u2192, to see its numbers.</p>`;
  const k = at - turn.at;
  const writer = turn.taken && k >= turn.taken[0] ? turn.taken[1] : turn.actor;
  const learnt = trained(columns, at);
  return html`<div id="inspector">
    <p><code class="piece">${visible(JSON.stringify(turn.tokens[k]))}</code> <span class="soft">id ${turn.ids[k]}, turn ${turns.indexOf(turn) + 1}, by ${visible(writer)}${learnt === false ? ", in no loss" : ""}</span></p>
    <table class="numbers"><tbody>${Object.entries(columns).map(([name, values]) => html`<tr class=${name === column ? "now" : ""}>
      <th>${visible(name)}</th><td class="number">${number(values[at], 6)}</td></tr>`)}</tbody></table>
    <${Alternatives} found=${found} sampled=${turn.ids[k]} at=${at}/>
  </div>`;
}

export { Tokens, Legend, Inspector, Long, range };
