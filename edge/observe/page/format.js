// Numbers as people read them. Each function takes null for "nothing is known".

const NOTHING = "–";
const plain = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

/** Few digits, at most three before a suffix: 0.4, 12, 1.24k, 3.1M. */
function short(value, steps, base) {
  let step = 0;
  while (step + 1 < steps.length && Math.abs(value) >= 999.5 * (base / 1000) ** (step + 1) * 1000 ** step) step += 1;
  const scaled = value / base ** step;
  const digits = scaled === 0 || Math.abs(scaled) >= 99.95 ? 0 : Math.abs(scaled) >= 9.995 ? 1 : step ? 2 : 1;
  return scaled.toFixed(digits) + steps[step];
}

export function count(value) {
  return value == null ? NOTHING : plain.format(value);
}

export function rate(value) {
  return value == null ? NOTHING : short(value, ["", "k", "M", "G"], 1000);
}

export function bytes(value) {
  return value == null ? NOTHING : short(value, [" B", " KiB", " MiB", " GiB", " TiB"], 1024);
}

export function bits(value) {
  return value == null ? NOTHING : short(value, [" bit/s", " kbit/s", " Mbit/s", " Gbit/s"], 1000);
}

export function seconds(value) {
  if (value == null) return NOTHING;
  if (value === 0) return "0 ms";
  if (value < 0.0009995) return `${(value * 1e6).toFixed(0)} µs`;
  if (value < 0.9995) return `${(value * 1e3).toFixed(value < 0.009995 ? 2 : value < 0.09995 ? 1 : 0)} ms`;
  return `${value.toFixed(value < 9.995 ? 2 : 1)} s`;
}

export function percent(share) {
  if (share == null) return NOTHING;
  const value = share * 100;
  return `${value === 0 || value >= 9.95 ? value.toFixed(0) : value < 0.1 ? "<0.1" : value.toFixed(1)} %`;
}

/** A span of time in its largest two units. */
export function age(value) {
  if (value == null) return NOTHING;
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  let left = Math.max(0, Math.floor(value));
  const at = units.findIndex(([, size]) => left >= size);
  if (at < 0) return "0 s";
  const first = Math.floor(left / units[at][1]);
  left -= first * units[at][1];
  const text = `${first} ${units[at][0]}`;
  const next = units[at + 1];
  const second = next ? Math.floor(left / next[1]) : 0;
  return second && first < 10 ? `${text} ${second} ${next[0]}` : text;
}

export function clock(milliseconds) {
  return new Date(milliseconds).toLocaleTimeString("en-GB");
}

export function day(unix) {
  return new Date(unix * 1000).toISOString().slice(0, 10);
}
