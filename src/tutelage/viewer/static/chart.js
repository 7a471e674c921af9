// Curves with uPlot: lines of several runs, each with its colour and dashes, bands where there are intervals.
import uPlot from "uplot";
import { html, useEffect, useRef, useState } from "./html.js";
import { number } from "./format.js";

const COLOURS = 7; // --line-0 ... of style.css
const DASHES = [[], [7, 4], [2, 3], [10, 3, 2, 3], [14, 4], [4, 2, 1, 2]];

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function colour(k) {
  return css(`--line-${k % COLOURS}`);
}

function dash(k) {
  return DASHES[k % DASHES.length];
}

// A piece of a line as the background of its mark in the legend.
function sample(k) {
  const stroke = colour(k);
  let at = 0;
  const stops = (dash(k).length ? dash(k) : [1, 0]).map((length, j) => {
    at += length;
    return `${j % 2 ? "transparent" : stroke} ${at - length}px ${at}px`;
  });
  return `repeating-linear-gradient(90deg, ${stops.join(", ")})`;
}

// The mean of what came before, each step back weighing less; gaps stay gaps.
function smooth(values, strength) {
  if (!strength) return values;
  let mean = 0;
  let weight = 0;
  return values.map((value) => {
    if (value === null || value === undefined || Number.isNaN(value)) return null;
    mean = strength * mean + (1 - strength) * value;
    weight = strength * weight + (1 - strength);
    return mean / weight;
  });
}

function useTheme() {
  const [count, set] = useState(0);
  useEffect(() => {
    const changed = () => set((n) => n + 1);
    addEventListener("theme", changed);
    const media = matchMedia("(prefers-color-scheme: dark)");
    media.addEventListener("change", changed);
    return () => {
      removeEventListener("theme", changed);
      media.removeEventListener("change", changed);
    };
  }, []);
  return count;
}

function tables(lines) {
  // one table for each line, since runs have points of their own; uPlot joins them by x
  return lines.map((line) => {
    const order = line.x.map((_, k) => k).sort((a, b) => line.x[a] - line.x[b]);
    const pick = (values) => order.map((k) => (values[k] === undefined ? null : values[k]));
    const table = [pick(line.x), pick(line.y)];
    if (line.low) table.push(pick(line.low), pick(line.high));
    return table;
  });
}

// lines: [{name, x, y, low?, high?, k}], where k chooses colour and dashes
function Chart({ title, lines, xlabel, height = 190, sync = "", percent = false }) {
  const box = useRef(null);
  const theme = useTheme();
  const present = lines.filter((line) => line.x.length);
  const key = JSON.stringify(present.map((l) => [l.name, l.k, l.x, l.y, l.low]));
  useEffect(() => {
    if (!box.current || !present.length) return undefined;
    const marks = [];
    const series = [{ label: xlabel, value: (_, v) => (v === null ? "" : number(v)) }];
    const bands = [];
    for (const line of present) {
      const stroke = colour(line.k);
      marks[series.length] = sample(line.k);
      const dots = line.y.filter((v) => v !== null && v !== undefined).length < 40;
      series.push({
        label: line.name, stroke, width: 2, dash: dash(line.k), spanGaps: true,
        points: { show: dots, size: 5, fill: stroke },
        value: (_, v) => (v === null ? "" : percent ? `${(100 * v).toFixed(1)} %` : number(v)),
      });
      if (line.low) {
        const at = series.length;
        const thin = { width: 0, points: { show: false }, spanGaps: true, stroke, class: "bound" };
        series.push({ ...thin, label: `${line.name}, low` }, { ...thin, label: `${line.name}, high` });
        bands.push({ series: [at + 1, at], fill: `${stroke}26` });
      }
    }
    const axis = {
      stroke: css("--soft"), grid: { stroke: css("--grid"), width: 1 },
      ticks: { stroke: css("--grid"), width: 1 }, font: "12px system-ui, sans-serif",
    };
    const plot = new uPlot(
      {
        width: Math.max(240, box.current.clientWidth), height, series, bands,
        scales: { x: { time: false }, y: percent ? { range: [0, 1.02] } : {} },
        axes: [
          { ...axis, label: xlabel, labelSize: 18, labelFont: "12px system-ui, sans-serif", size: 32 },
          {
            ...axis, size: 58,
            values: (_, ticks) => ticks.map((v) => (percent ? `${Math.round(100 * v)} %` : number(v, 3))),
          },
        ],
        cursor: { drag: { x: true, y: false }, ...(sync ? { sync: { key: sync } } : {}) },
        legend: { live: true, markers: { width: 0, fill: (_, k) => marks[k] || "none" } },
      },
      present.length === 1 ? tables(present)[0] : uPlot.join(tables(present)),
      box.current,
    );
    // `box.current` is null by the time a page is left, and the observer may be asked once more
    const place = box.current;
    const observer = new ResizeObserver(() => {
      if (place.isConnected) plot.setSize({ width: Math.max(240, place.clientWidth), height });
    });
    observer.observe(place);
    return () => {
      observer.disconnect();
      plot.destroy();
    };
  }, [key, theme, xlabel, height, percent, sync]);
  return html`<figure class="chart">
    <figcaption>${title}</figcaption>
    ${present.length ? html`<div ref=${box}></div>` : html`<p class="none">nothing recorded yet</p>`}
  </figure>`;
}

// Counts in equal bins: one group of bars for each part, told apart by colour and pattern.
function Histogram({ title, bins, groups }) {
  const names = Object.keys(groups).sort();
  const width = 560;
  const height = 190;
  const most = Math.max(1, ...names.flatMap((name) => groups[name]));
  const count = bins.length - 1;
  const slot = (width - 50) / Math.max(1, count);
  const bar = Math.max(1, (slot - 3) / Math.max(1, names.length));
  const y = (n) => (height - 30) * (1 - n / most) + 6;
  return html`<figure class="chart">
    <figcaption>${title}</figcaption>
    <svg viewBox="0 0 ${width} ${height + 6}" role="img" class="histogram"
      aria-label=${names.map((n) => `${n}: ${groups[n].reduce((a, b) => a + b, 0)} tokens`).join("; ")}>
      <defs><pattern id="hatch" width="5" height="5" patternUnits="userSpaceOnUse" patternTransform="rotate(45)">
        <rect width="5" height="5" class="bar-1"/><line x1="0" x2="0" y1="0" y2="5" class="stripe"/></pattern></defs>
      ${[0, most / 2, most].map((n) => html`<g>
        <line x1="46" x2=${width} y1=${y(n)} y2=${y(n)} class="rule"/>
        <text x="42" y=${y(n) + 4} text-anchor="end">${number(Math.round(n))}</text></g>`)}
      ${names.map((name, j) => groups[name].map((n, k) => html`<rect
        x=${48 + k * slot + j * bar} width=${bar} y=${y(n)} height=${Math.max(0, height - 24 - y(n))}
        class=${`bar-${j}`} fill=${j === 1 ? "url(#hatch)" : undefined}>
        <title>${`${name}: ${n} tokens from ${number(bins[k])} to ${number(bins[k + 1])}`}</title></rect>`))}
      ${[0, Math.floor(count / 2), count].map((k) => html`<text x=${48 + k * slot} y=${height - 6}
        text-anchor=${k === 0 ? "start" : k === count ? "end" : "middle"}>${number(bins[k])}</text>`)}
    </svg>
    <p class="legend-row">${names.map((name, j) => html`<span><i class=${`swatch bar-${j}`}></i>
      ${name}: ${number(groups[name].reduce((a, b) => a + b, 0))} tokens</span>`)}</p>
  </figure>`;
}

function Swatch({ k }) {
  const dashes = dash(k).join(" ");
  return html`<svg class="line-swatch" viewBox="0 0 28 8" aria-hidden="true"><line x1="0" x2="28" y1="4" y2="4"
    class=${`line-${k % COLOURS}`} stroke-width="3" stroke-dasharray=${dashes || undefined}/></svg>`;
}

export { Chart, Histogram, Swatch, smooth };
