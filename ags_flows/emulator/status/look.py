"""How the status page looks and how it keeps itself up to date: its style sheet and its script."""

SECONDS = 3
"""Seconds between two refreshes."""

STYLE = """
:root { color-scheme: light dark; --line: #d5d9de; --soft: #5c6772; --back: #f6f7f9; --card: #fff; --open: #f1f4f8;
  --good: #14713c; --wait: #8a5a00; --bad: #b3261e; --rest: #4b5563; --link: #1a56c4; }
@media (prefers-color-scheme: dark) { :root { --line: #333b45; --soft: #9aa5b1; --back: #14181d; --open: #232a33;
  --card: #1c2128; --good: #4cc38a; --wait: #e2a336; --bad: #ff8a80; --rest: #a3adb8; --link: #7fb0ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--back); font: 14px/1.45 system-ui, sans-serif; }
header { position: sticky; top: 0; z-index: 1; background: var(--back); border-bottom: 1px solid var(--line); }
header > div, main { max-width: 1240px; margin: 0 auto; padding: 10px 20px; }
header > div { display: flex; flex-wrap: wrap; align-items: center; gap: 8px 20px; }
main { padding-bottom: 60px; }
h1 { font-size: 18px; margin: 0; } h2 { font-size: 15px; margin: 22px 0 6px; }
h2 small { font-weight: 400; color: var(--soft); margin-left: 6px; }
nav { display: flex; gap: 14px; } nav a { color: var(--link); text-decoration: none; }
form { flex: 1 1 240px; max-width: 460px; margin-left: auto; }
input { width: 100%; padding: 6px 10px; font: inherit; color: inherit; background: var(--card);
  border: 1px solid var(--line); border-radius: 6px; }
input:focus-visible, summary:focus-visible, a:focus-visible { outline: 2px solid var(--link); outline-offset: -1px; }
p { margin: 4px 0; color: var(--soft); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px; overflow: hidden; }
.row { display: grid; gap: 0 14px; padding: 4px 12px; align-items: baseline; border-bottom: 1px solid var(--line); }
.row > * { min-width: 0; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.card > :last-child > .row, .card > .row:last-child { border-bottom: 0; }
.head { font-weight: 600; font-size: 12px; color: var(--soft); }
.instances .row { grid-template-columns: 14px 118px minmax(90px, 1fr) 150px minmax(120px, 1.6fr) 116px 76px 70px; }
.tools .row { grid-template-columns: minmax(110px, 1fr) 122px 130px 110px 118px minmax(120px, 1.6fr); }
.requests .row { grid-template-columns: 70px 60px minmax(0, 1fr) minmax(70px, 200px) 90px; }
details { scroll-margin-top: 140px; }
summary { cursor: pointer; list-style: none; }
summary::-webkit-details-marker { display: none; }
summary.row > :first-child::before { content: "\\25B8"; color: var(--soft); }
details[open] > summary.row > :first-child::before { content: "\\25BE"; }
details[open] > summary.row, details:target > summary.row { background: var(--open); }
summary.row:hover { background: var(--open); }
.fold > summary { font-weight: 600; font-size: 15px; margin: 22px 0 6px; }
.fold > summary::before { content: "\\25B8"; color: var(--soft); margin-right: 6px; }
.fold[open] > summary::before { content: "\\25BE"; }
.fold > summary small { font-weight: 400; color: var(--soft); margin-left: 6px; }
.more { padding: 8px 12px 12px 40px; border-bottom: 1px solid var(--line); background: var(--open); }
dl { display: grid; grid-template-columns: max-content minmax(0, 1fr); gap: 2px 16px; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code { font: 12.5px/1.5 ui-monospace, monospace; }
.num { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: var(--good); } .wait { color: var(--wait); } .bad { color: var(--bad); } .rest { color: var(--rest); }
.empty { padding: 12px; color: var(--soft); }
@media (max-width: 760px) {
  header > div, main { padding-left: 12px; padding-right: 12px; }
  nav { display: none; } form { max-width: none; margin: 0; }
  .instances .row { grid-template-columns: 14px minmax(0, 1fr) 92px 66px; }
  .tools .row { grid-template-columns: minmax(0, 1fr) 92px minmax(0, 1fr); }
  .requests .row { grid-template-columns: 70px minmax(0, 1fr) minmax(40px, 88px); }
  .large { display: none; }
  .more { padding-left: 14px; } dl { grid-template-columns: 1fr; } dd { margin-bottom: 6px; }
}
"""

SCRIPT = """
const search = document.querySelector("input");
const folds = "main details";
let waiting;
async function refresh() {
  clearTimeout(waiting);
  try {
    const asked = search.value;
    const response = await fetch("/?q=" + encodeURIComponent(asked), { cache: "no-store" });
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    if (search.value === asked && String(getSelection()) === "") {
      const open = new Map([...document.querySelectorAll(folds)].map((one) => [one.id, one.open]));
      for (const one of page.querySelectorAll(folds)) one.open = open.get(one.id) ?? one.open;
      const focused = document.activeElement?.closest("details")?.id;
      document.querySelector("main").replaceWith(page.querySelector("main"));
      document.querySelector("#counts").replaceWith(page.querySelector("#counts"));
      if (focused) document.getElementById(focused)?.querySelector("summary").focus({ preventScroll: true });
    }
    document.title = page.title;
  } catch { document.title = "AGS emulator (not reachable)"; }
  waiting = setTimeout(refresh, %d);
}
function show() {
  const one = location.hash && document.getElementById(location.hash.slice(1));
  if (!one) return;
  for (let up = one; up; up = up.parentElement?.closest("details")) up.open = true;
  one.scrollIntoView();
}
search.addEventListener("input", () => {
  history.replaceState(null, "", search.value ? "/?q=" + encodeURIComponent(search.value) : "/");
  clearTimeout(waiting);
  waiting = setTimeout(refresh, 150);
});
search.form.addEventListener("submit", (event) => { event.preventDefault(); refresh(); });
addEventListener("hashchange", show);
show();
waiting = setTimeout(refresh, %d);
"""
