// The status page: asks for /status.json every second and shows what came. Whatever comes from the server goes into the
// page as text, never as markup.

import { LONG_TURN, daysLeft, daysText, expiryState, nameOf, notices } from "/attention.js";
import { Chart, html, sparkline } from "/chart.js";
import * as format from "/format.js";
import { History } from "/history.js";
import { Table, badge, showItems, showPairs } from "/tables.js";

const EVERY_MS = 1000;
const HIDDEN_MS = 5000;
const TIMEOUT_MS = 5000;
const RETRY_MS = [1000, 10000];
/** What the bars of certificates are a part of. */
const BAR_DAYS = 90;
const NAMES_SHOWN = 3;

const $ = (id) => document.getElementById(id);
const history = new History();
let minutes = 5;
let failures = 0;
let lastStatus = null;

// ---- charts

const rate = (name) => (sample) => sample.rate[name] ?? 0;
const charts = [
  new Chart($("chart-requests"), {
    title: "Requests", note: "per second, by status", stacked: true, format: format.rate, least: 1,
    series: [
      { name: "ok", label: "2xx", value: rate("status_2xx") },
      { name: "info", label: "3xx", value: (s) => rate("status_3xx")(s) + rate("status_1xx")(s) },
      { name: "warn", label: "4xx", value: rate("status_4xx") },
      { name: "bad", label: "5xx", value: rate("status_5xx") },
      { name: "off", label: "none", value: rate("status_none"), rare: true },
    ],
  }),
  new Chart($("chart-latency"), {
    title: "Latency", note: "request to last byte, over 5 s", format: format.seconds, least: 0.001,
    series: [
      { name: "p99", label: "p99", value: (s) => s.latency.p99, peaks: true },
      { name: "p90", label: "p90", value: (s) => s.latency.p90 },
      { name: "p50", label: "p50", value: (s) => s.latency.p50 },
    ],
  }),
  new Chart($("chart-handshakes"), {
    title: "Handshakes", note: "per second", stacked: true, format: format.rate, least: 1,
    series: [
      { name: "full", label: "full", value: rate("full") },
      { name: "resumed", label: "resumed", value: rate("resumed") },
      { name: "early", label: "0-RTT", value: rate("early"), rare: true },
      { name: "bad", label: "failed", value: rate("failed") },
    ],
  }),
  new Chart($("chart-connections"), {
    title: "Connections", note: "by state", stacked: true, format: format.count, least: 4,
    series: [
      { name: "active", label: "active", value: (s) => s.states.active ?? 0 },
      { name: "idle", label: "idle", value: (s) => s.states.idle ?? 0 },
      { name: "new", label: "new", value: (s) => s.states.new ?? 0, rare: true },
      { name: "tunnel", label: "tunnels", value: (s) => s.states.hijacked ?? 0 },
    ],
  }),
  new Chart($("chart-traffic"), {
    title: "Content", note: "to and from clients, bit/s", format: format.bits, scale: format.rate, least: 1000,
    series: [
      { name: "out", label: "out", value: (s) => 8 * rate("bytes_out")(s) },
      { name: "in", label: "in", value: (s) => 8 * rate("bytes_in")(s) },
    ],
  }),
  new Chart($("chart-loop"), {
    title: "Workers’ time", note: "busy, of each second", format: format.percent, least: 0.01,
    series: [{ name: "busy", label: "busy", value: (s) => s.workers ? s.rate.busy / s.workers : null }],
  }),
  new Chart($("chart-lag"), {
    title: "Loop lag", note: "turns of the loop, over 5 s", format: format.seconds, least: 0.001,
    series: [
      { name: "p99", label: "p99", value: (s) => s.turn.p99, peaks: true },
      { name: "p50", label: "p50", value: (s) => s.turn.p50 },
    ],
  }),
  new Chart($("chart-memory"), {
    title: "Memory", note: "of the workers’ own", format: format.bytes, least: 1 << 20, binary: true, stacked: true,
    series: [{ name: "in", label: "all workers", value: (s) => s.memory }],
  }),
];

// ---- numbers

const tileNames = ["Requests / s", "Server errors", "Latency p50", "Latency p99", "Handshakes / s", "Connections",
  "Memory", "Next expiry"];
const tiles = tileNames.map((name) => {
  const value = html("b", {}, "–");
  const more = html("small", {}, "");
  const tile = html("div", { class: "tile" }, html("span", {}, name), value, more);
  $("tiles").append(tile);
  return { tile, value, more };
});

function showTiles(status, sample) {
  const share = (name) => sample?.rate.requests ? (sample.rate[name] ?? 0) / sample.rate.requests : null;
  const shaken = sample ? sample.rate.full + sample.rate.resumed + sample.rate.early : null;
  const { gauges, states } = status.figures;
  const next = status.state.certificates?.[0];
  const days = next && daysLeft(next, status);
  const errors = share("status_5xx");
  const values = [
    [format.rate(sample?.rate.requests), `${format.count(status.requests.running)} under way`],
    [format.percent(errors), `${format.percent(share("status_4xx"))} client errors`, errorState(errors)],
    [format.seconds(sample?.latency.p50), `first byte ${format.seconds(sample?.firstByte.p50)}`],
    [format.seconds(sample?.latency.p99), `first byte ${format.seconds(sample?.firstByte.p99)}`],
    [format.rate(shaken), shaken ? `${format.percent(1 - sample.rate.full / shaken)} resumed` : "none lately"],
    [format.count(gauges.connections_open),
      `${format.count(states?.active)} active, ${format.count(gauges.tunnels_open)} tunnels`],
    [format.bytes(sample?.memory), sample ? `${sample.workers} ${sample.workers === 1 ? "worker" : "workers"}` : ""],
    next ? [daysText(days), nameOf(next), expiryState(days)] : ["–", "no certificates"],
  ];
  tiles.forEach(({ tile, value, more }, i) => {
    const [text, small, state] = values[i];
    value.textContent = text;
    more.textContent = small;
    more.title = small;
    tile.dataset.state = state ?? "";
  });
}

// ---- tables

function seriesState(known, values) {
  if (known?.failures > 0) return badge("failing", "bad");
  if (known?.requests > 0 || values.running > 0 || values.open > values.idle) return badge("serving", "good");
  return badge(values.requests || values.connects ? "quiet" : "unused", "off");
}

const errorState = (share) => share > 0.05 ? "bad" : share > 0.01 ? "warn" : "";
const errorShare = (known) => known?.requests > 0 ? known.failed / known.requests : null;
const seriesColumns = [
  { label: "State", cell: ({ known, values }) => seriesState(known, values) },
  { label: "Req/s", number: true, cell: ({ known }) => format.rate(known?.requests) },
  { label: "Last minute", cell: ({ known }) => sparkline(known?.line ?? []) },
  {
    label: "Errors", hint: "Responses of 5xx", number: true, cell: ({ known }) => format.percent(errorShare(known)),
    state: ({ known }) => errorState(errorShare(known)),
  },
  { label: "p50", number: true, cell: ({ known }) => format.seconds(known?.p50) },
  { label: "p99", number: true, cell: ({ known }) => format.seconds(known?.p99) },
];
const total = (name) => ({ values }) => format.count(values[name]);
const upstreams = new Table($("upstreams"), [
  { label: "Upstream, server", cell: ({ label }) => label },
  ...seriesColumns,
  { label: "Under way", hint: "Requests", number: true,
    cell: ({ kind, values }) => format.count(kind ? null : values.running) },
  { label: "Open", hint: "Connections", number: true, cell: total("open") },
  { label: "Idle", hint: "Connections without a request", number: true, cell: total("idle") },
  { label: "Reused", hint: "Requests on a connection that had served before", number: true,
    cell: ({ values: { connects: made, reuses } }) => format.percent(made + reuses ? reuses / (made + reuses) : null) },
  { label: "Retries", number: true, cell: total("retries") },
  { label: "Failures", hint: "No connection, or no whole response", number: true, cell: total("failures"),
    state: ({ known }) => known?.failures > 0 ? "bad" : "" },
], "No upstream has been asked yet.");
const routes = new Table($("routes"), [
  { label: "Route", cell: ({ label }) => label },
  ...seriesColumns,
  { label: "Out", hint: "Content to clients", number: true,
    cell: ({ known }) => format.bits(known ? 8 * known.out : null) },
  { label: "Requests", hint: "Since the start", number: true, cell: total("requests") },
  { label: "5xx", hint: "Since the start", number: true, cell: ({ values }) => format.count(values.status?.["5xx"]) },
], "No request has come yet.");
const WORKER_STATES = { serving: "good", draining: "off", booting: "warn" };
const workers = new Table($("workers"), [
  { label: "Slot", cell: ({ slot }) => slot },
  { label: "Process", number: true, cell: ({ pid }) => pid },
  { label: "State", cell: ({ state }) => badge(state, WORKER_STATES[state] ?? "off") },
  { label: "Generation", number: true, cell: ({ generation }) => generation },
  { label: "Running for", number: true, cell: ({ age }) => format.age(age) },
  { label: "Restarts", hint: "Of this slot’s workers", number: true, cell: ({ restarts }) => format.count(restarts),
    state: ({ restarts }) => restarts ? "warn" : "" },
  { label: "Req/s", number: true, cell: ({ now }) => format.rate(now?.rate) },
  { label: "Connections", number: true, cell: ({ now }) => format.count(now?.connections) },
  { label: "Busy", number: true, cell: ({ now }) => format.percent(now?.share) },
  { label: "Longest turn", hint: "Of its loop, in the last minute", number: true,
    cell: ({ now }) => format.seconds(now?.longest),
    state: ({ now }) => now?.longest > LONG_TURN ? "warn" : "" },
  { label: "Memory", hint: "Of its own", number: true, cell: ({ now }) => format.bytes(now?.memory) },
], "The master has not told of its workers yet.");
const tls = new Table($("tls"), [
  { label: "Version", cell: ({ version }) => version },
  { label: "Cipher suite", cell: ({ suite }) => suite },
  { label: "Group", cell: ({ group }) => group },
  { label: "Full", number: true, cell: ({ full }) => format.count(full) },
  { label: "Resumed", number: true, cell: ({ resumed }) => format.count(resumed) },
], "No handshake has been completed yet.");

function seriesRows(status, kind) {
  return Object.entries(status.figures[kind] ?? {})
    .map(([label, values]) => ({ key: `${kind}/${label}`, label, values, known: history.series[`${kind}/${label}`] }));
}

const busiest = (a, b) => (b.known?.requests ?? 0) - (a.known?.requests ?? 0) || b.values.requests - a.values.requests
  || a.label.localeCompare(b.label);

function showUpstreams(status) {
  const servers = seriesRows(status, "servers");
  const rows = seriesRows(status, "upstreams").sort((a, b) => a.label.localeCompare(b.label)).flatMap((upstream) => {
    const own = servers.filter(({ label }) => label.startsWith(`${upstream.label}/`))
      .map((server) => ({ ...server, label: server.label.slice(upstream.label.length + 1), kind: "below" }));
    return [upstream, ...own.sort((a, b) => a.label.localeCompare(b.label))];
  });
  upstreams.show(rows);
  $("n-upstreams").textContent = moreText(status.more?.upstreams || status.more?.servers);
  routes.show(seriesRows(status, "routes").sort(busiest));
  $("n-routes").textContent = moreText(status.more?.routes);
}

const moreText = (number) => number ? `and ${format.count(number)} more, with fewer requests` : "";

function showWorkers(status) {
  const { workers: all = [], drains, now } = status.state;
  workers.show(all.map((worker) => ({
    ...worker, key: worker.pid, age: now - worker.started, now: history.workers[worker.pid],
  })));
  const serving = all.filter((worker) => worker.state === "serving").length;
  const draining = drains?.workers ? `, ${drains.workers} draining` : "";
  $("n-workers").textContent = all.length ? `${serving} of ${all.length} serving${draining}` : "";
}

function showTls(status) {
  const found = new Map();
  for (const { version, cipher_suite: suite, group, resumed, count } of status.figures.handshakes ?? []) {
    const key = `${version} ${suite} ${group}`;
    const row = found.get(key) ?? { key, version, suite, group, full: 0, resumed: 0 };
    row[resumed ? "resumed" : "full"] += count;
    found.set(key, row);
  }
  tls.show([...found.values()].sort((a, b) => b.full + b.resumed - a.full - a.resumed));
}

// ---- certificates

function makeCertificate() {
  return html("li", {}, html("span", { class: "names" }), html("span", { class: "left" }),
    html("span", { class: "bar", "aria-hidden": "true" }, html("i")), html("small"));
}

function showCertificates(status) {
  const all = status.state.certificates ?? [];
  showItems($("certificates"), all, makeCertificate, (item, certificate) => {
    const [names, left, bar, more] = item.children;
    const days = daysLeft(certificate, status);
    const state = expiryState(days);
    item.className = state;
    const others = certificate.names.length - NAMES_SHOWN;
    const shown = certificate.names.slice(0, NAMES_SHOWN).join(", ");
    names.textContent = shown ? shown + (others > 0 ? ` and ${others} more` : "") : certificate.path;
    names.title = certificate.names.join(", ");
    left.replaceChildren(badge(daysText(days), state));
    bar.firstChild.style.width = `${Math.max(0, Math.min(1, days / BAR_DAYS)) * 100}%`;
    const ocsp = certificate.ocsp && certificate.ocsp !== "none" ? `, OCSP ${certificate.ocsp}` : "";
    const delegated = certificate.delegated ? ", delegated" : "";
    more.textContent = `${certificate.kind}, until ${format.day(certificate.expires)}${ocsp}${delegated}`;
  });
  const more = status.more?.certificates;
  const first = `the first ${all.length} to expire, of ${all.length + more}`;
  $("n-certificates").textContent = more ? first : "by days left";
}

// ---- the configuration, and what needs attention

function reloadText(last, now) {
  const when = `${format.age(now - last.at)} ago`;
  if (!last.accepted) return html("span", {}, badge("rejected", "bad"), ` ${when}: `, html("q", {}, last.reason ?? ""));
  const changed = last.changed ? `: ${last.changed}` : "";
  return html("span", {}, badge("accepted", "good"), ` ${when}, in ${format.seconds(last.seconds)}${changed}`);
}

function ticketText(tickets, now) {
  if (!tickets) return "none";
  const sealing = tickets.keys.find((key) => key.state === "seals");
  const since = sealing ? `, the current one for ${format.age(now - sealing.since)}` : "";
  const turn = tickets.source === "directory" ? "of a directory" : `changed every ${format.age(tickets.rotate)}`;
  return `${tickets.keys.length}, ${turn}${since}`;
}

function fleetText({ name, tickets }, now) {
  if (!tickets) return name;
  if (tickets.connected) return `${name}, reached`;
  const since = tickets.lost === null ? "not yet" : `not for ${format.age(now - tickets.lost)}`;
  return html("span", {}, `${name}, `, badge("not reached", "bad"), ` ${since}: `, html("q", {}, tickets.error ?? ""));
}

const spansText = ({ exported, failed, dropped }) =>
  `${format.count(exported)} exported, ${format.count(failed)} refused, ${format.count(dropped)} dropped`;

function showConfiguration({ state, traces }) {
  const { reloads, tickets } = state;
  const listeners = (state.listeners ?? []).map(({ bind, kind }) => bind + (kind === "tls" ? "" : ` (${kind})`));
  showPairs($("configuration"), [
    ["File", state.file ?? "–"],
    ["Generation", format.count(state.generation)],
    ["Last reload", reloads?.last ? reloadText(reloads.last, state.now) : "none"],
    ["Reloads", `${format.count(reloads?.accepted)} accepted, ${format.count(reloads?.rejected)} rejected`],
    ["Listeners", listeners.join(", ") || "–"],
    ["Ticket keys", ticketText(tickets, state.now)],
    ...(state.fleet ? [["Fleet", fleetText(state.fleet, state.now)]] : []),
    ...(traces ? [["Spans", spansText(traces)]] : []),
  ]);
}

let noticed = "";
function showNotices(found) {
  const text = JSON.stringify(found);
  if (text === noticed) return; // it is read out when it changes
  noticed = text;
  const lines = found.map(([state, words]) => html("p", { class: `notice ${state}` }, badge(words, state)));
  $("notices").replaceChildren(...lines);
}

// ---- one answer, and the next

function show(status) {
  const sample = history.take(status);
  const { state } = status;
  $("host").textContent = location.hostname;
  const up = format.age(state.now - state.started);
  $("facts").textContent = state.version
    ? `${state.version}, process ${state.pid}, up ${up}, generation ${state.generation}` : "";
  showTiles(status, sample);
  for (const chart of charts) chart.show(history.samples, minutes, status.figures.at * 1000);
  showUpstreams(status);
  showWorkers(status);
  showCertificates(status);
  showConfiguration(status);
  showTls(status);
  showNotices(notices(status, lastStatus, sample, history.series));
  lastStatus = status;
  document.title = `${format.rate(sample?.rate.requests)} req/s – edge ${location.hostname}`;
}

function link(state, text) {
  const place = $("link");
  place.dataset.link = state;
  if (place.textContent !== text) place.textContent = text;
  document.body.dataset.link = state;
}

async function ask() {
  const response = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) });
  if (!response.ok) throw new Error(`it answers ${response.status}`);
  return response.json();
}

/** What fetch says, in words. */
const WHY = { TimeoutError: "it does not answer in time", TypeError: "it cannot be reached" };

async function turn() {
  let wait = document.hidden ? HIDDEN_MS : EVERY_MS;
  let status;
  try {
    status = await ask();
  } catch (error) {
    wait = Math.min(RETRY_MS[0] * 2 ** failures, RETRY_MS[1]);
    failures += 1;
    const why = WHY[error.name] ?? error.message;
    link("lost", `no answer: ${why}; again in ${wait / 1000} s`);
    document.title = `(no answer) edge ${location.hostname}`;
  }
  setTimeout(turn, wait);
  if (!status) return;
  failures = 0;
  link("live", "live");
  show(status);
}

for (const button of document.querySelectorAll("[data-minutes]")) {
  button.addEventListener("click", () => {
    minutes = Number(button.dataset.minutes);
    for (const other of document.querySelectorAll("[data-minutes]")) {
      other.setAttribute("aria-pressed", String(other === button));
    }
    if (lastStatus) for (const chart of charts) chart.show(history.samples, minutes, lastStatus.figures.at * 1000);
  });
}
turn();
