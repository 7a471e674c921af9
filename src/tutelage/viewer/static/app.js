// The frame of the page: the bar on top, the page that the address names, keys, light and dark.
import { html, render, useEffect, useState } from "./html.js";
import { inside, offline, useData } from "./data.js";
import { visible } from "./format.js";
import { go, link, useRoute } from "./route.js";
import { Runs } from "./runs.js";
import { Run } from "./run.js";
import { Curves } from "./curves.js";
import { Episodes } from "./episodes.js";
import { Episode } from "./episode.js";
import { Side } from "./side.js";

const KEYS = [
  ["/", "search"], ["1 2 3 4", "runs, curves, episodes, side by side"], ["j k", "next and previous episode"],
  ["c", "colour the tokens of an episode"], ["\u2190 \u2192", "from token to token"], ["t", "light, dark"], ["?", "this list"],
];

function theme() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try {
    localStorage.setItem("theme", root.dataset.theme);
  } catch { /* a page from a file may keep nothing */ }
  dispatchEvent(new Event("theme"));
}

function Page({ route }) {
  const [name, run, id] = route.path;
  if (name === "run" && run) return html`<${Run} key=${run} id=${run}/>`;
  if (name === "curves") return html`<${Curves} query=${route.query}/>`;
  if (name === "episodes" && run) return html`<${Episodes} key=${run} run=${run} query=${route.query}/>`;
  if (name === "episode" && id) return html`<${Episode} key=${run} run=${run} id=${id} query=${route.query}/>`;
  if (name === "side") return html`<${Side} query=${route.query}/>`;
  return html`<${Runs}/>`;
}

function App() {
  const route = useRoute();
  const [help, setHelp] = useState(false);
  const [listed] = useData("runs");
  const [name, of] = route.path;
  const here = ["run", "episodes", "episode"].includes(name) ? of : "";
  const first = listed && listed.runs.length ? listed.runs[0].id : "";
  const pages = [
    ["Runs", [""], name === ""], ["Curves", ["curves"], name === "curves"],
    ["Episodes", ["episodes", here || first], name === "episodes" || name === "episode"], ["Side by side", ["side"], name === "side"],
  ];
  useEffect(() => {
    // who opens one run wants to see it, not a list of one
    if (listed && listed.runs.length === 1 && location.hash === "") go(["run", first], {}, { replace: true });
  }, [listed]);
  useEffect(() => {
    const key = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      if (event.key === "Escape") { document.activeElement.blur(); setHelp(false); }
      if (event.target.closest("input, select, textarea")) return;
      if (event.key === "/") { const box = document.getElementById("search"); if (box) { box.focus(); event.preventDefault(); } }
      if (event.key === "t") theme();
      if (event.key === "?") setHelp((on) => !on);
      const page = pages[Number(event.key) - 1];
      if (page) go(page[1]);
    };
    addEventListener("keydown", key);
    return () => removeEventListener("keydown", key);
  });
  const current = listed && here ? listed.runs.find((row) => row.id === here) : null;
  return html`<header>
      <a class="brand" href="#/">tutelage</a>
      <nav aria-label="pages">${pages.map(([text, path, on]) => html`<a href=${link(path)} aria-current=${on ? "page" : undefined}>${text}</a>`)}</nav>
      ${listed && here ? html`<select aria-label="run" value=${here} onChange=${(e) => go([name === "episode" ? "episodes" : name, e.target.value])}>
        ${listed.runs.map((row) => html`<option value=${row.id}>${visible(row.name)}</option>`)}</select>` : null}
      ${current && name !== "run" ? html`<a href=${link(["run", here])}>about it</a>` : null}
      <span class="grow"></span>
      ${offline ? html`<span class="soft">written ${visible(inside.written)}${inside.left_out ? `; ${inside.left_out} episodes left out` : ""}</span>` : null}
      <button class="quiet" onClick=${theme} title="light or dark (t)" aria-label="light or dark">\u25d0</button>
      <button class="quiet" onClick=${() => setHelp(!help)} title="keys (?)" aria-label="keys">?</button>
    </header>
    ${help ? html`<div class="help" role="dialog" aria-label="keys"><table>${KEYS.map(([key, what]) => html`<tr><th><kbd>${key}</kbd></th><td>${what}</td></tr>`)}</table></div>` : null}
    <${Page} route=${route}/>`;
}

try {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch { /* as above */ }
const root = document.getElementById("app");
root.replaceChildren();
render(html`<${App}/>`, root);
