// What needs attention, and how soon certificates expire: from answers to words.

import * as format from "/format.js";

const DAY = 86400;
const SOON_DAYS = 30;
const URGENT_DAYS = 7;
/** A turn of a worker's loop that takes longer is worth a word. */
export const LONG_TURN = 0.1;
const MOST = 8;

export const daysLeft = (certificate, status) => (certificate.expires - status.state.now) / DAY;
export const nameOf = (certificate) => certificate.names[0] ?? certificate.path;
export const expiryState = (days) => days < URGENT_DAYS ? "bad" : days < SOON_DAYS ? "warn" : "good";

export function daysText(days) {
  if (days < 0) return "expired";
  return days < 2 ? format.age(days * DAY) : `${Math.floor(days)} days`;
}

/** [state, words] of each, at most so many. `series`: the rates of History; `before`: the answer before this one. */
export function notices(status, before, sample, series) {
  return [
    ...ofProcesses(status, sample), ...ofCertificates(status), ...ofServers(series), ...ofLosses(status, before),
  ].slice(0, MOST);
}

function* ofProcesses({ state, figures: { gauges } }, sample) {
  const idle = state.workers && !state.workers.some((worker) => worker.state === "serving");
  if (idle) yield ["bad", "No worker is serving."];
  const last = state.reloads?.last;
  if (last && !last.accepted) {
    yield ["bad", `The last reload was rejected, and the configuration before it goes on: ${last.reason}`];
  }
  if (gauges.descriptors_limit && gauges.descriptors > gauges.descriptors_limit * 0.9) {
    const share = format.percent(gauges.descriptors / gauges.descriptors_limit);
    yield ["warn", `${share} of the file descriptors are in use.`];
  }
  if (sample?.longest > LONG_TURN) {
    yield ["warn", `A worker’s loop was held up for ${format.seconds(sample.longest)} within the last minute.`];
  }
}

function* ofCertificates(status) {
  for (const certificate of status.state.certificates ?? []) {
    const days = daysLeft(certificate, status);
    const when = days < 0 ? "has expired" : `expires in ${daysText(days)}`;
    if (days < URGENT_DAYS) yield ["bad", `The certificate for ${nameOf(certificate)} ${when}.`];
  }
}

function* ofServers(series) {
  for (const [name, known] of Object.entries(series)) {
    const [, kind, label] = name.match(/^(\w+)\/(.*)$/s);
    if (kind === "servers" && known.failures > 0) yield ["warn", `Server ${label} fails.`];
  }
}

function* ofLosses({ figures: { counters }, traces }, before) {
  if (!before) return;
  const grew = (name) => counters[name] > before.figures.counters[name];
  if (grew("log_lines_dropped")) yield ["warn", "Lines of the logs are dropped."];
  const lost = traces && before.traces && traces.failed + traces.dropped > before.traces.failed + before.traces.dropped;
  if (lost) yield ["warn", "The collector of traces is too slow, or gone: spans are lost."];
  else if (grew("spans_dropped")) yield ["warn", "Spans are dropped: the observer has no time for all of them."];
}
