// Numbers and hostile text as a person can read them.

const NAMES = new Map([
  [0x061c, "ALM"], [0x200b, "ZWSP"], [0x200e, "LRM"], [0x200f, "RLM"], [0x202a, "LRE"],
  [0x202b, "RLE"], [0x202c, "PDF"], [0x202d, "LRO"], [0x202e, "RLO"], [0x2060, "WJ"],
  [0x2066, "LRI"], [0x2067, "RLI"], [0x2068, "FSI"], [0x2069, "PDI"], [0xfeff, "BOM"],
]);
const SPECIAL = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]/g;

// Control characters and characters that turn the direction of text are shown as signs, so that
// text can neither hide nor reorder what stands beside it.
function visible(text) {
  return String(text).replace(SPECIAL, (character) => {
    const code = character.charCodeAt(0);
    if (code < 0x20) return String.fromCharCode(0x2400 + code);
    if (code === 0x7f) return "\u2421";
    return `\u27e8${NAMES.get(code) || `U+${code.toString(16).padStart(4, "0").toUpperCase()}`}\u27e9`;
  });
}

function number(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return "\u2013";
  if (!Number.isFinite(value)) return String(value);
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return value.toLocaleString("en");
  if (size >= 1e5 || size < 1e-3) return value.toExponential(2).replace("e+", "e");
  return String(Number(value.toPrecision(digits)));
}

function percent(value) {
  if (value === null || value === undefined) return "\u2013";
  return `${(100 * value).toFixed(0)} %`;
}

function interval(evaluation) {
  if (!evaluation || evaluation.success === undefined) return "\u2013";
  const { success, low, high } = evaluation;
  return `${percent(success)} (${(100 * low).toFixed(0)} to ${(100 * high).toFixed(0)} %)`;
}

function bytes(size) {
  if (size < 1e6) return `${Math.round(size / 1e3)} kB`;
  return size < 1e9 ? `${Math.round(size / 1e6)} MB` : `${(size / 1e9).toFixed(1)} GB`;
}

// A reply as parts: what the model thought, what it does, and text around both.
function parts(text) {
  const found = [];
  const pattern = /<think>([\s\S]*?)(?:<\/think>|$)|<action>([\s\S]*?)(?:<\/action>|$)/g;
  let from = 0;
  for (const match of text.matchAll(pattern)) {
    if (text.slice(from, match.index).trim()) found.push(["text", text.slice(from, match.index).trim()]);
    found.push(match[1] !== undefined ? ["thought", match[1].trim()] : ["action", match[2].trim()]);
    from = match.index + match[0].length;
  }
  if (text.slice(from).trim()) found.push(["text", text.slice(from).trim()]);
  return found;
}

export { visible, number, percent, interval, bytes, parts };
