// The playground: choose a logged request, see its lists, reorder one. What comes from logs is only ever set as text.
// Ids are texts too: numbers are exact to 2^53 here, and ids go further.
"use strict";

const NAMES = { champion: "Champion", challenger: "Challenger", shown: "What was shown", retriever: "Retriever" };
const at = (id) => document.getElementById(id);
let asked = null; // the request on the page, as /api/requests/... describes it
let byId = new Map(); // its candidates
let items = []; // the list that is being changed
let opinion = null; // what the reward model expects of it
let turn = 0; // of the newest question; answers to older ones are passed over

function make(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value === true) made.setAttribute(name, "");
    else if (value !== false && value !== null) made.setAttribute(name, value);
  }
  made.append(...children); // strings become text, whatever they hold
  return made;
}

async function ask(address, body) {
  const options = body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) };
  const answer = await fetch(address, options);
  const document = await answer.json();
  if (!answer.ok) throw new Error(document.error);
  return document;
}

function guarded(work) {
  return async (...given) => {
    try {
      at("problem").textContent = "";
      await work(...given);
    } catch (error) {
      at("problem").textContent = error.message;
    }
  };
}

const percent = (share) => `${(100 * share).toFixed(1)}%`;
const signed = (value, digits = 3) => {
  const text = Math.abs(value).toFixed(digits);
  return (Number(text) === 0 ? "±" : value < 0 ? "−" : "+") + text;
};
const title = (item) => byId.get(item).title;
const topics = (item) => byId.get(item).topics.map((topic) => `topic ${topic}`).join(", ") || "no topic";
const figures = (p) =>
  `click ${percent(p.click)}, like ${percent(p.like)}, ${p.watch_minutes.toFixed(2)} min → ${p.worth.toFixed(3)}`;
const champions = () => asked.lists.find((list) => list.name === "champion");

// ------------------------------------------------------------------------------------------------ users and requests

async function start() {
  const about = await ask("/api/state");
  if (about.state === "loading") return void setTimeout(guarded(start), 700);
  if (about.state !== "ready") {
    at("about").textContent = "The playground cannot be used yet.";
    throw new Error(about.reason);
  }
  const challenger = about.challenger ? `challenger version ${about.challenger}` : "no challenger beside it";
  at("about").textContent =
    `Champion version ${about.champion}, ${challenger}, reward model version ${about.reward_model}. ` +
    `${about.requests.toLocaleString("en")} requests of ${about.date}, with features as they are online now.`;
  at("choose").hidden = false;
  const users = await suggest("");
  if (users.length) await choose(users[0].user_id);
}

async function suggest(typed) {
  const users = await ask(`/api/users?q=${encodeURIComponent(typed)}`);
  at("suggested").replaceChildren(
    ...users.map((user) =>
      make("button", { type: "button", onclick: guarded(() => choose(user.user_id)) }, `${user.user_id} (${user.requests})`)
    )
  );
  if (typed && !users.length) at("suggested").append(`No user whose id begins with ${typed} on this day.`);
  return users;
}

async function choose(user) {
  at("user").value = user;
  const requests = await ask(`/api/users/${user}/requests`);
  at("request").replaceChildren(
    ...requests.map((one) =>
      make("option", { value: one.request_id }, `${one.event_time}, ${one.candidates} candidates, ${one.clicks} clicks`)
    )
  );
  if (requests.length) await open();
}

async function open() {
  const mine = ++turn;
  const found = await ask(`/api/requests/${encodeURIComponent(at("request").value)}`);
  if (mine !== turn) return;
  asked = found;
  byId = new Map(asked.candidates.map((candidate) => [candidate.item_id, candidate]));
  at("bench").hidden = false;
  at("note").textContent = asked.known_user ? "" : "The online store knows nothing of this user: lists rest on the items alone.";
  at("begin").replaceChildren(
    ...asked.lists.map((list) =>
      make("button", { type: "button", onclick: guarded(() => begin(list)) }, `Begin with: ${NAMES[list.name]}`)
    )
  );
  compare();
  begin(champions());
}

// ---------------------------------------------------------------------------------------------------------- your list

function begin(list) {
  turn++;
  items = list.opinion.positions.map((position) => position.item_id);
  opinion = list.opinion;
  draw();
  at("live").textContent = `Your list is now: ${NAMES[list.name]}. ${sum()}`;
}

async function change(next, said, focus) {
  items = next;
  draw();
  focus?.();
  const mine = ++turn;
  const answer = await ask("/api/opinion", { request_id: asked.request_id, items });
  if (mine !== turn) return;
  opinion = answer;
  draw();
  focus?.();
  at("live").textContent = `${said} ${sum()}`;
}

function move(from, to, button) {
  const next = [...items];
  const [item] = next.splice(from, 1);
  next.splice(to, 0, item);
  return change(next, `${title(item)} is at position ${to + 1}.`, button && (() => {
    const row = at("list").children[to];
    const same = row.querySelector(`[data-do="${button}"]`);
    (same.disabled ? row.querySelector("button:enabled") : same)?.focus();
  }));
}

function swap(place, item, select) {
  const before = items[place];
  const next = [...items];
  if (next.includes(item)) next[next.indexOf(item)] = before;
  next[place] = item;
  return change(next, `${title(item)} replaces ${title(before)} at position ${place + 1}.`,
    select && (() => at("list").children[place].querySelector("select").focus()));
}

function sum() {
  const theirs = champions().opinion.reward;
  const gain = opinion.reward - theirs;
  const share = theirs ? ` (${signed((100 * gain) / Math.abs(theirs), 1)}%)` : "";
  return `Predicted reward ${opinion.reward.toFixed(3)}, ${signed(gain)}${share} against the champion's ${theirs.toFixed(3)}.`;
}

function draw() {
  const gain = opinion.reward - champions().opinion.reward;
  at("reward").textContent = `${sum()} The model's heads differ by ±${opinion.spread.toFixed(3)}.`;
  at("reward").className = Math.abs(gain) < 5e-4 ? "" : gain > 0 ? "better" : "worse";
  const expected = new Map(opinion.positions.map((position) => [position.item_id, position]));
  const most = Math.max(...opinion.positions.map((position) => position.worth), 1e-9);
  at("list").replaceChildren(...items.map((item, place) => row(item, place, expected.get(item), most)));
}

function row(item, place, position, most) {
  const bar = make("span");
  bar.style.width = `${position ? Math.max(0, Math.min(100, (100 * position.worth) / most)) : 0}%`;
  const button = (name, sign, to) =>
    make("button", {
      type: "button", "data-do": name, disabled: to < 0 || to >= items.length,
      "aria-label": `Move ${title(item)} ${name}`, onclick: guarded(() => move(place, to, name)),
    }, sign);
  const others = asked.candidates.filter((candidate) => !items.includes(candidate.item_id));
  const select = make("select", {
    "aria-label": `Replace ${title(item)} at position ${place + 1}`,
    onchange: guarded((event) => swap(place, event.target.value, true)),
  }, make("option", { value: "" }, "Replace by…"),
    ...others.map((candidate) => make("option", { value: candidate.item_id }, candidate.title)));
  return make("li", { draggable: "true", "data-item": item, ...dragging(item), ...dropping(place) },
    make("span", { class: "number" }, String(place + 1)),
    make("div", { class: "what" },
      make("div", { class: "title" }, title(item)),
      make("div", { class: "figures" }, `${topics(item)}; ${position ? figures(position) : "…"}`),
      make("div", { class: "track" }, bar)),
    make("div", { class: "tools" }, button("up", "↑", place - 1), button("down", "↓", place + 1), select));
}

// --------------------------------------------------------------------------------------------------------- by dragging

const dragging = (item) => ({
  ondragstart: (event) => {
    event.dataTransfer.setData("text/plain", item);
    event.dataTransfer.effectAllowed = "move";
  },
});

const dropping = (place) => ({
  ondragover: (event) => {
    event.preventDefault();
    event.currentTarget.classList.add("over");
  },
  ondragleave: (event) => event.currentTarget.classList.remove("over"),
  ondrop: guarded(async (event) => {
    event.preventDefault();
    event.currentTarget.classList.remove("over");
    const item = event.dataTransfer.getData("text/plain");
    if (!byId.has(item) || items[place] === item) return;
    await (items.includes(item) ? move(items.indexOf(item), place) : swap(place, item));
  }),
});

// -------------------------------------------------------------------------------------------------- lists, candidates

function compare() {
  const heads = asked.lists.map((list) =>
    make("th", { scope: "col" }, NAMES[list.name] + (list.version ? ` (version ${list.version})` : ""),
      make("div", { class: "figures" }, `reward ${list.opinion.reward.toFixed(3)}`)));
  const length = Math.max(...asked.lists.map((list) => list.opinion.positions.length));
  const rows = Array.from({ length }, (_, place) =>
    make("tr", {}, make("th", { scope: "row" }, String(place + 1)),
      ...asked.lists.map((list) => cell(list, list.opinion.positions[place]))));
  at("lists").replaceChildren(
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "Position"), ...heads)), make("tbody", {}, ...rows));
  const placed = (item) => asked.lists
    .map((list) => [list.name, list.opinion.positions.findIndex((position) => position.item_id === item)])
    .filter(([, place]) => place >= 0).map(([name, place]) => `${NAMES[name]} ${place + 1}`).join(", ");
  at("candidates").replaceChildren(
    make("thead", {}, make("tr", {}, ...["Item", "Retriever's score", "Where"].map((name) => make("th", { scope: "col" }, name)))),
    make("tbody", {}, ...[...asked.candidates].sort((a, b) => b.score - a.score).map((candidate) =>
      make("tr", { draggable: "true", ...dragging(candidate.item_id) },
        make("th", { scope: "row" }, make("div", { class: "title" }, candidate.title),
          make("div", { class: "figures" }, topics(candidate.item_id))),
        make("td", { class: "number" }, candidate.score.toFixed(3)),
        make("td", {}, placed(candidate.item_id))))));
}

function cell(list, position) {
  if (!position) return make("td");
  const clicked = list.name === "shown" && asked.clicked.includes(position.item_id) ? " ✓ clicked" : "";
  return make("td", {}, make("div", { class: "title" }, title(position.item_id) + clicked),
    make("div", { class: "figures" }, figures(position)));
}

at("choose").addEventListener("submit", (event) => event.preventDefault());
at("user").addEventListener("input", guarded(() => suggest(at("user").value.trim())));
at("user").addEventListener("change", guarded(() => at("user").value.trim() && choose(at("user").value.trim())));
at("request").addEventListener("change", guarded(open));
guarded(start)();
