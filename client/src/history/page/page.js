
"use strict";
(() => {
  const page = JSON.parse(document.getElementById("data").textContent);
  const $ = (id) => document.getElementById(id);

  // Everything is put in as text: logs and commands are foreign.
  function make(tag, classes, text) {
    const element = document.createElement(tag);
    if (classes) element.className = classes;
    if (text !== undefined) element.textContent = text;
    return element;
  }

  function time(ms) {
    if (ms < 999.5) return `${Math.round(ms)} ms`;
    if (ms < 59950) return `${(ms / 1000).toFixed(ms < 9995 ? 2 : 1)} s`;
    const seconds = Math.round(ms / 1000);
    if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
    return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  }

  function bytes(count) {
    const units = ["B", "kB", "MB", "GB", "TB"];
    let unit = 0;
    while (count >= 1000 && unit < units.length - 1) { count /= 1000; unit += 1; }
    return `${unit ? count.toFixed(1) : count} ${units[unit]}`;
  }

  const LOOKS = {
    done: "Ran", emulated: "Ran emulated", cached: "Cached", queued: "Waited for its turn",
    running: "Still running", failed: "Failed", canceled: "Canceled", waiting: "Never started",
  };
  const look = (step) => (step.state === "done" && step.emulated ? "emulated" : step.state);
  const stateText = (step) => {
    const text = { done: "done", cached: "cached", running: "running", failed: "failed", canceled: "canceled", waiting: "not started" }[step.state];
    return step.emulated && step.state !== "waiting" ? `${text}, emulated` : text;
  };
  const start = (step) => step.runs[0][0];
  const took = (step) => {
    // Runs that overlap count once.
    let total = 0, until = -Infinity;
    for (const [from, to] of step.runs) {
      const begin = Math.max(from, until);
      if (to > begin) { total += to - begin; until = to; }
    }
    return total;
  };
  const waited = (step) => (step.queued === undefined ? 0 : start(step) - step.queued);
  const laneTitle = (platform) => platform || "All platforms";
  const lastLines = (text, count) => text.trimEnd().split("\n").slice(-count).join("\n");

  function facts(list, entries) {
    list.replaceChildren(...entries.filter(([, value]) => value !== "" && value !== undefined).map(([term, value]) => {
      const pair = make("div");
      pair.append(make("dt", "", term), make("dd", "", String(value)));
      return pair;
    }));
  }

  // The head of the page.
  document.title = `${page.name} – build ${page.status}`;
  $("name").textContent = page.name;
  $("status").textContent = page.status;
  $("status").classList.add(page.status);
  const ran = page.steps.filter((step) => step.runs.length);
  const emulatedTime = ran.filter((step) => step.emulated).reduce((sum, step) => sum + took(step), 0);
  facts($("facts"), [
    ["Build", page.id],
    ["Builder", page.builder],
    ["Started", page.started ? new Date(page.started).toLocaleString() : ""],
    ["Duration", time(page.duration)],
    ["Steps", page.steps_total ? `${page.steps_total}, ${page.steps_cached} cached` : `${page.steps.length}`],
    ["Runs on", page.native],
    ["In emulation", emulatedTime ? time(emulatedTime) : ""],
  ]);
  facts($("settings"), Object.entries(page.attributes));
  $("settings-panel").hidden = !Object.keys(page.attributes).length;

  const failedStep = page.steps.findIndex((step) => step.state === "failed");
  if (page.error) {
    $("problem").hidden = false;
    $("problem-text").textContent = page.error.message || "The build failed.";
    $("problem-source").textContent = page.error.source;
    $("problem-source").hidden = !page.error.source;
    if (failedStep >= 0) {
      const link = $("problem-step");
      link.hidden = false;
      link.textContent = `Show the step that failed: ${page.steps[failedStep].name}`;
      link.addEventListener("click", () => choose(failedStep, true));
    }
  }

  // The legend has what is there.
  const there = new Set(ran.map(look));
  if (ran.some((step) => step.queued !== undefined)) there.add("queued");
  for (const [name, text] of Object.entries(LOOKS)) {
    if (!there.has(name)) continue;
    const item = make("li");
    item.append(make("span", `swatch ${name}`), make("span", "", text));
    $("legend").append(item);
  }

  // The timeline. Every lane has as many rows as steps run in it at the same time.
  const ROW = 26;
  const span = Math.max(page.duration, 1);
  const percent = (ms) => `${(Math.max(0, Math.min(ms, span)) / span) * 100}%`;
  const bars = new Map();
  const order = [];
  const tracks = [];

  for (const lane of page.lanes) {
    const steps = page.steps.map((step, index) => ({ step, index }))
      .filter(({ step }) => step.platform === lane.platform && step.runs.length);
    const never = page.steps.filter((step) => step.platform === lane.platform && !step.runs.length).length;
    const row = make("div", "lane");
    row.setAttribute("role", "group");
    row.dataset.platform = lane.platform;
    row.setAttribute("aria-label", `${laneTitle(lane.platform)}, ${steps.length} steps`);
    const name = make("div", "lane-name", laneTitle(lane.platform));
    const notes = [`${steps.length} ${steps.length === 1 ? "step" : "steps"}`];
    if (lane.emulated) notes.push("emulated");
    else if (lane.platform && lane.platform === page.native) notes.push("native");
    if (never) notes.push(`${never} not started`);
    for (const note of notes) name.append(make("small", "", note));
    const track = make("div", "track");
    tracks.push(track);
    // A bar takes room even where it took no time, or it would hide its neighbour.
    const least = span / 160;
    const free = [];
    const members = [];
    for (const { step, index } of steps) {
      const from = step.queued ?? start(step);
      const to = Math.max(step.runs[step.runs.length - 1][1], start(step) + least);
      let at = free.findIndex((until) => until <= from);
      if (at < 0) { at = free.length; free.push(0); }
      free[at] = to;
      const top = `${at * ROW}px`;
      if (step.queued !== undefined) {
        const wait = make("span", "wait");
        wait.style.left = percent(step.queued);
        wait.style.width = `calc(${percent(start(step))} - ${percent(step.queued)})`;
        wait.style.top = `${at * ROW + ROW / 2 - 3}px`;
        track.append(wait);
      }
      step.runs.forEach(([begin, end], number) => {
        const bar = make("button", `bar ${look(step)}`);
        bar.type = "button";
        bar.dataset.step = index;
        bar.style.left = percent(begin);
        bar.style.width = `calc(${percent(end)} - ${percent(begin)})`;
        bar.style.top = top;
        bar.tabIndex = -1;
        bar.textContent = `${step.state === "failed" ? "✕ " : ""}${step.command}`;
        track.append(bar);
        if (number) { bar.setAttribute("aria-hidden", "true"); return; }
        const parts = [step.command, laneTitle(step.platform), stateText(step), `took ${time(took(step))}`];
        if (waited(step)) parts.push(`waited ${time(waited(step))}`);
        bar.setAttribute("aria-label", parts.join(", "));
        bars.set(index, bar);
        members.push(index);
      });
    }
    track.style.minHeight = `${Math.max(free.length, 1) * ROW}px`;
    order.push(members);
    row.append(name, track);
    $("lanes").append(row);
  }

  // One bar at a time can be reached by the tab key, the arrow keys go on from there.
  let current = order.flat()[0];
  function reach(index, focus) {
    if (!bars.has(index)) return;
    if (bars.has(current)) bars.get(current).tabIndex = -1;
    current = index;
    const bar = bars.get(index);
    bar.tabIndex = 0;
    if (focus) {
      bar.focus({ preventScroll: true });
      bar.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }
  reach(current, false);

  $("lanes").addEventListener("keydown", (event) => {
    const lane = order.findIndex((members) => members.includes(current));
    if (lane < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const members = order[lane];
    const at = members.indexOf(current);
    const other = (step) => {
      for (let next = lane + step; next >= 0 && next < order.length; next += step) {
        if (!order[next].length) continue;
        const here = start(page.steps[current]);
        return order[next].reduce((best, index) =>
          Math.abs(start(page.steps[index]) - here) < Math.abs(start(page.steps[best]) - here) ? index : best);
      }
    };
    const next = {
      ArrowRight: () => members[at + 1], ArrowLeft: () => members[at - 1],
      ArrowDown: () => other(1), ArrowUp: () => other(-1),
      Home: () => members[0], End: () => members[members.length - 1],
    }[event.key];
    if (!next) return;
    event.preventDefault();
    const index = next();
    if (index !== undefined) reach(index, true);
  });

  // What is under the pointer or has the focus.
  const tip = $("tip");
  function showTip(index) {
    const step = page.steps[index];
    const bar = bars.get(index);
    const times = [`${time(start(step))} into the build`, `took ${time(took(step))}`];
    if (waited(step)) times.push(`waited ${time(waited(step))}`);
    tip.replaceChildren(
      make("div", "command mono", step.command),
      make("div", "times", [laneTitle(step.platform), step.stage, stateText(step)].filter(Boolean).join(" · ")),
      make("div", "times", times.join(" · ")),
    );
    if (step.error) tip.append(make("div", "error", step.error.slice(0, 400)));
    for (const warning of step.warnings ?? []) tip.append(make("div", "times", `Warning: ${warning}`));
    if (step.log) tip.append(make("pre", "", lastLines(step.log, 7)));
    tip.hidden = false;
    bar.setAttribute("aria-describedby", "tip");
    const box = bar.getBoundingClientRect();
    const frame = $("scroll").getBoundingClientRect();
    const left = Math.max(box.left, frame.left);
    const width = tip.offsetWidth, height = tip.offsetHeight;
    tip.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
    tip.style.top = `${box.bottom + height + 12 < innerHeight ? box.bottom + 8 : Math.max(8, box.top - height - 8)}px`;
  }
  function hideTip() {
    tip.hidden = true;
    for (const bar of document.querySelectorAll("[aria-describedby=tip]")) bar.removeAttribute("aria-describedby");
  }
  const barOf = (event) => event.target.closest?.(".bar");
  $("lanes").addEventListener("pointerover", (event) => { const bar = barOf(event); if (bar) { hideTip(); showTip(Number(bar.dataset.step)); } });
  $("lanes").addEventListener("pointerout", (event) => { if (barOf(event)) hideTip(); });
  $("lanes").addEventListener("focusin", (event) => { const bar = barOf(event); if (bar) { hideTip(); showTip(Number(bar.dataset.step)); } });
  $("lanes").addEventListener("focusout", hideTip);
  $("lanes").addEventListener("click", (event) => {
    const bar = barOf(event);
    if (bar) choose(Number(bar.dataset.step), true);
  });
  $("scroll").addEventListener("scroll", hideTip);

  // One step with everything.
  let chosen;
  function choose(index, move) {
    const step = page.steps[index];
    if (!step) return;
    for (const element of document.querySelectorAll(".chosen")) element.classList.remove("chosen");
    chosen = index;
    bars.get(index)?.classList.add("chosen");
    rows[index]?.classList.add("chosen");
    reach(index, false);
    hideTip();
    $("details-title").textContent = step.command;
    facts($("details-facts"), [
      ["State", stateText(step)],
      ["Platform", laneTitle(step.platform)],
      ["Stage", step.stage],
      ["Started", step.runs.length ? `${time(start(step))} into the build` : ""],
      ["Took", step.runs.length ? time(took(step)) : ""],
      ["Waited", waited(step) ? time(waited(step)) : ""],
    ]);
    const body = $("details-body");
    body.replaceChildren();
    const add = (title, element) => body.append(make("h3", "", title), element);
    if (step.error) add("Error", make("pre", "state-failed", step.error));
    if (step.warnings?.length) {
      const list = make("ul");
      list.append(...step.warnings.map((warning) => make("li", "", warning)));
      add("Warnings", list);
    }
    if (step.log) {
      if (step.log_missing) body.append(make("p", "notice", `${bytes(step.log_missing)} in the middle of this log are left out: “trimaran history logs ${page.id}” prints all of it.`));
      const log = make("pre", "log", step.log);
      log.tabIndex = 0;
      add("Log", log);
    }
    if (step.parts?.length) {
      const list = make("ul");
      list.append(...step.parts.map((part) => make("li", "", [part.name, part.bytes ? bytes(part.bytes) : "", part.seconds ? time(part.seconds * 1000) : ""].filter(Boolean).join(" · "))));
      add("Parts", list);
    }
    if (step.inputs.length) {
      const list = make("ul");
      list.append(...step.inputs.map((input) => {
        const item = make("li");
        const link = make("button", "link mono", page.steps[input].name);
        link.type = "button";
        link.addEventListener("click", () => choose(input, true));
        item.append(link);
        return item;
      }));
      add("Made from", list);
    }
    $("details").hidden = false;
    if (location.hash !== `#step=${index + 1}`) history.replaceState(null, "", `#step=${index + 1}`);
    if (move) {
      $("details").focus({ preventScroll: true });
      $("details").scrollIntoView({ block: "nearest" });
    }
  }
  function close() {
    if ($("details").hidden) return;
    $("details").hidden = true;
    for (const element of document.querySelectorAll(".chosen")) element.classList.remove("chosen");
    history.replaceState(null, "", location.pathname + location.search);
    if (bars.has(chosen)) reach(chosen, true);
    chosen = undefined;
  }
  $("details-close").addEventListener("click", close);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    if (!tip.hidden) hideTip();
    close();
  });

  // The same as a table.
  const rows = page.steps.map((step, index) => {
    const row = make("tr");
    const command = make("td", "step");
    const link = make("button", "link", step.name);
    link.type = "button";
    link.addEventListener("click", () => choose(index, true));
    command.append(link);
    const state = make("td", `state state-${step.state}`);
    state.append(make("span", `dot ${look(step)}`), stateText(step));
    row.append(
      make("td", "number", index + 1), command, make("td", "", step.platform), state,
      make("td", "number", step.runs.length ? time(start(step)) : ""),
      make("td", "number", waited(step) ? time(waited(step)) : ""),
      make("td", "number", step.runs.length ? time(took(step)) : ""),
    );
    return row;
  });
  document.querySelector("#steps tbody").append(...rows);

  // Finding.
  const texts = page.steps.map((step) => `${step.name}\n${step.platform}\n${stateText(step)}\n${step.error ?? ""}\n${step.log ?? ""}`.toLowerCase());
  $("search").addEventListener("input", () => {
    const wanted = $("search").value.trim().toLowerCase();
    let count = 0;
    page.steps.forEach((_, index) => {
      const hit = texts[index].includes(wanted);
      if (hit) count += 1;
      rows[index].classList.toggle("dim", !hit);
      for (const bar of document.querySelectorAll(`.bar[data-step="${index}"]`)) bar.classList.toggle("dim", !hit);
    });
    $("matches").textContent = wanted ? `${count} ${count === 1 ? "step" : "steps"}` : "";
  });

  // Zoom and the axis, which follows it.
  const tickText = (at) => (at ? time(at).replace(/(\.\d*?)0+ s$/, "$1 s").replace(". ", " ").replace(/ 0 (s|min)$/, "") : "0");
  let zoom = 1;
  const STEPS = [1, 2, 5];
  function draw() {
    $("canvas").style.width = `${zoom * 100}%`;
    const width = tracks[0]?.clientWidth || 800;
    const least = (span / width) * 80;
    let unit = Math.pow(10, Math.floor(Math.log10(Math.max(least, 1))));
    let gap = STEPS.map((step) => step * unit).find((step) => step >= least) ?? unit * 10;
    if (gap >= 20000) gap = [30000, 60000, 120000, 300000, 600000, 1800000, 3600000].find((step) => step >= least) ?? gap;
    const axis = [], lines = tracks.map(() => []);
    for (let at = 0; at <= span && axis.length < 2000; at += gap) {
      const tick = make("span", "tick", tickText(at));
      tick.style.left = percent(at);
      if (at === 0 || (span - at) / span * width > 72) axis.push(tick);
      for (const line of lines) {
        const mark = make("span", "grid");
        mark.style.left = percent(at);
        line.push(mark);
      }
    }
    $("axis").replaceChildren(...axis);
    tracks.forEach((track, index) => {
      for (const old of track.querySelectorAll(".grid")) old.remove();
      track.prepend(...lines[index]);
    });
    for (const bar of document.querySelectorAll(".bar")) bar.classList.toggle("narrow", bar.clientWidth < 26);
  }
  function zoomTo(factor, anchor) {
    const scroll = $("scroll");
    const offset = anchor ?? scroll.clientWidth / 2;
    const lane = document.querySelector(".lane-name")?.offsetWidth ?? 0;
    const place = (scroll.scrollLeft + offset - lane) / Math.max(1, $("canvas").clientWidth - lane);
    zoom = Math.max(1, Math.min(factor, 256));
    draw();
    scroll.scrollLeft = place * ($("canvas").clientWidth - lane) + lane - offset;
  }
  $("zoom-in").addEventListener("click", () => zoomTo(zoom * 2));
  $("zoom-out").addEventListener("click", () => zoomTo(zoom / 2));
  $("zoom-fit").addEventListener("click", () => zoomTo(1));
  $("scroll").addEventListener("wheel", (event) => {
    if (!event.ctrlKey) return;
    event.preventDefault();
    zoomTo(zoom * Math.exp(-event.deltaY / 300), event.clientX - $("scroll").getBoundingClientRect().left);
  }, { passive: false });
  addEventListener("resize", draw);
  draw();

  // A link may name a step.
  function follow() {
    const found = /^#step=(\d+)$/.exec(location.hash);
    if (found) choose(Number(found[1]) - 1, false);
  }
  addEventListener("hashchange", follow);
  follow();
})();
