// The live tail, the keyboard, and copying. Everything else works without this file.
"use strict";

(() => {
  const rows = () => [...document.querySelectorAll("[data-row]")];
  let selected = -1;

  function select(index) {
    const all = rows();
    if (!all.length) return;
    all.forEach((row) => row.classList.remove("selected"));
    selected = Math.max(0, Math.min(index, all.length - 1));
    const row = all[selected];
    row.classList.add("selected");
    const link = row.querySelector("a.event, a.main-link, a");
    if (link) link.focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  }

  const follow = (link) => link && link.click();
  const keys = {
    j: () => select(selected + 1),
    k: () => select(selected < 0 ? 0 : selected - 1),
    n: () => follow(document.querySelector("[data-key=n], a[rel=next]")),
    p: () => follow(document.querySelector("[data-key=p], a[rel=prev]")),
    l: () => follow(document.querySelector("[data-key=l]")),
    u: () => {
      const up = document.querySelector("[data-up]");
      if (up) location.assign(up.dataset.up);
    },
    "/": () => {
      const box = document.getElementById("goto");
      box.focus();
      box.select();
    },
    "?": () => document.getElementById("keys").showModal(),
  };

  document.addEventListener("keydown", (event) => {
    const target = event.target;
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (target.closest("input, textarea, select")) {
      if (event.key === "Escape") target.blur();
      return;
    }
    if (document.querySelector("dialog[open]")) return;
    const action = keys[event.key];
    if (action) {
      event.preventDefault();
      action();
    }
  });

  document.querySelectorAll("[data-opens]").forEach((button) => {
    button.hidden = false;
    button.addEventListener("click", () => document.getElementById(button.dataset.opens).showModal());
  });

  document.querySelectorAll("[data-copy]").forEach((button) => {
    if (!navigator.clipboard) return;
    button.hidden = false;
    const label = button.textContent;
    button.addEventListener("click", async () => {
      try {
        const answer = await fetch(button.dataset.copy);
        if (!answer.ok) throw new Error(answer.statusText);
        await navigator.clipboard.writeText(await answer.text());
        button.textContent = "Copied";
      } catch {
        button.textContent = "Could not copy";
      }
      setTimeout(() => { button.textContent = label; }, 1500);
    });
  });

  const table = document.querySelector("[data-tail]");
  if (table) {
    const body = table.tBodies[0];
    const state = document.getElementById("tail-state");
    const MOST = 500;
    let count = 0;
    const say = (text) => { state.textContent = text; };
    const add = (message) => {
      // A row of the server's own, in which everything is escaped. It is parsed without running anything.
      const parsed = new DOMParser().parseFromString(`<table><tbody>${JSON.parse(message.data).row}</tbody></table>`, "text/html");
      const row = parsed.querySelector("tr");
      if (!row || (row.id && document.getElementById(row.id))) return;
      row.classList.add("fresh");
      body.prepend(document.adoptNode(row));
      if (selected >= 0) selected += 1;
      while (body.rows.length > MOST) body.lastElementChild.remove();
      count += 1;
      say(`${count} new ${count === 1 ? "event" : "events"}. Waiting for more…`);
    };
    const source = new EventSource(table.dataset.tail);
    source.addEventListener("event", add);
    source.addEventListener("unreadable", add);
    source.addEventListener("problem", (message) => say(`The store could not be read (${message.data}). Trying again…`));
    source.addEventListener("open", () => { if (!count) say("Live: waiting for events…"); });
    source.addEventListener("error", () => say(
      source.readyState === EventSource.CLOSED ? "The live tail has ended: reload the page." : `${count} new. Connecting again…`,
    ));
    addEventListener("pagehide", () => source.close());
  }
})();
