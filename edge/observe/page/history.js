// From answers of /status.json, which count since the start, to what went on between them.

/** Percentiles are of this time: those of one second would jump about. */
const WINDOW_MS = 5000;
export const KEPT_MS = 10 * 60 * 1000;
/** Without an answer for so long, lines are broken. */
const GAP_MS = 5000;

export const PERCENTILES = { p50: 0.5, p90: 0.9, p99: 0.99 };

/** What has come since `before`, of counts [first, [count, ...]]; null: the counts began anew. */
function added(now, before) {
  const [first, counts] = now;
  const [firstBefore, countsBefore] = before ?? [0, []];
  const more = counts.map((count, i) => count - (countsBefore[first + i - firstBefore] ?? 0));
  return more.some((count) => count < 0) ? null : [first, more];
}

/** Quantiles in seconds of counts in buckets, interpolated within one; null where there are none. */
export function quantiles(counts, bounds, wanted = PERCENTILES) {
  const found = Object.fromEntries(Object.keys(wanted).map((name) => [name, null]));
  if (!counts) return found;
  const [first, each] = counts;
  const total = each.reduce((sum, count) => sum + count, 0);
  if (total === 0) return found;
  for (const [name, share] of Object.entries(wanted)) {
    let left = share * total;
    for (let i = 0; i < each.length; i += 1) {
      if (each[i] > 0 && left <= each[i]) {
        const bucket = first + i;
        const low = bucket > 0 ? bounds[Math.min(bucket - 1, bounds.length - 1)] : 0;
        const high = bounds[Math.min(bucket, bounds.length - 1)];
        found[name] = low + (high - low) * (left / each[i]);
        break;
      }
      left -= each[i];
    }
  }
  return found;
}

const sum = (values) => Object.values(values ?? {}).reduce((total, value) => total + value, 0);

/** The counters that rates are made of, flat: name -> number. */
function counters(status) {
  const { figures, requests } = status;
  const done = figures.handshakes ?? [];
  const resumed = done.filter((h) => h.resumed).reduce((total, h) => total + h.count, 0);
  const early = figures.counters.early_accepted ?? 0;
  return {
    requests: sum(requests.status),
    ...Object.fromEntries(Object.entries(requests.status).map(([name, value]) => [`status_${name}`, value])),
    bytes_in: requests.bytes_in,
    bytes_out: requests.bytes_out,
    full: done.filter((h) => !h.resumed).reduce((total, h) => total + h.count, 0),
    resumed: Math.max(0, resumed - early),
    early,
    failed: figures.counters.handshake_failures ?? 0,
    busy: figures.loop?.busy ?? 0,
  };
}

/** Those of each route, upstream and server: "upstreams/app" -> {requests, failed (5xx), failures, out}. */
function seriesOf(status) {
  const found = {};
  for (const kind of ["routes", "upstreams", "servers"]) {
    for (const [label, values] of Object.entries(status.figures[kind] ?? {})) {
      found[`${kind}/${label}`] = {
        requests: values.requests,
        failed: values.status?.["5xx"] ?? 0,
        failures: values.failures ?? 0,
        out: values.bytes_out ?? 0,
        total: status.histograms[kind]?.[label],
      };
    }
  }
  return found;
}

const rates = (now, before, seconds) => Object.fromEntries(
  Object.entries(now).map(([name, value]) => [name, Math.max(0, value - (before[name] ?? 0)) / seconds]));

export class History {
  constructor() {
    /** {t (ms), gap, rate {...}, latency {p50 ...}, first_byte, states, ...}, the oldest first. */
    this.samples = [];
    this.raw = [];
    /** Rates of routes, upstreams and servers over the last seconds. */
    this.series = {};
    this.workers = {};
    this.life = null;
  }

  /** Takes an answer -> the newest sample, or null: there is nothing to compare it with yet. */
  take(status) {
    const t = status.figures.at * 1000;
    const life = `${status.state.pid}/${status.state.started}`;
    const last = this.raw.at(-1);
    if (last && t <= last.t) return this.samples.at(-1) ?? null;
    if (life !== this.life) this.raw = [];
    this.life = life;
    const raw = {
      t,
      counters: counters(status),
      series: seriesOf(status),
      total: status.histograms.total,
      firstByte: status.histograms.first_byte,
      turn: status.histograms.turn,
      processes: status.processes ?? {},
    };
    const before = this.raw.at(-1);
    this.raw.push(raw);
    while (this.raw.length > 2 && this.raw[1].t <= t - WINDOW_MS) this.raw.shift();
    if (!before) return null;
    const begin = this.raw[0];
    const bounds = status.histograms.bounds;
    const running = Object.values(status.processes ?? {});
    const sample = {
      t,
      gap: this.samples.length > 0 && t - this.samples.at(-1).t > GAP_MS,
      rate: rates(raw.counters, before.counters, (t - before.t) / 1000),
      latency: quantiles(added(raw.total, begin.total), bounds),
      firstByte: quantiles(added(raw.firstByte, begin.firstByte), bounds),
      turn: quantiles(added(raw.turn, begin.turn), bounds),
      states: status.figures.states ?? {},
      open: status.figures.gauges.connections_open ?? 0,
      tunnels: status.figures.gauges.tunnels_open ?? 0,
      memory: running.reduce((total, process) => total + (process.memory ?? 0), 0),
      workers: running.length,
      longest: status.figures.loop?.longest ?? null,
    };
    this.samples.push(sample);
    while (this.samples.length && this.samples[0].t < t - KEPT_MS) this.samples.shift();
    this.#seriesSince(begin, raw, bounds);
    this.#workersSince(begin, raw);
    return sample;
  }

  #seriesSince(begin, raw, bounds) {
    const seconds = (raw.t - begin.t) / 1000;
    for (const [name, now] of Object.entries(raw.series)) {
      const before = begin.series[name] ?? { requests: 0, failed: 0, failures: 0, out: 0, total: [0, []] };
      const { total, ...plain } = now;
      const { total: totalBefore, ...plainBefore } = before;
      const known = this.series[name]?.line ?? [];
      const rate = rates(plain, plainBefore, seconds);
      this.series[name] = {
        ...rate,
        ...quantiles(total && added(total, totalBefore), bounds),
        line: [...known, rate.requests].slice(-60),
      };
    }
    for (const name of Object.keys(this.series)) if (!(name in raw.series)) delete this.series[name];
  }

  #workersSince(begin, raw) {
    const seconds = (raw.t - begin.t) / 1000;
    this.workers = Object.fromEntries(Object.entries(raw.processes).map(([pid, now]) => {
      const before = begin.processes[pid];
      const known = before && now.requests >= before.requests;
      return [pid, {
        ...now,
        rate: known ? (now.requests - before.requests) / seconds : null,
        share: known && now.busy != null ? Math.min(1, Math.max(0, now.busy - before.busy) / seconds) : null,
      }];
    }));
  }
}
