// Where data come from: the server that sent this page, or the page itself if it was written to a file.
import { useState, useEffect, useLayoutEffect } from "./html.js";

const element = document.getElementById("data");
const inside = element ? JSON.parse(element.textContent) : null;
const offline = inside !== null;

const EVERY = 2000; // milliseconds between two looks at a run that may grow

class Refused extends Error {}

async function get(path, parameters = {}) {
  if (offline) return answer(path, parameters);
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (value !== "" && value !== undefined && value !== null) query.set(key, value);
  }
  const text = query.toString();
  let response;
  try {
    response = await fetch(`api/${path}${text ? `?${text}` : ""}`, { credentials: "same-origin" });
  } catch (error) {
    throw new Refused("The viewer does not answer; is `tutelage view` still running?");
  }
  const type = response.headers.get("content-type") || "";
  if (!type.startsWith("application/json")) throw new Refused(await response.text());
  const found = await response.json();
  if (!response.ok) throw new Refused(found.error || `The viewer answered ${response.status}.`);
  return found;
}

// -- answers of a page without a server

function answer(path, asked) {
  const parts = path.split("/");
  if (path === "runs") return { runs: inside.runs };
  const run = inside.run[parts[1]];
  if (!run) throw new Refused("This page holds no such run.");
  if (parts.length === 2) return run.about;
  if (parts[2] === "series") {
    const phase = run.series[asked.phase || "train"];
    const keys = (asked.keys || "").split("\n").filter(Boolean);
    return { x: phase.x, values: Object.fromEntries(keys.map((k) => [k, phase.values[k] || []])) };
  }
  if (parts[2] === "histogram") return run.histograms[asked.column] || run.histograms[""];
  if (parts[2] === "episodes") return search(run, asked);
  const episode = run.episodes[parts[3]];
  if (!episode) throw new Refused("This page holds only some of the run's episodes, not this one.");
  return parts[4] === "views" ? episode.views : episode.shown;
}

function search(run, asked) {
  const words = (asked.text || "").toLowerCase().match(/"[^"]*"|\S+/g) || [];
  const same = ["phase", "split", "family", "stop", "policy", "task"];
  const rows = run.rows.filter((row) => {
    if (same.some((key) => asked[key] && row[key] !== asked[key])) return false;
    if (asked.actor && !row.actors.includes(`,${asked.actor},`)) return false;
    if (asked.won && (asked.won === "yes") !== Boolean(row.won)) return false;
    if (asked.invalid && (asked.invalid === "yes") !== row.invalid > 0) return false;
    for (const [key, of] of [["step", "step"], ["return", "ret"]]) {
      const low = asked[`low_${key}`];
      const high = asked[`high_${key}`];
      if (low !== "" && low !== undefined && row[of] < Number(low)) return false;
      if (high !== "" && high !== undefined && row[of] > Number(high)) return false;
    }
    if (!words.length) return true;
    const turns = run.episodes[row.id].shown.line.turns.map((t) => `${t.seen}\n${t.text}`);
    const text = turns.join("\n").toLowerCase();
    return words.every((word) => text.includes(word.replaceAll('"', "")));
  });
  const key = { return: "ret" }[asked.order] || asked.order || "step";
  const sign = asked.way === "up" ? 1 : -1;
  rows.sort((a, b) => sign * (a[key] > b[key] ? 1 : a[key] < b[key] ? -1 : a.id - b.id));
  const from = Number(asked.offset || 0);
  const mean = rows.reduce((sum, row) => sum + row.ret, 0) / Math.max(1, rows.length);
  return {
    total: rows.length,
    won: rows.filter((row) => row.won).length,
    return: mean,
    rows: rows.slice(from, from + Number(asked.limit || 100)),
    indexed: [1, 1],
  };
}

// -- for components

// What `path` answers: [data, error]. Asked again when `live` is set and time has passed; the last
// data stay until newer ones are there.
function useData(path, parameters = {}, { live = false } = {}) {
  const key = path === null ? "" : `${path}?${JSON.stringify(parameters)}`;
  const [state, set] = useState({ key: "", data: null, error: "" });
  useLayoutEffect(() => { // asked before the page is painted: the answer is a frame earlier
    if (path === null) return undefined;
    let over = false;
    let timer = 0;
    let last = "";
    async function ask() {
      if (!document.hidden || last === "") {
        try {
          const data = await get(path, parameters);
          const text = live ? JSON.stringify(data) : "once";
          if (!over && text !== last) set({ key, data, error: "" });
          last = text;
        } catch (error) {
          if (!over) set((old) => ({ key, data: old.key === key ? old.data : null, error: error.message }));
        }
      }
      if (live && !over && !offline) timer = setTimeout(ask, EVERY);
    }
    ask();
    return () => {
      over = true;
      clearTimeout(timer);
    };
  }, [key, live]);
  return [state.data, state.key === key ? state.error : ""];
}

export { get, useData, offline, inside };
