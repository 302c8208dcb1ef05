"use strict";
const $ = id => document.getElementById(id);
const make = (tag, properties, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
const write = (element, text) => {
  if (element.textContent !== text) element.textContent = text;
};
const cards = new Map(), pools = new Map();
let now, paused, timer, changes, acted, polls = 0;

const span = milliseconds => {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  if (seconds < 120) return `${seconds} s`;
  if (seconds < 7200) return `${Math.ceil(seconds / 60)} min`;
  return seconds < 172800 ? `${Math.ceil(seconds / 3600)} h` : `${Math.ceil(seconds / 86400)} d`;
};
const clock = time => new Date(time).toLocaleTimeString();
const words = text => text.replaceAll("_", " ");
const known = value => value == null ? "unknown" : value.toLocaleString();

const say = (text, wrong) => {
  $("message").className = wrong ? "wrong" : "";
  write($("message"), text);
};

const post = async (path, body, done) => {
  try {
    const response = await fetch(path, {
      method: "POST", headers: {"content-type": "application/json"}, body: JSON.stringify(body),
    });
    if (!response.ok) throw new Error((await response.json()).error);
    say(done);
  } catch (error) {
    say(`Not done: ${error.message}`, true);
  }
  // Its effect is no news.
  acted = true;
  poll();
};

const button = (text, name, press) => {
  const made = make("button", {type: "button", textContent: text, onclick: press});
  made.setAttribute("aria-label", `${text} ${name}`);
  return made;
};

class Card {
  constructor({pool, id}) {
    this.id = id;
    this.path = `credentials/${encodeURIComponent(pool)}/${encodeURIComponent(id)}`;
    this.state = make("span", {className: "state"});
    this.facts = make("dl");
    this.blocks = make("ul");
    const title = make("h3", {id: `c${cards.size}-${pools.size}`, textContent: id, tabIndex: -1});
    const minutes = make("select", {}, ...[15, 60, 240, 1440].map(value =>
      new Option(`for ${span(value * 60000)}`, value)));
    minutes.value = 60;
    minutes.setAttribute("aria-label", `How long ${id} drains or is released`);
    const act = (action, word) => () => post(`${this.path}/${action}`,
      {minutes: +minutes.value}, `${id} ${word}`);
    this.activate = button("Activate", id, act("activate", "is as configured"));
    this.element = make("article", {}, make("div", {className: "row"}, title, this.state),
      this.facts, this.blocks, make("div", {className: "row"}, minutes,
        button("Drain", id, act("drain", "drains: it takes no new session")),
        button("Release", id, act("release", "is released: its sessions get new homes")),
        this.activate));
    this.element.setAttribute("aria-labelledby", title.id);
  }

  show(credential) {
    const {state, override, configured, blocks, group} = credential;
    if (this.shown && this.shown != state && !acted) say(`${this.id} is ${words(state)}`);
    this.shown = this.element.className = state;
    write(this.state, words(state));
    // A button that goes leaves the focus to its card.
    if (!override && document.activeElement == this.activate) this.element.querySelector("h3").focus();
    this.activate.hidden = !override;
    const facts = {
      Sessions: known(credential.sessions),
      "Last served": credential.served ? `${span(now - credential.served)} ago` : "never",
      "In flight": known(credential.in_flight),
    };
    if (credential.windows.length) facts.Limits = credential.windows.map(({name, used, reset}) =>
      `${name} ${used} % used, ends in ${span(reset - now)}`).join("; ") + (credential.spared ? "; spared" : "");
    if (group) facts.Group = group;
    if (configured != "active") facts.Configured = configured;
    if (override) facts.Operator = `${override.state} for ${span(override.until - now)}`;
    const names = Object.keys(facts), all = names.join();
    if (this.names != all) {
      this.names = all;
      this.facts.replaceChildren(...names.flatMap(name => [make("dt", {textContent: name}), make("dd")]));
    }
    this.facts.querySelectorAll("dd").forEach((dd, at) => write(dd, facts[names[at]]));
    this.showBlocks(blocks);
  }

  showBlocks(blocks) {
    const key = blocks.map(block => block.id).join();
    if (this.key != key) {
      const focused = this.blocks.contains(document.activeElement);
      this.key = key;
      this.blocks.replaceChildren(...blocks.map(({id, scope, model}) => {
        const what = `${model ?? scope} of ${this.id}`;
        const clear = button("Clear", `the block of ${what}`,
          () => post(`${this.path}/clear`, {block: id}, `The block of ${what} is cleared`));
        return make("li", {className: "row"}, make("span"), ...id ? [clear] : []);
      }));
      if (focused) this.element.querySelector("h3").focus();
    }
    blocks.forEach((block, at) => {
      const {scope, model, status, until, retry_at} = block;
      const probe = retry_at < until ? `, probe in ${span(retry_at - now)}` : "";
      write(this.blocks.children[at].firstChild, `${model ? `model ${model}` : scope}: ` +
        [block.class, block.reason, status || ""].filter(Boolean).join(", ") +
        (block.since ? `, since ${clock(block.since)}` : "") +
        (until ? `, for ${span(until - now)} until ${clock(until)}${probe}` : ""));
    });
  }
}

const showPools = list => {
  for (const {name, decisions} of list) {
    if (!pools.has(name)) {
      const cached = make("p", {className: "quiet"}), cards = make("div", {className: "cards"});
      pools.set(name, {cached, cards});
      $("pools").append(make("section", {}, make("h2", {textContent: `Pool ${name}`}), cached, cards));
    }
    write(pools.get(name).cached, `Prompt tokens from caches: ` + (decisions.map(({outcome, prompt_tokens: all, cached_tokens: cached}) =>
      `${outcome} ${Math.round(100 * cached / all)} % of ${known(all)}`).join(", ") || "unknown"));
  }
};

const showCredentials = credentials => {
  for (const credential of credentials) {
    const key = JSON.stringify([credential.pool, credential.id]);
    if (!cards.has(key)) {
      cards.set(key, new Card(credential));
      pools.get(credential.pool).cards.append(cards.get(key).element);
    }
    cards.get(key).show(credential);
  }
  if (cards.size > credentials.length) location.reload();
  const count = state => credentials.filter(it => it.state == state).length;
  write($("summary"), ["ready", "partly_blocked", "blocked", "draining", "disabled"]
    .map(state => `${count(state)} ${words(state)}`).join(" · "));
};

const showTables = tables => {
  for (const [name, {slots, live, estimated}] of Object.entries(tables)) {
    if (!$(name)) {
      const meter = make("meter", {id: `${name}-load`, min: 0, high: .9});
      meter.setAttribute("aria-labelledby", name);
      $("tables").append(make("div", {className: "table"}, make("span", {id: name}), meter));
    }
    $(`${name}-load`).value = live / slots;
    write($(name), `${name}: ${estimated ? "about " : ""}${known(live)} of ${known(slots)} slots`);
  }
};

const showChanges = list => {
  if (changes == JSON.stringify(list)) return;
  changes = JSON.stringify(list);
  const lines = list.map(it => make("li", {textContent: [
    clock(it.at), it.credential ?? "a session", it.what.replace(/^model_(.*)/, "$1 for a model"),
    it.class && `(${it.class}${it.status ? ` ${it.status}` : ""})`, it.until && `until ${clock(it.until)}`,
    `by ${it.by}`, it.times > 1 && `${it.times} times`,
  ].filter(Boolean).join(" ")}));
  $("changes").replaceChildren(...lines.length ? lines : [make("li", {textContent: "none"})]);
};

// An answer that comes after a later poll has begun is old.
const poll = async () => {
  const own = ++polls;
  try {
    const response = await fetch("state");
    const state = await response.json();
    if (own != polls) return;
    if (!response.ok) throw new Error(state.error);
    now = state.now;
    showPools(state.pools);
    showCredentials(state.credentials);
    showTables(state.tables);
    showChanges(state.changes);
    write($("updated"), `${clock(now)}, version ${state.version}, profile ${state.profile}`);
  } catch (error) {
    if (own != polls) return;
    write($("updated"), `No answer: ${error.message}`);
  }
  acted = false;
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(poll, 3000);
};

$("pause").onclick = () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", paused);
  poll();
};
document.onvisibilitychange = () => document.hidden || paused || poll();
$("forget").onsubmit = event => {
  event.preventDefault();
  const text = $("session").value.trim(), model = $("model").value.trim();
  const body = /^[0-9a-f]{8}$/.test(text) ? {session: text} : {id: text, ...model && {model}};
  event.target.reset();
  post("sessions/forget", body, "The session is forgotten");
};
poll();
